"""The table and the pictures of `splitexit bench methods`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any

from splitexit.report.plots import COLOURS, figure

Document = dict[str, Any]

HEADS = ("data", "method", "twin %", "final %", "early %", "cost", "difference", "epochs", "seeds", "ECE %", "exits %")
"""`early`: leaving at the chosen thresholds; `difference`: of that to the twin, in points with its interval; `ECE`: the
mean over the exits, without and with temperatures; `exits`: how many samples leave at each."""

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
    """A line under HEADS: means over the seeds; the interval of the difference is that of the first seed."""
    first, interval = seeds[0], seeds[0]["difference"]
    points = mean(found["difference"]["points"] for found in seeds)
    shares = [mean(rates) for rates in zip(*(found["exit_rates"] for found in seeds), strict=True)]
    errors = [mean(mean(found[key]) for found in seeds) for key in ("ece", "ece_tempered")]
    return [
        first["data"],
        first["network"],
        f"{_mean(seeds, 'twin_accuracy'):.2f}",
        f"{_mean(seeds, 'final_accuracy'):.2f}",
        f"{_mean(seeds, 'accuracy'):.2f}",
        f"{_mean(seeds, 'cost'):.1%}",
        f"{points:+.2f} [{interval['low']:+.2f}, {interval['high']:+.2f}]",
        f"{first['epochs']} / {first['twin_epochs']}",
        str(len(seeds)),
        f"{errors[0]:.1f} / {errors[1]:.1f}",
        " ".join(f"{100 * share:.0f}" for share in shares),
    ]


def _mean(seeds: Sequence[Document], key: str) -> float:
    return mean(float(found[key]) for found in seeds)


def draw(results: Sequence[Document], folder: Path) -> list[Path]:
    """A picture for every data set: accuracy over cost, a line for each method, every exit alone as a cross."""
    files = []
    for data, of_data in groupby(grouped(results), lambda seeds: str(seeds[0]["data"])):
        fig, axes = figure()
        for number, seeds in enumerate(of_data):
            colour, first = COLOURS[number % len(COLOURS)], seeds[0]
            line = sorted((p["cost"], p["accuracy"]) for p in first["curve"])
            axes.plot(
                *zip(*line, strict=True),
                "-",
                color=colour,
                linewidth=1.2,
                label=f"{first['network']}, by {first['rule']}",
            )
            axes.plot(
                *zip(*((e["cost"], e["accuracy"]) for e in first["exits"]), strict=True),
                "x",
                color=colour,
                markersize=5,
            )
            axes.axhline(first["twin_accuracy"], color=colour, linewidth=0.6, linestyle=":")
        axes.set_xlabel("mean cost, share of the exit-free network's multiply-accumulates")
        axes.set_ylabel("test accuracy in %")
        axes.set_title(f"{data}: line = leaving early, cross = one exit for all, dotted = exit-free twin", fontsize=9)
        axes.set_xlim(left=0)
        axes.legend(fontsize=7, loc="lower right", frameon=False)
        files.append(folder / f"{data}.png")
        fig.savefig(files[-1])
    return files
