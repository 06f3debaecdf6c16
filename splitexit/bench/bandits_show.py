"""The table of `splitexit bench bandits`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Document = Mapping[str, Any]

HEADS = ("policy", "regret", "grows", "cost", "saved", "accuracy", "points lost", "to the oracle")
"""`regret`: to the best fixed arm over the horizon; `grows`: that over the regret after a tenth of it; `saved`, `points
lost`: beside always-final, over one pass; `to the oracle`: regret to the most of every request."""

WIDE, NARROW, ENOUGH = len(HEADS), 7, 100
"""Columns of the table, and of a terminal in which all fit."""


def heads(width: int) -> tuple[str, ...]:
    """Those that fit into a terminal of this width."""
    return HEADS[: WIDE if width >= ENOUGH else NARROW]


def rows(document: Document) -> list[list[str]]:
    """Lines under HEADS at the document's cost of sending: first what does not learn, then the policies."""
    point = at(document)
    baselines, final = document["regret"]["baselines"], point["always_final"]
    best = next(arm for arm in point["arms"] if arm["exit"] == point["best"])
    found = [
        ["always final", f"{baselines['always_final']:.0f}", "10", *_fixed(final, final), ""],
        [f"always exit {point['best']}", "0", "", *_fixed(best, final), ""],
    ]
    for name, regret in document["regret"]["policies"].items():
        if name in point["policies"]:
            found.append([name, *_line(regret, point["policies"][name])])
    return found


def at(document: Document) -> Document:
    """The point of the sweep that regret was measured at, or the one nearest to it."""
    offload = document["terms"]["offload"]
    found: Document = min(document["sweep"], key=lambda point: abs(point["offload"] - offload))
    return found


def _fixed(arm: Document, final: Document) -> list[str]:
    lost = 100 * (final["accuracy"] - arm["accuracy"])
    return [f"{arm['cost']:.3f}", f"{1 - arm['cost'] / final['cost']:.1%}", f"{arm['accuracy']:.2%}", f"{lost:.2f}"]


def _line(regret: Document, found: Document) -> list[str]:
    fixed, oracle = ({key: regret[of][key][-1] for key in ("mean", "low", "high")} for of in ("fixed", "oracle"))
    return [
        f"{fixed['mean']:.0f} ±{_half(fixed):.0f}",
        f"{regret['growth']:.1f}",
        f"{found['cost']['mean']:.3f}",
        f"{found['saved']['mean']:.1%} ±{100 * _half(found['saved']):.1f}",
        f"{found['accuracy']['mean']:.2%}",
        f"{found['lost_points']['mean']:.2f} ±{_half(found['lost_points']):.2f}",
        f"{oracle['mean']:.0f} ±{_half(oracle):.0f}",
    ]


def _half(interval: Document) -> float:
    """Half the width."""
    return float(interval["high"] - interval["low"]) / 2


def sentences(document: Document) -> list[str]:
    """How it was measured."""
    terms, unit = document["terms"], document["terms"]["cost"]
    return [
        f"{document['shuffles']} shuffles of {document['samples']} test samples: {document['horizon']} requests each "
        "for regret, one pass for cost and accuracy; ± is half of the 95 % interval.",
        f"alpha {terms['alpha']:g}, lambda {terms['lambda1']:g} per depth (by {unit}) + {terms['lambda2']:g} per head, "
        f"offload {terms['offload']:g}, mu {terms['mu']:g}, c {terms['c']:g}; codec {terms['codec']}.",
    ]


def markdown(document: Document) -> str:
    """The table as a document."""
    lines = [f"| {' | '.join(HEADS)} |", f"|{'---|' * len(HEADS)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows(document)]
    return "\n".join([*lines, "", *sentences(document), f"`{document['command']}`", ""])
