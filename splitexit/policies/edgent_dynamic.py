"""A map from the state of the link to exit and split, looked up anew when the link has changed."""

from __future__ import annotations

from collections.abc import Iterator
from math import exp, log
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_types import Ge, Le

from splitexit.decision import LinkEstimate, Outcome, Plan, Setting
from splitexit.policies._adaptive import Adaptive, uplink_bps
from splitexit.policies.edgent import Edgent

if TYPE_CHECKING:
    from splitexit.changes import Array

PER_DECADE = 10


class EdgentDynamic(Adaptive):
    """Edgent's dynamic configuration (Li, Zeng, Zhou and Chen, IEEE TWC 19(1), 2020).

    Beforehand, for every state of the uplink's bandwidth, the exit and split with the largest reward

        R = exp(accuracy) + 1 / T  where T meets the deadline, else 0        (T in seconds)

    and where none meets it the least T [inferred]. While it runs, Bayesian change-point detection on the rates at which
    payloads went up; after a change, the state nearest to the new rate. Of the requests that stay on the device by plan
    every 50th is sent, to see what the link is like. Accuracy is that on the calibration split, so a lossy codec counts
    with its own. Deadline and offloads as for `edgent`, but here the deadline is the scenario's: the map is made
    beforehand.

    Args:
        objective: `reward` as above. It was made for answers that take about a second: at tens of milliseconds 1 / T
            outweighs any accuracy. `deepest` fills the map by the rule of `edgent` instead [inferred].
        codecs: only these are considered; by default all that were recorded.
        decades: how many powers of ten the states reach below and above the scenario's rate, ten states in each
            [inferred].
    """

    def __init__(
        self,
        *,
        objective: Literal["reward", "deepest"] = "reward",
        codecs: list[str] | None = None,
        decades: Annotated[int, Ge(1), Le(6)] = 2,
    ) -> None:
        super().__init__()
        self.objective, self.codecs, self.decades = objective, codecs, decades

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Makes the map."""
        self._setting = setting
        static = Edgent(codecs=self.codecs)
        static.prepare(setting, rng)
        states = PER_DECADE * self.decades
        rates_bps = setting.link.rate_bps * 10.0 ** (np.arange(-states, states + 1) / PER_DECADE)
        links = [LinkEstimate(rate_bps, setting.link.rtt_s) for rate_bps in rates_bps.tolist()]
        self._map = [self._of_state(static, link, setting.deadline_s) for link in links]
        self._first = log(setting.link.rate_bps) - self.decades * log(10.0)
        self._begin(np.array([log(setting.link.rate_bps)]))

    def _of_state(self, static: Edgent, link: LinkEstimate, deadline_s: float) -> tuple[Plan, Plan]:
        """The plan for this link, and the fastest of those that send something, if any does."""
        outlook, expected_s = static.outlook, static.outlook.latency_s(link)
        probe = outlook.plans[int(np.where(outlook.sent > 0.0, expected_s, np.inf).argmin())]
        if self.objective == "deepest":
            return static.plan(link, 0.0, deadline_s), probe
        in_time = expected_s + outlook.spare_s <= deadline_s
        reward = np.where(in_time, np.exp(outlook.accuracy) + 1.0 / expected_s, -expected_s)
        return outlook.plans[int(reward.argmax())], probe

    def state(self, levels: Array) -> int:
        """The state nearest to these levels, that is to the logarithm of this rate in bits per second."""
        nearest = round((float(levels[0]) - self._first) * PER_DECADE / log(10.0))
        return min(max(nearest, 0), len(self._map) - 1)

    def _measured(self, outcome: Outcome) -> Iterator[tuple[int, float]]:
        yield from ((0, rate_bps) for rate_bps in uplink_bps(outcome, self._setting, exp(self._levels[0])))

    def _choose(self, levels: Array) -> tuple[Plan, Plan]:
        return self._map[self.state(levels)]

    def _differ(self, levels: Array, others: Array) -> bool:
        return self.state(levels) != self.state(others)
