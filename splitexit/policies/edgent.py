"""The deepest exit that the deadline allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from splitexit.codecs import canonical
from splitexit.decision import LinkEstimate, Observation, Plan, Setting
from splitexit.outlook import Outlook
from splitexit.policies import Policy
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
        ends = [end(plan, setting.spec) for plan in self.outlook.plans]
        # For every row, the rows of its exit.
        self._same = [slice(ends.index(e), len(ends) - ends[::-1].index(e)) for e in ends]

    def decide(self, observation: Observation) -> Plan:
        """Under the present link estimate and edge load."""
        load = observation.edge_load
        return self.plan(observation.link, 0.0 if load is None else load.wait_s, observation.deadline_left_s)

    def plan(self, link: LinkEstimate, wait_s: float, left_s: float) -> Plan:
        """For such a link, such a wait at the edge, and so much time until the deadline."""
        outlook = self.outlook
        expected_s = outlook.latency_s(link, wait_s)
        late = expected_s + outlook.spare_s > left_s
        first = int(late.argmin())
        if late[first]:
            return outlook.plans[int(expected_s.argmin())]
        rows = self._same[first]
        expected_s[late] = np.inf
        return outlook.plans[rows.start + int(expected_s[rows].argmin())]


def sized(setting: Setting, codecs: Sequence[str] | None) -> list[Plan]:
    """The network cut short at every exit, in every partition, the deepest exit first; only with these codecs."""
    chosen = None if codecs is None else {canonical(codec) for codec in codecs}
    plans = [plan for plan in candidates(setting) if plan.codec is None or chosen is None or plan.codec in chosen]
    return sorted(plans, key=lambda plan: -end(plan, setting.spec))


def end(plan: Plan, spec: ModelSpec) -> int:
    """The exit at which a plan of `sized` ends."""
    checks = plan.exits if plan.split is None else plan.edge_exits
    return checks[-1].exit if checks else spec.final_exit
