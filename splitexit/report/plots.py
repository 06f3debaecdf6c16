"""Pictures, drawn with matplotlib (the `report` extra)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitexit.compare import Comparison
from splitexit.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's palette: told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "osD^vP*X<"


def require_matplotlib() -> None:
    """Raises UsageError where matplotlib is not installed; to be called before long work, not after it."""
    if find_spec("matplotlib") is None:
        raise UsageError("pictures need matplotlib: pip install 'splitexit[report]'")


def figure(width: float = 7.0, height: float = 4.5) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; raises UsageError where matplotlib is not installed."""
    fig, axes = panels([["all"]], width, height)
    return fig, axes["all"]


def panels(
    layout: Sequence[Sequence[str]], width: float, height: float, heights: Sequence[float] | None = None
) -> tuple[Figure, dict[str, Axes]]:
    """A figure with several pairs of axes by name, laid out as in matplotlib's `subplot_mosaic`.

    `heights` are those of the rows, relative to each other. Raises what `figure` does.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout="constrained", dpi=140)
    named: dict[str, Axes] = fig.subplot_mosaic([list(row) for row in layout], height_ratios=heights)
    for axes in named.values():
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    return fig, named


def accuracy_over_latency(comparison: Comparison, path: Path) -> None:
    """Every policy as a point: mean response (bar: to the 95th percentile) and accuracy with its interval."""
    fig, axes = figure()
    points = list(comparison.summaries.items())
    for number, (policy, summary) in enumerate(points):
        _point(axes, policy, summary, COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)])
    axes.set_xlabel("response time in ms (dot: mean, line: p50 to p95)")
    axes.set_ylabel("accuracy in %")
    scenario = comparison.experiment.scenario
    axes.set_title(f"{scenario.name}: {scenario.devices.hardware}, {len(comparison.seeds)} seeds", fontsize=10)
    axes.set_xlim(left=0)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    fig.savefig(path)


def over_first_key(points: pa.Table, keys: Sequence[str], path: Path, title: str) -> None:
    """Mean response over the first key of a sweep, with its interval: a line for every policy and other setting."""
    fig, axes = figure()
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for point in points.to_pylist():
        rest = [f"{key.rpartition('.')[2]} {point[key]}" for key in keys[1:]]
        lines.setdefault(", ".join([point["policy"], *rest]), []).append(point)
    for number, (label, line) in enumerate(lines.items()):
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        _line(axes, keys[0], label, line, style)
    axes.set_xlabel(keys[0])
    axes.set_ylabel("mean response in ms, with its interval")
    axes.set_title(title, fontsize=10)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    fig.savefig(path)


def _line(axes: Axes, key: str, label: str, points: Sequence[Mapping[str, Any]], style: Mapping[str, Any]) -> None:
    x, means = [point[key] for point in points], [point["response_ms"] for point in points]
    axes.plot(x, means, markersize=5, markerfacecolor="none", label=label, **style)
    known = [point for point in points if point["response_ms_low"] is not None]
    if known and not isinstance(x[0], str):
        low, high = ([point[f"response_ms_{end}"] for point in known] for end in ("low", "high"))
        axes.fill_between([point[key] for point in known], low, high, color=style["color"], alpha=0.15, linewidth=0)


def _point(axes: Axes, label: str, summary: Mapping[str, Any], colour: str, marker: str) -> None:
    ms, accuracy = summary["response_ms"], 100 * summary["accuracy"]
    axes.hlines(accuracy, ms["p50"], ms["p95"], color=colour, alpha=0.35, linewidth=3)
    spread = summary["intervals"]["accuracy"]
    error = [[max(0.0, accuracy - 100 * spread["low"])], [max(0.0, 100 * spread["high"] - accuracy)]]
    axes.errorbar(
        ms["mean"],
        accuracy,
        yerr=error,
        fmt=marker,
        color=colour,
        markerfacecolor="none",
        markersize=8,
        capsize=3,
        label=label,
    )
