"""The tables and the sentences of `splitexit bench policies`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Document = Mapping[str, Any]
Line = Mapping[str, Any]

EXPLAINED = (
    "*: best of those that a device could follow, and the paired 95 % interval of its difference to the second "
    "excludes 0; of the two alone, as if nobody had chosen them among many",
    "J: energy of the device for each request; –: nobody published it",
    "bytes: sent for each request, without framing",
    "regret: utility lost to the best that the oracle could have done in the same state, ± half its interval over "
    "seeds; below 0 where a policy does what the oracle does not consider",
    "above: regret beyond the least that a device reached, ± half of the paired interval of this difference, in which "
    "samples that are hard for everybody cancel",
    "changed: requests whose plan differs from that of the device's request before",
    "decide: microseconds of a decision on this machine, median and 99th percentile; –: it needs the truth",
)


def _starred(name: str, show: Callable[[Line], str]) -> Callable[[Line], str]:
    return lambda line: f"{show(line)}{'*' if name in line['won'] else ''}"


def _joules(line: Line) -> str:
    energy_mj = line.get("device_energy_mj_mean")
    return "–" if energy_mj is None else f"{energy_mj / 1e3:.3g}"


def _regret(line: Line) -> str:
    return f"{line['regret']:.4f}{_half(line['intervals']['regret'])}"


def _above(line: Line) -> str:
    found = line.get("above_least")
    return "–" if found is None else f"{found['mean']:.4f}{_half(found)}"


def _half(found: Mapping[str, Any]) -> str:
    known = found["low"] is not None and math.isfinite(found["low"])
    return f" ±{(found['high'] - found['low']) / 2:.4f}" if known else ""


def _decide(line: Line) -> str:
    took = line["decision_us"]
    return "–" if line["knowing"] or not took else f"{_short(took['p50'])}/{_short(took['p99'])}"


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


COLUMNS: tuple[tuple[str, int, Callable[[Line], str]], ...] = (
    ("accuracy", 0, _starred("accuracy", lambda line: f"{line['accuracy']:.2%}")),
    ("mean ms", 0, _starred("response_ms", lambda line: f"{line['response_ms']['mean']:.1f}")),
    ("p50", 4, _starred("p50_ms", lambda line: f"{line['response_ms']['p50']:.1f}")),
    ("p95", 2, _starred("p95_ms", lambda line: f"{line['response_ms']['p95']:.1f}")),
    ("p99", 3, _starred("p99_ms", lambda line: f"{line['response_ms']['p99']:.1f}")),
    ("missed", 1, _starred("deadline_miss_rate", lambda line: f"{line['deadline_miss_rate']:.1%}")),
    ("J", 3, _starred("device_energy_mj_mean", _joules)),
    ("bytes", 5, lambda line: f"{line['uplink_bytes_mean']:.0f}"),
    ("utility", 0, _starred("utility", lambda line: f"{line['utility']:.4f}")),
    ("regret", 0, _starred("regret", _regret)),
    ("above", 1, _above),
    ("changed", 4, lambda line: f"{line['switch_rate']:.0%}"),
    ("decide µs", 2, _decide),
)
"""Heading, rank as in `report.tables.fitting_table`, and what to show of a policy."""


def ordered(scenario: Document) -> dict[str, Line]:
    """The policies of a scenario, the highest utility first, each with the metrics that it `won`."""
    won = {
        label: [m for m, of in scenario["winners"].items() if of["sure"] and of["first"] == label]
        for label in scenario["policies"]
    }
    rows = sorted(scenario["policies"].items(), key=lambda item: -item[1]["utility"])
    return {label: {**row, "won": won[label]} for label, row in rows}


def headline(scenario: Document, seeds: Sequence[int]) -> str:
    """What ran, in a line."""
    devices = f"{scenario['devices']} x " if scenario["devices"] > 1 else ""
    return (
        f"{scenario['scenario']}: {devices}{', '.join(scenario['hardware'])}, {scenario['requests']} requests over "
        f"{len(seeds)} seeds, deadline {scenario['deadline_ms']:g} ms"
    )


def left_out(scenario: Document) -> Iterator[str]:
    """Which policies did not run, and why; those with the same reason in one line."""
    reasons: dict[str, list[str]] = {}
    for label, why in scenario.get("left_out", {}).items():
        reasons.setdefault(why, []).append(label)
    for why, labels in reasons.items():
        yield f"left out: {', '.join(labels)}: {why}"


def markdown(document: Document) -> str:
    """All tables with what belongs to them, for a document."""
    machine, versions, seeds = document["machine"], document["versions"], document["seeds"]
    used = ", ".join(f"{package} {versions.get(package, '')}" for package in ("splitexit", "numpy", "simpy"))
    where = f"{machine['cpu']} with {machine['cores']} cores"
    made = f"`{document['command']}`, seeds {', '.join(map(str, seeds))}, on {where}, {used}"
    parts = [f"# Policies on {document['bundle']}\n\n{made}.\n", *map(_section(seeds), document["scenarios"])]
    return "\n".join([*parts, *(f"- {line}" for line in EXPLAINED)]) + "\n"


def _section(seeds: Sequence[int]) -> Callable[[Document], str]:
    def section(scenario: Document) -> str:
        head = f"## {scenario['scenario']}\n\n{scenario['about']}\n"
        if "why_not" in scenario:
            return f"{head}\nleft out: {scenario['why_not']}\n"
        lines = [["policy", *(name for name, _, _ in COLUMNS)], ["---", *["---:"] * len(COLUMNS)]]
        lines += [[label, *(show(row) for _, _, show in COLUMNS)] for label, row in ordered(scenario).items()]
        table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        said = "".join(f"\n{line}\n" for line in left_out(scenario))
        return f"{head}\n{headline(scenario, seeds)}.\n\n{table}{said}"

    return section
