"""The table and the pictures of `splitexit bench methods`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any

from splitexit.bench.score import COMPARED
from splitexit.report.methods import picture

Document = dict[str, Any]

HEADS = ("data", "method", "twin %", "final %", "early %", "cost", "difference", "epochs", "seeds", "ECE %", "exits %")
"""`early`: leaving at the chosen thresholds; `difference`: of that to the twin, in points with its interval; `ECE`: the
mean over the exits, without and with temperatures; `exits`: how many samples leave at each."""

RULE_HEADS = ("data", "method", *COMPARED, "its own")
"""Costs that rules reach, and the differences to the twin, on test images; thresholds are of validation images."""

WIDE, NARROW = len(HEADS), 7
ENOUGH = 125
"""Columns of a terminal in which all fit; in a narrower one the first NARROW are shown."""


def heads(width: int) -> tuple[str, ...]:
    """Those that fit into a terminal of this width."""
    return HEADS[: WIDE if width >= ENOUGH else NARROW]


def grouped(results: Sequence[Document]) -> list[list[Document]]:
    """The seeds of every method on every data set together."""

    def key(found: Document) -> tuple[str, str]:
        return found["data"], found["network"]

    return [list(same) for _, same in groupby(sorted(results, key=key), key)]


def cells(seeds: Sequence[Document]) -> list[str]:
    """A line under HEADS: means over the seeds, of the ends of the difference's interval too."""
    first = seeds[0]
    shares = [mean(rates) for rates in zip(*(found["exit_rates"] for found in seeds), strict=True)]
    errors = [mean(mean(found[key]) for found in seeds) for key in ("ece", "ece_tempered")]
    return [
        first["data"],
        first["network"],
        f"{_mean(seeds, 'twin_accuracy'):.2f}",
        f"{_mean(seeds, 'final_accuracy'):.2f}",
        f"{_mean(seeds, 'accuracy'):.2f}",
        f"{_mean(seeds, 'cost'):.1%}",
        apart(seeds),
        f"{first['epochs']} / {first['twin_epochs']}",
        str(len(seeds)),
        f"{errors[0]:.1f} / {errors[1]:.1f}",
        " ".join(f"{100 * share:.0f}" for share in shares),
    ]


def rule_cells(seeds: Sequence[Document], key: str) -> list[str] | None:
    """A line under RULE_HEADS: means over the seeds; `key` is `held` or `small` of their documents.

    None where no rule reaches that. The last cell is of the method's own rule, where that is none of the others.
    """
    first, found = seeds[0], list[str]()
    for rule in (*COMPARED, first["rule"]):
        each = [of_seed[key][rule] for of_seed in seeds if of_seed[key][rule] is not None]
        points = [one["difference"]["points"] for one in each]
        found.append(f"{mean(one['cost'] for one in each):.0%} {mean(points):+.2f}" if each else "-")
    if first["rule"] in COMPARED:
        found[-1] = ""
    return None if {*found} <= {"", "-"} else [first["data"], first["network"], *found]


def apart(seeds: Sequence[Document]) -> str:
    """The mean difference to the twin in points, and the means of its interval's ends."""
    points, low, high = (mean(found["difference"][key] for found in seeds) for key in ("points", "low", "high"))
    return f"{points:+.2f} [{low:+.2f}, {high:+.2f}]"


def _mean(seeds: Sequence[Document], key: str) -> float:
    return mean(float(found[key]) for found in seeds)


def draw(results: Sequence[Document], folder: Path) -> list[Path]:
    """A picture for every data set; see splitexit.report.methods."""
    files = []
    for data, of_data in groupby(grouped(results), lambda seeds: str(seeds[0]["data"])):
        files.append(folder / f"{data}.png")
        picture(data, list(of_data), files[-1])
    return files
