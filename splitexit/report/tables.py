"""Tables for the terminal, which leave out columns rather than cut figures where it is narrow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from splitexit.compare import Comparison

Line = Mapping[str, Any]
Column = tuple[str, int, Callable[[Line], str]]
"""Heading, rank (the highest is left out first), and what to show of a line."""

COMPARISON: tuple[Column, ...] = (
    ("accuracy", 0, lambda s: f"{s['accuracy']:.2%}"),
    ("mean ms", 0, lambda s: f"{s['response_ms']['mean']:.1f}"),
    ("p50", 3, lambda s: f"{s['response_ms']['p50']:.1f}"),
    ("p95", 1, lambda s: f"{s['response_ms']['p95']:.1f}"),
    ("p99", 4, lambda s: f"{s['response_ms']['p99']:.1f}"),
    ("missed", 2, lambda s: f"{s['deadline_miss_rate']:.1%}"),
    ("sent", 2, lambda s: f"{s['offload_rate']:.0%}"),
    ("bytes", 5, lambda s: f"{s['uplink_bytes_mean']:.0f}"),
    ("utility", 6, lambda s: f"{s['utility']:.3f}"),
    ("Δ mean ms", 0, lambda s: s["change"]),
)

LIVE: tuple[Column, ...] = (
    *(column for column in COMPARISON if column[0] not in ("utility", "Δ mean ms", "bytes")),
    ("fallback", 1, lambda s: f"{s['fallback_rate']:.1%}"),
    ("overruns", 1, lambda s: f"{s['overrun_rate']:.1%}"),
)

DEMONSTRATION: tuple[Column, ...] = (
    ("accuracy", 0, lambda s: f"{s['accuracy']:.1%}"),
    ("sent", 3, lambda s: f"{s['offload_rate']:.0%}"),
    ("measured ms", 0, lambda s: f"{s['measured_ms']['mean']:.1f}"),
    ("p50", 2, lambda s: f"{s['measured_ms']['p50']:.1f}"),
    ("p95", 1, lambda s: f"{s['measured_ms']['p95']:.1f}"),
    ("simulated", 0, lambda s: f"{s['simulated_ms']['mean']:.1f}"),
    ("p50", 2, lambda s: f"{s['simulated_ms']['p50']:.1f}"),
    ("p95", 1, lambda s: f"{s['simulated_ms']['p95']:.1f}"),
    ("error", 0, lambda s: f"{s['error_percent']:+.1f}%"),
)


def comparison_table(comparison: Comparison, width: int) -> Table:
    """One line per policy: accuracy, response times, what was sent, and the paired difference to the first."""
    baseline = comparison.policies[0]
    differences = comparison.differences(baseline)
    lines = {
        policy: {**summary, "change": _interval(differences[policy]["response_ms"])}
        if policy in differences
        else {**summary, "change": "baseline"}
        for policy, summary in comparison.summaries.items()
    }
    return fitting_table("policy", COMPARISON, lines, width)


def fitting_table(first: str, columns: Sequence[Column], lines: Mapping[str, Line], width: int) -> Table:
    """A table of `lines`, without the columns of the highest ranks until it stands in `width` characters."""
    table = Table()
    for rank in range(max(rank for _, rank, _ in columns), -1, -1):
        kept = [column for column in columns if column[1] <= rank]
        table = plain_table(first, *(name for name, _, _ in kept))
        for label, line in lines.items():
            table.add_row(label, *(show(line) for _, _, show in kept))
        if Console(width=1000).measure(table).maximum <= width:
            break
    return table


def plain_table(first: str, *columns: str) -> Table:
    """A table without lines: the first column to the left, numbers to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _interval(values: Mapping[str, Any]) -> str:
    half = values["high"] - values["mean"]
    return f"{values['mean']:+.1f}" + ("" if math.isnan(half) else f" ±{half:.1f}")
