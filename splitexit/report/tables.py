"""Tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from splitexit.compare import Comparison


def comparison_table(comparison: Comparison) -> Table:
    """One line per policy: accuracy, response times, what was sent, and the paired difference to the first."""
    baseline = comparison.policies[0]
    differences = comparison.differences(baseline)
    table = _table("policy", "accuracy", "mean ms", "p50", "p95", "p99", "missed", "sent", "bytes", "utility")
    table.add_column(f"Δ mean ms to {baseline}", justify="right")
    for policy, summary in comparison.summaries.items():
        ms = summary["response_ms"]
        table.add_row(
            policy,
            f"{100 * summary['accuracy']:.2f} %",
            *(f"{ms[key]:.1f}" for key in ("mean", "p50", "p95", "p99")),
            f"{100 * summary['deadline_miss_rate']:.1f} %",
            f"{100 * summary['offload_rate']:.0f} %",
            f"{summary['uplink_bytes_mean']:.0f}",
            f"{summary['utility']:.3f}",
            _interval(differences[policy]["response_ms"]) if policy in differences else "",
        )
    return table


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _interval(values: Mapping[str, Any]) -> str:
    half = values["high"] - values["mean"]
    return f"{values['mean']:+.1f}" + ("" if math.isnan(half) else f" ± {half:.1f}")
