"""Tables for the terminal, which leave out columns rather than cut figures where it is narrow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from splitexit.backlog import BACKLOGGED, STABLE, UNSTABLE
from splitexit.compare import Comparison
from splitexit.summary import busiest

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
    ("J/request", 0, lambda s: joules(s)),
    ("shed", 6, lambda s: f"{s['shed_rate']:.1%}"),
    ("per s", 7, lambda s: f"{s['throughput_per_s']:.1f}"),
    ("bytes", 5, lambda s: f"{s['uplink_bytes_mean']:.0f}"),
    ("utility", 6, lambda s: f"{s['utility']:.3f}"),
    ("regret", 1, lambda s: f"{s['regret']:.4f}"),
    ("switches", 3, lambda s: f"{s['switch_rate']:.0%}"),
    ("busiest", 4, lambda s: busiest(s["bottleneck"], s["utilisation"][s["bottleneck"]])),
    ("verdict", 8, lambda s: s["verdict"]),
    ("Δ mean ms", 0, lambda s: s["change"]),
)

JUDGED = ("regret", "switches")
"""Columns of runs whose decisions were judged (splitexit.sim.regret)."""

SINGLE: tuple[Column, ...] = tuple(column for column in COMPARISON if column[0] not in (*JUDGED, "Δ mean ms"))

GROUPS: tuple[Column, ...] = tuple(column for column in SINGLE if column[0] not in ("busiest", "verdict"))

BARE: tuple[Column, ...] = tuple(column for column in GROUPS if column[0] not in ("J/request", "per s", "utility"))
"""What is known of a run whose rows nobody kept."""

LIVE: tuple[Column, ...] = (
    *(column for column in GROUPS if column[0] not in ("utility", "bytes", "shed", "per s", "J/request")),
    ("fallback", 1, lambda s: f"{s['fallback_rate']:.1%}"),
    ("overruns", 1, lambda s: f"{s['overrun_rate']:.1%}"),
)

REPLAY: tuple[Column, ...] = tuple(
    column
    for column in COMPARISON
    if column[0] not in (*JUDGED, "shed", "per s", "bytes", "utility", "busiest", "verdict")
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
    ("error", 0, lambda s: f"{round(s['error_percent'], 1) + 0.0:+.1f}%"),  # no -0.0
)


POINTS: tuple[Column, ...] = (
    ("accuracy", 2, lambda p: _maybe(p["accuracy"], ".2%")),
    ("mean ms", 0, lambda p: _maybe(p["response_ms"], ".1f")),
    ("±", 4, lambda p: _maybe(p["response_ms_high"], ".1f", p["response_ms"])),
    ("p95", 0, lambda p: _maybe(p["p95_ms"], ".1f")),
    ("±", 4, lambda p: _maybe(p["p95_ms_high"], ".1f", p["p95_ms"])),
    ("missed", 3, lambda p: _maybe(p["deadline_miss_rate"], ".1%")),
    ("sent", 6, lambda p: _maybe(p["offload_rate"], ".0%")),
    ("J/request", 0, lambda p: joules(p)),
    ("busiest", 5, lambda p: busiest(p["bottleneck"], p["utilisation"])),
    ("verdict", 1, lambda p: p["verdict"]),
)


def _maybe(value: float | None, form: str, less: float = 0.0) -> str:
    """The value (less another), or a dash."""
    return "–" if value is None else f"{value - less:{form}}"


def joules(summary: Line) -> str:
    """Joules per request to three figures; a dash where nobody published them."""
    energy_mj = summary.get("device_energy_mj_mean")
    return "–" if energy_mj is None else f"{energy_mj / 1e3:.3g}"


def comparison_table(comparison: Comparison, width: int) -> Table:
    """One line per policy: accuracy, response times, what was sent, and the paired difference to the first."""
    judged = all("regret" in summary for summary in comparison.summaries.values())
    columns = [column for column in COMPARISON if judged or column[0] not in JUDGED]
    if len(comparison.policies) == 1:
        return fitting_table("policy", columns[:-1], comparison.summaries, width)
    baseline = comparison.policies[0]
    differences = comparison.differences(baseline)
    lines = {
        policy: {**summary, "change": signed(differences[policy]["response_ms"])}
        if policy in differences
        else {**summary, "change": "baseline"}
        for policy, summary in comparison.summaries.items()
    }
    return fitting_table("policy", columns, lines, width)


def bare_table(policy: str, summary: Line, width: int) -> Table:
    """One line for a run whose rows nobody kept."""
    return fitting_table("policy", BARE, {policy: summary}, width)


def groups_table(summary: Line, policy: str, width: int) -> Table | None:
    """One line per group of devices under a policy; None where there is one group."""
    lines = {label: line for label, line in summary.get("groups", {}).items() if line["requests"]}
    return fitting_table(f"{policy}: group", GROUPS, lines, width) if lines else None


INTERVALS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("accuracy", "accuracy", lambda v: f"{v:.2%}"),
    ("response_ms", "mean ms", lambda v: f"{v:.2f}"),
    ("p50_ms", "p50 ms", lambda v: f"{v:.2f}"),
    ("p95_ms", "p95 ms", lambda v: f"{v:.2f}"),
    ("p99_ms", "p99 ms", lambda v: f"{v:.2f}"),
    ("deadline_miss_rate", "missed", lambda v: f"{v:.2%}"),
    ("offload_rate", "sent", lambda v: f"{v:.2%}"),
    ("device_energy_mj_mean", "J/request", lambda v: f"{v / 1e3:.4g}"),
    ("throughput_per_s", "per s", lambda v: f"{v:.2f}"),
    ("regret", "regret", lambda v: f"{v:.4f}"),
    ("switch_rate", "switches", lambda v: f"{v:.2%}"),
)
"""Name in the summary, what to call it, how to write a value."""


def intervals_table(summary: Line, confidence: float) -> Table:
    """Every metric of one policy with its interval, and of batch means what they are made of."""
    table = plain_table("metric", "estimate", f"{100 * confidence:g} % interval", "batches")
    for name, title, show in INTERVALS:
        found = summary["intervals"].get(name)
        known = found is not None and math.isfinite(found["low"])
        if found is None or (name == "throughput_per_s" and not known):
            continue
        made = f"{found['batches']} x {found['batch_size']}" if "batches" in found else ""
        doubt = "" if found.get("independent", True) else ", dependent"
        table.add_row(title, show(found["mean"]), _span(found, show) if known else "run too short", made + doubt)
    return table


def _span(found: Mapping[str, float], show: Callable[[float], str]) -> str:
    return f"{show(found['low'])} to {show(found['high'])}"


def remarks(summaries: Mapping[str, Line]) -> Iterator[str]:
    """What must be said of figures before they are believed: queues that grow, and what binds."""
    for policy, summary in summaries.items():
        if summary["verdict"] != STABLE:
            where = busiest(summary["bottleneck"], summary["utilisation"][summary["bottleneck"]])
            yield f"{policy}: {summary['verdict']}; busiest is {where}. {WHY[summary['verdict']]}"


WHY = {
    UNSTABLE: "Its queue grows as long as the run lasts: averages say how long that was.",
    BACKLOGGED: "More comes than can be answered in time: the queue grew at first, or turned requests away.",
}


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


def signed(values: Mapping[str, Any]) -> str:
    """A difference with half of its interval, where that is known."""
    half = values["high"] - values["mean"]
    return f"{values['mean']:+.1f}" + ("" if math.isnan(half) else f" ±{half:.1f}")
