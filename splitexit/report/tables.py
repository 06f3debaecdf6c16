"""Tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from splitexit.compare import Comparison

Cell = Callable[[Mapping[str, Any]], str]

# In the order in which they stand; the number says which go first where the terminal is narrow.
COLUMNS: tuple[tuple[str, int, Cell], ...] = (
    ("accuracy", 0, lambda s: f"{100 * s['accuracy']:.2f}%"),
    ("mean ms", 0, lambda s: f"{s['response_ms']['mean']:.1f}"),
    ("p50", 3, lambda s: f"{s['response_ms']['p50']:.1f}"),
    ("p95", 1, lambda s: f"{s['response_ms']['p95']:.1f}"),
    ("p99", 4, lambda s: f"{s['response_ms']['p99']:.1f}"),
    ("missed", 2, lambda s: f"{100 * s['deadline_miss_rate']:.1f}%"),
    ("sent", 2, lambda s: f"{100 * s['offload_rate']:.0f}%"),
    ("bytes", 5, lambda s: f"{s['uplink_bytes_mean']:.0f}"),
    ("utility", 6, lambda s: f"{s['utility']:.3f}"),
)


def comparison_table(comparison: Comparison, width: int) -> Table:
    """One line per policy: accuracy, response times, what was sent, and the paired difference to the first.

    Args:
        width: of the terminal, in characters; columns are left out until the table fits.
    """
    baseline = comparison.policies[0]
    differences = comparison.differences(baseline)

    def change(policy: str) -> str:
        return _interval(differences[policy]["response_ms"]) if policy in differences else "baseline"

    table = Table()
    for least in (7, 6, 5, 4, 3, 2, 1):
        columns = [column for column in COLUMNS if column[1] < least]
        table = plain_table("policy", *(name for name, _, _ in columns), "Δ mean ms")
        for policy, summary in comparison.summaries.items():
            table.add_row(policy, *(cell(summary) for _, _, cell in columns), change(policy))
        if fits(table, width):
            break
    return table


def plain_table(first: str, *columns: str) -> Table:
    """A table without lines: the first column to the left, numbers to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def fits(table: Table, width: int) -> bool:
    """Whether the table stands in `width` characters without cutting anything."""
    wide = Console(width=1000)
    return wide.measure(table).maximum <= width


def _interval(values: Mapping[str, Any]) -> str:
    half = values["high"] - values["mean"]
    return f"{values['mean']:+.1f}" + ("" if math.isnan(half) else f" ±{half:.1f}")
