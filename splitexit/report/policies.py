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
Place = tuple[float, float]

ACROSS, WIDTH = 4, 3.2
"""Panels beside each other, and the width of one in inches."""

SLOWEST, LOWEST = 12.0, 12.0
"""Where axes end: at so many times the least mean response, and so many points below the most accurate policy that a
device could follow. What is beyond stands at the edge, as an arrow."""

LABELS = 6
"""Names of policies in a line."""


def accuracy_over_latency(scenarios: Sequence[Mapping[str, Any]], title: str, file: Path) -> None:
    """A panel for every scenario: accuracy over mean response, a numbered point for every policy, one list of names.

    Without intervals: all policies answer the same samples, so what their accuracies have in common would hide what
    sets them apart. Raises UsageError where matplotlib is not installed.
    """
    labels = _labels(scenarios)
    fig, axes = _panels(scenarios, 3.0, 0.2 * ceil(len(labels) / LABELS) + 0.15)
    for scenario in scenarios:
        panel = axes[scenario["scenario"]]
        panel.set_title(scenario["scenario"], fontsize=9)
        panel.set_xlabel("mean response in ms", fontsize=8)
        panel.set_ylabel("accuracy in %", fontsize=8)
        panel.tick_params(labelsize=7)
        _limits(panel, scenario["policies"])
    _names(axes["names"], labels)
    fig.suptitle(title, fontsize=10)
    fig.canvas.draw()  # only then points have their places, beside which the numbers are put
    for scenario in scenarios:
        _points(axes[scenario["scenario"]], scenario["policies"], labels)
    fig.savefig(file)


def regret(scenarios: Sequence[Mapping[str, Any]], title: str, file: Path) -> None:
    """A panel for every scenario: regret of every policy, the least at the top, with the interval of its difference to
    the least that a device could reach.

    Raises UsageError where matplotlib is not installed.
    """
    most = max(len(scenario["policies"]) for scenario in scenarios)
    fig, axes = _panels(scenarios, 0.16 * most + 0.6, 0.02)
    axes["names"].set_axis_off()
    for scenario in scenarios:
        panel = axes[scenario["scenario"]]
        _bars(panel, scenario["policies"])
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
    return panels([*layout, ["names"] * across], max(0.4 + WIDTH * across, 7.0), sum(heights) + 0.4, heights)


def _labels(scenarios: Sequence[Mapping[str, Any]]) -> dict[str, Style]:
    """Every policy with its number, colour and marker: the same in all panels."""
    every = dict.fromkeys(label for scenario in scenarios for label in scenario["policies"])
    return {
        label: (str(n + 1), COLOURS[n % len(COLOURS)], MARKERS[n // len(COLOURS) % len(MARKERS)])
        for n, label in enumerate(every)
    }


def _limits(axes: Axes, rows: Mapping[str, Row]) -> None:
    """Logarithmic in time; as far as SLOWEST and LOWEST go."""
    times = [row["response_ms"]["mean"] for row in rows.values()]
    able = [100 * row["accuracy"] for row in rows.values() if not row["knowing"]] or [0.0]
    low, high = max(min(able), max(able) - LOWEST), max(able)
    room = 0.1 * (high - low) + 0.4
    axes.set_ylim(low - room, high + room)
    axes.set_xscale("log")
    axes.set_xlim(min(times) / 1.3, 1.3 * min(SLOWEST * min(times), max(times)))
    _plain_ticks(axes)


def _points(axes: Axes, rows: Mapping[str, Row], labels: Mapping[str, Style]) -> None:
    """Points, and beside each its number; those that lie upon one another share a list of numbers."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    shared: dict[Place, list[str]] = {}
    for label, row in rows.items():
        number, colour, marker = labels[label]
        x, y = row["response_ms"]["mean"], 100 * row["accuracy"]
        marker = "^" if y > high else "v" if y < low else ">" if x > right else marker
        place = min(max(x, left), right), min(max(y, low), high)
        axes.plot(*place, marker, color=colour, markersize=4.5, clip_on=False)
        same = next((other for other in shared if _apart(axes, place, other) < 4.0), place)
        shared.setdefault(same, []).append(number)
    taken = [_in_points(axes, place) for place in shared]
    for place, numbers in shared.items():
        _number(axes, ",".join(numbers), place, taken)


def _in_points(axes: Axes, place: Place) -> Place:
    x, y = axes.transData.transform(place) * 72 / axes.figure.dpi
    return float(x), float(y)


def _apart(axes: Axes, one: Place, other: Place) -> float:
    (x, y), (u, v) = _in_points(axes, one), _in_points(axes, other)
    return max(abs(x - u), abs(y - v))


def _number(axes: Axes, text: str, place: Place, taken: list[Place]) -> None:
    """Beside its point, where nothing else stands; every three points of width are a place to be left free."""
    (x, y), width = _in_points(axes, place), 3.6 * len(text)
    sides = [(5.0, 0.0), (-5.0 - width, 0.0), (-width / 2, 8.0), (-width / 2, -8.0)]
    if place[1] == axes.get_ylim()[0]:
        sides = sides[2:3]  # beside it the axis would strike it through
    sides += [(dx, dy) for step in (1, 2, 3) for dy in (8.0 * step, -8.0 * step) for dx in (5.0, -5.0 - width)]
    spots = {side: [(x + side[0] + 3.6 * n, y + side[1]) for n in range(len(text) + 1)] for side in sides}
    free = (
        side for side, of in spots.items() if all(abs(a - u) > 3 or abs(b - v) > 6 for a, b in of for u, v in taken)
    )
    dx, dy = next(free, sides[0])
    taken += spots[dx, dy]
    axes.annotate(text, place, (dx, dy), textcoords="offset points", fontsize=6.5, va="center", annotation_clip=False)


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
    axes.legend(fontsize=7, loc="center", ncols=LABELS, frameon=False)


def _bars(axes: Axes, rows: Mapping[str, Row]) -> None:
    ranked = sorted(rows, key=lambda label: -rows[label]["regret"])
    values = [rows[label]["regret"] for label in ranked]
    halves = [_half(rows[label].get("above_least", {})) for label in ranked]
    axes.barh(range(len(ranked)), values, xerr=halves, color=COLOURS[5], height=0.65, error_kw={"elinewidth": 0.8})
    axes.set_yticks(range(len(ranked)), ranked)
    axes.set_ylim(-0.6, len(ranked) - 0.4)
    axes.grid(visible=False, axis="y")
    axes.axvline(0.0, color="black", linewidth=0.6)


def _half(interval: Mapping[str, float | None]) -> float:
    low, high = interval.get("low"), interval.get("high")
    return 0.0 if low is None or high is None or not isfinite(low) else (high - low) / 2
