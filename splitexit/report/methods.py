"""The pictures of `splitexit bench methods`, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from splitexit.report.plots import COLOURS, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Seeds = Sequence[dict[str, Any]]
"""Documents of one method on one data set, one for every seed."""

LAYOUT = (("curves", "curves", "names"), ("shares", "shares", "errors"))
STYLES = ("-", "--", ":")
TWINS = "*PXD"
SHOWN = 10.0
"""Points of accuracy below the worst twin at which a picture ends."""

READABLE = 0.07
"""A smaller share of samples has no room for its number."""


def picture(data: str, methods: Sequence[Seeds], file: Path) -> None:
    """Accuracy over cost, exit shares, and calibration errors of methods on one data set.

    Raises UsageError where matplotlib is not installed.
    """
    lines = 1.0 + 0.2 * len(methods)
    fig, axes = panels(LAYOUT, 9.0, 4.8 + lines, (4.2, lines))
    _curves(axes["curves"], methods)
    _explain(axes["curves"], axes["names"])
    axes["curves"].set_title(f"{data}: line = leaving early, dot = at the chosen thresholds", fontsize=10)
    _shares(axes["shares"], methods)
    _errors(axes["errors"], methods)
    fig.savefig(file)


def _curves(axes: Axes, methods: Sequence[Seeds]) -> None:
    """A curve for every method and seed, and the exit-free twins as stars."""
    for number, seeds in enumerate(methods):
        colour, style = COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS) % len(STYLES)]
        for later, found in enumerate(seeds):
            line = sorted((p["cost"], p["accuracy"]) for p in found["curve"])
            label = None if later else f"{found['network']}, by {found['rule']}"
            axes.plot(*zip(*line, strict=True), style, color=colour, linewidth=0.6 if later else 1.3, label=label)
            axes.plot(found["cost"], found["accuracy"], "o", color=colour, markersize=3 if later else 5)
    twins = {found["twin"]: found["twin_accuracy"] for seeds in methods for found in seeds[::-1]}
    for number, (twin, accuracy) in enumerate(twins.items()):
        axes.plot(1.0, accuracy, TWINS[number % len(TWINS)], color="black", markersize=9, label=f"{twin}, exit-free")
    axes.set_xlabel("mean cost, share of the exit-free network's multiply-accumulates")
    axes.set_ylabel("test accuracy in %")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=max(axes.get_ylim()[0], min(twins.values()) - SHOWN))


def _explain(axes: Axes, beside: Axes) -> None:
    """The legend of some axes, in other axes, where it covers no curve."""
    beside.set_axis_off()
    beside.legend(*axes.get_legend_handles_labels(), fontsize=7, loc="upper left", borderaxespad=0.0, frameon=False)


def _shares(axes: Axes, methods: Sequence[Seeds]) -> None:
    """How many samples leave at each exit, means over the seeds: a bar for every method, darker to the back."""
    for row, seeds in enumerate(methods):
        start = 0.0
        shares = [mean(rates) for rates in zip(*(found["exit_rates"] for found in seeds), strict=True)]
        for exit_, share in enumerate(shares):
            grey = 0.92 - 0.7 * exit_ / max(len(shares) - 1, 1)
            bar = axes.barh(row, 100 * share, left=start, height=0.75, color=str(grey), edgecolor="white")
            if share >= READABLE:
                colour = "black" if grey > 0.5 else "white"
                axes.bar_label(bar, [f"{100 * share:.0f}"], label_type="center", fontsize=6, color=colour)
            start += 100 * share
    _one_row_each(axes, [seeds[0]["network"] for seeds in methods])
    axes.set_xlim(0, 100)
    axes.grid(visible=False)
    axes.set_xlabel("% leaving by exit, the first lightest", fontsize=8)


def _errors(axes: Axes, methods: Sequence[Seeds]) -> None:
    """Calibration errors, means over exits and seeds: as trained, and with temperatures."""
    for row, seeds in enumerate(methods):
        first, then = (mean(mean(found[key]) for found in seeds) for key in ("ece", "ece_tempered"))
        axes.plot([first, then], [row, row], color=COLOURS[-1], linewidth=1.0, zorder=1)
        labels = (None, None) if row else ("as trained", "with temperatures")
        axes.plot(first, row, "o", color=COLOURS[0], markerfacecolor="white", markersize=5, label=labels[0])
        axes.plot(then, row, "o", color=COLOURS[0], markersize=5, label=labels[1])
    _one_row_each(axes, [""] * len(methods))
    axes.set_xlim(left=0)
    axes.set_xlabel("ECE in %, mean over exits", fontsize=8)
    axes.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)


def _one_row_each(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(labelsize=7)
