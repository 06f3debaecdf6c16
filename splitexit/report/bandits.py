"""The picture of `splitexit bench bandits`, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitexit.report.plots import COLOURS, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Document = Mapping[str, Any]

LAYOUT = (("fixed", "oracle"), ("cost", "accuracy"), ("names", "names"))
STEADY = {"always_final": ("--", "always final"), "random_arm": (":", "a random arm")}
"""Baselines that do not learn."""


def picture(document: Document, title: str, file: Path) -> None:
    """Both regrets over requests, and cost and accuracy over the cost of sending; bands are 95 % intervals.

    Raises UsageError where matplotlib is not installed.
    """
    fig, axes = panels(LAYOUT, 9.0, 7.0, (3.2, 3.2, 0.5))
    colours = {name: COLOURS[number] for number, name in enumerate(document["regret"]["policies"])}
    _regrets(axes["fixed"], document, "fixed", colours)
    _steady(axes["fixed"], document)
    axes["fixed"].set_title("regret to the best fixed arm", fontsize=9)
    _regrets(axes["oracle"], document, "oracle", colours)
    axes["oracle"].set_title("regret to the most of every request", fontsize=9)
    _swept(axes["cost"], document["sweep"], "cost", 1.0, colours)
    axes["cost"].set_ylabel("mean cost of a request", fontsize=8)
    axes["cost"].set_ylim(bottom=0)
    _swept(axes["accuracy"], document["sweep"], "accuracy", 100.0, colours)
    axes["accuracy"].set_ylabel("test accuracy in %", fontsize=8)
    for one in axes.values():
        one.tick_params(labelsize=7)
    _legend(axes["names"], [axes["fixed"], axes["cost"]])
    fig.suptitle(title, fontsize=10)
    fig.savefig(file)


def _regrets(axes: Axes, document: Document, of: str, colours: Mapping[str, str]) -> None:
    at = document["regret"]["at"]
    for name, regret in document["regret"]["policies"].items():
        _band(axes, at, regret[of], 1.0, name, colours[name])
    axes.set_xlabel("requests", fontsize=8)
    axes.set_ylabel("cumulative regret", fontsize=8)


def _steady(axes: Axes, document: Document) -> None:
    """Straight lines of what does not learn, as far as the picture goes."""
    bottom, top = axes.get_ylim()
    for key, (style, label) in STEADY.items():
        end = document["regret"]["baselines"][key]
        axes.plot([0, document["horizon"]], [0, end], style, color="#777777", linewidth=1.0, label=label)
    axes.set_ylim(bottom, 1.3 * top)
    axes.axhline(0.0, color="black", linewidth=0.6)


def _swept(axes: Axes, sweep: Sequence[Document], key: str, scale: float, colours: Mapping[str, str]) -> None:
    """A policy may be missing where no early exit is the best arm (HI-LCB)."""
    for name, colour in colours.items():
        points = [point for point in sweep if name in point["policies"]]
        spread = [point["policies"][name][key] for point in points]
        of = {end: [one[end] for one in spread] for end in ("mean", "low", "high")}
        _band(axes, [point["offload"] for point in points], of, scale, name, colour)
    offloads = [point["offload"] for point in sweep]
    final = [scale * point["always_final"][key] for point in sweep]
    axes.plot(offloads, final, "--", color="#777777", linewidth=1.0, label="always final")
    best = [next(arm for arm in point["arms"] if arm["exit"] == point["best"]) for point in sweep]
    steady = [scale * arm[key] for arm in best]
    axes.plot(offloads, steady, "-", color="black", linewidth=0.9, label="best fixed arm")
    axes.set_xlabel("cost of sending, o", fontsize=8)


def _band(axes: Axes, x: Sequence[float], of: Document, scale: float, name: str, colour: str) -> None:
    mean, low, high = ([scale * value for value in of[key]] for key in ("mean", "low", "high"))
    style = (0, (3, 3)) if name.endswith("_oracle") else "-"  # what it lies upon shows through
    axes.plot(x, mean, color=colour, linestyle=style, linewidth=1.6, label=name)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def _legend(axes: Axes, shown: Sequence[Axes]) -> None:
    """One for all panels."""
    axes.set_axis_off()
    handles: dict[str, Any] = {}
    for one in shown:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    axes.legend(handles.values(), handles, fontsize=7, loc="center", ncols=4, frameon=False)
