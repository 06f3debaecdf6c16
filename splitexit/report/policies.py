"""The pictures of `splitexit bench policies`, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitexit.report.plots import COLOURS, MARKERS, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
Style = tuple[str, str, str]

ACROSS = 3
"""Panels beside each other."""

WIDEST = 30.0
"""Where the axis of response times ends, in multiples of the fastest policy's mean; what is beyond stands there."""


def accuracy_over_latency(scenarios: Sequence[Mapping[str, Any]], title: str, file: Path) -> None:
    """A panel for every scenario: accuracy over mean response, a numbered point for every policy, one list of names.

    Without intervals: all policies answer the same samples, so what their accuracies have in common would hide what
    sets them apart.

    Raises UsageError where matplotlib is not installed.
    """
    labels = _labels(scenarios)
    fig, axes = _panels(scenarios, 3.2, 0.24 * ceil(len(labels) / 5) + 0.15)
    for scenario in scenarios:
        panel = axes[scenario["scenario"]]
        _points(panel, scenario["policies"], labels)
        panel.set_title(scenario["scenario"], fontsize=9)
        panel.set_xlabel("mean response in ms", fontsize=8)
        panel.set_ylabel("accuracy in %", fontsize=8)
        panel.tick_params(labelsize=7)
    _names(axes["names"], labels)
    fig.suptitle(title, fontsize=10)
    fig.savefig(file)


def regret(scenarios: Sequence[Mapping[str, Any]], title: str, file: Path) -> None:
    """A panel for every scenario: regret of every policy with its interval, the least at the top.

    Raises UsageError where matplotlib is not installed.
    """
    labels = _labels(scenarios)
    most = max(len(scenario["policies"]) for scenario in scenarios)
    fig, axes = _panels(scenarios, 0.19 * most + 0.7, 0.02)
    axes["names"].set_axis_off()
    for scenario in scenarios:
        panel = axes[scenario["scenario"]]
        _bars(panel, scenario["policies"], labels)
        panel.set_title(scenario["scenario"], fontsize=9)
        panel.set_xlabel("regret, in utility", fontsize=8)
        panel.tick_params(labelsize=7)
    fig.suptitle(title, fontsize=10)
    fig.savefig(file)


def _panels(scenarios: Sequence[Mapping[str, Any]], height: float, foot: float) -> tuple[Figure, dict[str, Axes]]:
    """One for each scenario, and one below all, of a height of `foot`, in inches."""
    across = min(ACROSS, len(scenarios))
    down = ceil(len(scenarios) / across)
    names = [*(scenario["scenario"] for scenario in scenarios), *["."] * (across * down - len(scenarios))]
    layout = [names[across * n : across * (n + 1)] for n in range(down)]
    heights = [height] * down + [foot]
    return panels([*layout, ["names"] * across], 0.8 + 3.7 * across, sum(heights) + 0.4, heights)


def _labels(scenarios: Sequence[Mapping[str, Any]]) -> dict[str, Style]:
    """Every policy with its number, colour and marker: the same in all panels."""
    every = dict.fromkeys(label for scenario in scenarios for label in scenario["policies"])
    return {
        label: (str(n + 1), COLOURS[n % len(COLOURS)], MARKERS[n // len(COLOURS) % len(MARKERS)])
        for n, label in enumerate(every)
    }


def _points(axes: Axes, rows: Mapping[str, Row], labels: Mapping[str, Style]) -> None:
    least = min(row["response_ms"]["mean"] for row in rows.values())
    most = min(WIDEST * least, 1.15 * max(row["response_ms"]["mean"] for row in rows.values()))
    placed: list[tuple[float, float]] = []
    axes.set_xscale("log")
    axes.set_xlim(least / 1.25, 1.12 * most)
    accuracies = [100 * row["accuracy"] for row in rows.values()]
    room = 0.08 * (max(accuracies) - min(accuracies)) + 0.4
    axes.set_ylim(min(accuracies) - room, max(accuracies) + room)
    for label, row in rows.items():
        number, colour, marker = labels[label]
        x, y = min(row["response_ms"]["mean"], most), 100 * row["accuracy"]
        beyond = row["response_ms"]["mean"] > most
        axes.plot(x, y, ">" if beyond else marker, color=colour, markersize=4.5)
        _number(axes, number, x, y, colour, placed)
    _plain_ticks(axes)


def _number(axes: Axes, text: str, x: float, y: float, colour: str, placed: list[tuple[float, float]]) -> None:
    """Beside its point, where no other number stands: to the right, and farther up or down as long as that is taken."""
    to_points = axes.transData.transform
    px, py = (float(v) * 72 / axes.figure.dpi for v in to_points((x, y)))
    offsets = [(6.0, 0.0), (-11.0, 0.0), (0.0, 8.0), (0.0, -8.0)]
    offsets += [(dx, dy) for step in range(1, 6) for dy in (8.0 * step, -8.0 * step) for dx in (6.0, -11.0)]
    free = ((dx, dy) for dx, dy in offsets if all(abs(px + dx - u) > 9 or abs(py + dy - v) > 7 for u, v in placed))
    dx, dy = next(free, offsets[0])
    placed.append((px + dx, py + dy))
    axes.annotate(text, (x, y), (dx, dy), textcoords="offset points", fontsize=6.5, color=colour, va="center")


def _plain_ticks(axes: Axes) -> None:
    """10, 20, 50 rather than powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _names(axes: Axes, labels: Mapping[str, Style]) -> None:
    """One list for all panels."""
    axes.set_axis_off()
    for label, (number, colour, marker) in labels.items():
        axes.plot([], [], marker, color=colour, markersize=4.5, label=f"{number} {label}")
    axes.legend(fontsize=7, loc="center", ncols=5, frameon=False)


def _bars(axes: Axes, rows: Mapping[str, Row], labels: Mapping[str, Style]) -> None:
    ranked = sorted(rows, key=lambda label: -rows[label]["regret"])
    values = [rows[label]["regret"] for label in ranked]
    halves = [_half(rows[label]["intervals"]["regret"]) for label in ranked]
    colours = [labels[label][1] for label in ranked]
    axes.barh(range(len(ranked)), values, xerr=halves, color=colours, height=0.65, error_kw={"elinewidth": 0.8})
    axes.set_yticks(range(len(ranked)), ranked)
    axes.grid(visible=False, axis="y")
    axes.axvline(0.0, color="black", linewidth=0.6)


def _half(interval: Mapping[str, float | None]) -> float:
    low, high = interval["low"], interval["high"]
    return 0.0 if low is None or high is None or not isfinite(low) else (high - low) / 2
