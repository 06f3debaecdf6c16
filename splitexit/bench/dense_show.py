"""The table and the pictures of `splitexit bench dense`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from splitexit.bench.miou import answers, evaluate
from splitexit.bench.scenes import CLASSES, Scenes
from splitexit.bench.show import apart
from splitexit.report.plots import COLOURS, figure
from splitexit.report.strips import Column, strips

if TYPE_CHECKING:
    from splitexit.models.multi_exit import MultiExitNet

Document = dict[str, Any]

HEADS = ("method", "mIoU % by exit", "early %", "cost", "difference", "exits %", "cost by exit", "epochs", "seeds")
"""`early`: leaving at the chosen threshold, and its mean cost; `difference`: of that to the exit-free network, in
points with its interval; `exits`: how many scenes leave at each; `cost by exit`: where its head alone is read."""

NARROW = 5
ENOUGH = 125
"""Columns of a terminal in which all fit; in a narrower one the first NARROW are shown."""

SHOWN = 6
"""Scenes in a strip."""


def heads(width: int) -> tuple[str, ...]:
    """Those that fit into a terminal of this width."""
    return HEADS[: len(HEADS) if width >= ENOUGH else NARROW]


def grouped(results: Sequence[Document]) -> list[list[Document]]:
    """The seeds of every method together, methods in the order in which they were trained."""
    order = list(dict.fromkeys(found["method"] for found in results))
    by_method = sorted(results, key=lambda found: order.index(found["method"]))
    return [list(same) for _, same in groupby(by_method, lambda found: found["method"])]


def cells(seeds: Sequence[Document]) -> list[str]:
    """A line under HEADS: means over the seeds, of the ends of the difference's interval too."""
    first = seeds[0]
    exits = list(zip(*(found["exits"] for found in seeds), strict=True))
    shares = zip(*(found["exit_rates"] for found in seeds), strict=True)
    return [
        first["method"],
        " ".join(f"{mean(one['miou'] for one in exit_):.1f}" for exit_ in exits),
        f"{mean(found['miou'] for found in seeds):.2f}",
        f"{mean(found['cost'] for found in seeds):.1%}",
        apart(seeds) if len(exits) > 1 else "",
        " ".join(f"{100 * mean(rates):.0f}" for rates in shares),
        " ".join(f"{exit_[0]['cost']:.2f}" for exit_ in exits),
        str(first["epochs"]),
        str(len(seeds)),
    ]


def markdown(results: Sequence[Document]) -> str:
    """The whole table, for a document."""
    lines = [HEADS, ("---",) * len(HEADS), *(cells(seeds) for seeds in grouped(results))]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def draw(results: Sequence[Document], file: Path) -> None:
    """mIoU over cost: a line for every method, as the threshold sweeps, and every exit alone as a cross."""
    fig, axes = figure()
    for number, seeds in enumerate(grouped(results)):
        colour, first = COLOURS[number % len(COLOURS)], seeds[0]
        if len(first["exits"]) == 1:
            axes.axhline(first["miou"], color=colour, linewidth=0.8, linestyle=":", label=first["method"])
            continue
        line = sorted((point["cost"], point["miou"]) for point in first["curve"])
        axes.plot(*zip(*line, strict=True), "-", color=colour, linewidth=1.2, label=first["method"])
        alone = [(exit_["cost"], exit_["miou"]) for exit_ in first["exits"]]
        axes.plot(*zip(*alone, strict=True), "x", color=colour, markersize=6)
        axes.plot(first["cost"], first["miou"], "o", color=colour, markersize=6, markerfacecolor="none")
    axes.set_xlabel("mean cost, share of the exit-free network's multiply-accumulates")
    axes.set_ylabel("mean IoU on the test scenes in %")
    axes.set_title("line = leaving early, circle = chosen threshold, cross = one exit for all", fontsize=9)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, loc="lower right", frameon=False)
    fig.savefig(file)


def strip(net: MultiExitNet, scenes: Scenes, found: Document, file: Path) -> None:
    """Scenes as rows: the image, its labels, and what every exit answers, a frame around where it leaves.

    Args:
        scenes: SHOWN or fewer.
        found: the network's document.
    """
    answered, said = answers(net, scenes), evaluate(net, scenes)
    leaves = said.leaving(found["threshold"])
    columns = [Column("labels", scenes.masks)]
    for exit_, one in enumerate(found["exits"]):
        name = "final" if exit_ == net.spec.final_exit else f"exit {exit_}"
        sure = [f"{confidence:.3f}" for confidence in said.confidence[exit_]]
        columns.append(Column(f"{name}\ncost {one['cost']:.2f}", answered[exit_], sure, (leaves == exit_).tolist()))
    title = f"{found['method']}, seed {found['seed']}\nbelow: mean confidence; framed: where a scene leaves"
    strips(scenes.images, columns, CLASSES, title, file)
