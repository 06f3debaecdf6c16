"""The deepest exit that the deadline allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import inf
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from splitexit.decision import LinkEstimate, Observation, Plan, Setting
from splitexit.outlook import Outlook, undominated
from splitexit.policies import Policy
from splitexit.policies._options import pairs
from splitexit.policies.oracle import candidates

if TYPE_CHECKING:
    from splitexit.bundle import ModelSpec


class Edgent(Policy):
    """Right-sizing and partitioning together (Li, Zeng, Zhou and Chen, IEEE TWC 19(1), 2020; static configuration).

    For e from the deepest exit on: the split with the least expected response time T_e(p) for a network that ends at
    exit e; the first e for which that meets the deadline. If none does, the pair with the least time [inferred].
    Nothing leaves early: every request runs up to exit e, on the device or the edge. Behind lossy codecs only exits
    that were recorded there can answer.

    The deadline is what the request has left of it when the device takes it up (deadline_left_s), so one that has
    waited gets a smaller network. An offload meets it if the reply is there while the device still waits for it: it
    stops so long before the deadline as its own answer would take. The paper sends features as they are; of several
    codecs the fastest is taken, whatever it costs in accuracy, unless `codecs` leaves it out.

    Args:
        codecs: only these are considered; by default all that were recorded.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"link", "edge_load", "deadline_left_s"})

    def __init__(self, *, codecs: list[str] | None = None) -> None:
        self.codecs = codecs

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Tabulates every exit and partition, the deepest exit first."""
        self.outlook = Outlook.of(sized(setting, self.codecs), setting)
        by_exit = groupby(_rows(self.outlook), key=lambda row: end(row.plan, setting.spec))
        self._exits = [_worth_a_look([*rows]) for _, rows in by_exit]

    def decide(self, observation: Observation) -> Plan:
        """Under the present link estimate and edge load."""
        load = observation.edge_load
        return self.plan(observation.link, 0.0 if load is None else load.wait_s, observation.deadline_left_s)

    def plan(self, link: LinkEstimate, wait_s: float, left_s: float) -> Plan:
        """For such a link, such a wait at the edge, and so much time until the deadline."""
        away_s, per_bit_s = link.rtt_s + wait_s, 1.0 / link.rate_bps
        fastest_s, fastest = inf, _LOCAL
        for rows in self._exits:
            best_s, best = inf, None
            for fixed_s, sent, bits, spare_s, plan in rows:
                expected_s = fixed_s + sent * away_s + bits * per_bit_s
                if expected_s < fastest_s:
                    fastest_s, fastest = expected_s, plan
                if expected_s < best_s and expected_s + spare_s <= left_s:
                    best_s, best = expected_s, plan
            if best is not None:
                return best
        return fastest


_LOCAL = Plan()


class _Row(NamedTuple):
    """One plan's part of T: seconds on both sides, whether it is sent, its bits, and what it must spare."""

    fixed_s: float
    sent: float
    bits: float
    spare_s: float
    plan: Plan


def _rows(outlook: Outlook) -> Iterator[_Row]:
    fixed_s = outlook.device_s + outlook.edge_s
    columns = (fixed_s, outlook.sent, 8.0 * outlook.size_bytes, outlook.spare_s)
    return map(_Row._make, zip(*(column.tolist() for column in columns), outlook.plans, strict=True))


def _worth_a_look(rows: list[_Row]) -> list[_Row]:
    """Those that no other one equals or betters whatever the link is like; of equal ones the first."""
    return [rows[n] for n in np.sort(undominated(np.array([row[:4] for row in rows])))]


def sized(setting: Setting, codecs: Sequence[str] | None) -> list[Plan]:
    """The network cut short at every exit, in every partition, the deepest exit first; only with these codecs."""
    chosen = {None, *(codec for _, codec in pairs(setting, codecs))}
    plans = [plan for plan in candidates(setting) if plan.codec in chosen]
    return sorted(plans, key=lambda plan: -end(plan, setting.spec))


def end(plan: Plan, spec: ModelSpec) -> int:
    """The exit at which a plan of `sized` ends."""
    checks = plan.exits if plan.split is None else plan.edge_exits
    return checks[-1].exit if checks else spec.final_exit
