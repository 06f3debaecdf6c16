"""What policies share that plan for a while, and anew when what they measure has changed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from math import log
from typing import ClassVar

import numpy as np

from splitexit.changes import Array, ChangeDetector
from splitexit.decision import Observation, Outcome, Plan, Setting
from splitexit.policies import Policy
from splitexit.results import FALLBACK

PROBE_EVERY = 50
"""After so many requests in a row that sent nothing, one is sent to see whether the link has become better: forced
sampling, without which a device that stays local learns nothing any more (ANS, WWW 2021). 2 % [inferred]."""

DETECTOR = ChangeDetector()

LEAST = 0.1
"""A transfer of which less than this share was transit says no more than that the link is at least so fast: the
rest varies by as much (splitexit.estimate)."""


class Adaptive(Policy):
    """Keeps to a plan that suits the levels of some measurements until one has changed (see splitexit.changes).

    What is measured are positive numbers, rates and factors; a level is the logarithm of one. They come from the single
    transfers and computations that an Outcome reports rather than from Observation.link: an estimate that follows its
    measurements gradually is neither independent from one request to the next nor, when a change is noticed, there yet.
    `benchmarks/changes.py` compares.

    several  how many measurements of each kind are averaged before a change is looked for: times of computing and
             waiting have outliers, and one is often followed by another
    replans  how often it has planned anew
    """

    several: ClassVar[tuple[int, ...]] = (1,)

    memory: ClassVar[tuple[str, ...]] = ("_states", "_pending", "_levels", "_alone", "replans")

    def __init__(self) -> None:
        self._states, self._pending, self._levels = np.zeros((0, 4, 0)), np.zeros((0, 2)), np.zeros(0)
        self._planned: Array | None = None
        self._plan, self._probe = Plan(), Plan()
        self._alone = self.replans = 0

    def _begin(self, levels: Array) -> None:
        """Before the first request, where these levels are expected."""
        self._states = np.stack([DETECTOR.begin(level) for level in levels])
        self._pending = np.zeros((len(levels), 2))
        self._plan_for(levels)

    def _plan_for(self, levels: Array) -> None:
        self._levels = self._planned = levels
        self._plan, self._probe = self._choose(levels)

    @abstractmethod
    def _measured(self, outcome: Outcome) -> Iterator[tuple[int, float]]:
        """What a request has shown: the kinds of what was measured, by their numbers, and the values."""

    @abstractmethod
    def _choose(self, levels: Array) -> tuple[Plan, Plan]:
        """The plan for these levels, and one that sends something."""

    @abstractmethod
    def _differ(self, levels: Array, others: Array) -> bool:
        """Whether these levels may need another plan than those."""

    def decide(self, observation: Observation) -> Plan:
        """The present plan; now and then one that sends something, if that sends nothing."""
        if self._levels is not self._planned:  # they come from elsewhere: splitexit.memory
            self._plan_for(self._levels)
        if self._plan.split is not None:
            return self._plan
        self._alone = (self._alone + 1) % PROBE_EVERY
        return self._plan if self._alone else self._probe

    def learn(self, outcome: Outcome) -> None:
        """Looks at every measurement; a change of one brings all levels up to date."""
        changes = [self._changes(kind, value) for kind, value in self._measured(outcome)]
        if any(changes):
            levels = np.array([DETECTOR.level(state) for state in self._states])
            if self._differ(levels, self._levels):
                self._plan_for(levels)
                self.replans += 1

    def _changes(self, kind: int, value: float) -> bool:
        self._pending[kind] += value, 1.0
        total, count = self._pending[kind].tolist()
        if count < self.several[kind]:
            return False
        self._pending[kind] = 0.0
        return DETECTOR.observe(self._states[kind], log(total / count))


def uplink_bps(outcome: Outcome, setting: Setting, believed_bps: float) -> Iterator[float]:
    """The rate at which a payload went up, if one did and that says anything new.

    The empty round trip is taken to be what it was expected to be, so a longer one counts as a slower link. A payload
    that was given up took at least as long as it was waited for, which says something where `believed_bps` is faster;
    one that took hardly longer than the empty round trip, where that is slower.
    """
    if not outcome.payload_bytes or outcome.transfer_s <= 0.0:
        return
    bits = 8.0 * (outcome.payload_bytes + setting.edge.rpc.uplink_overhead_bytes)
    transit_s, least_s = outcome.transfer_s - setting.link.rtt_s, LEAST * outcome.transfer_s
    found_bps = bits / max(transit_s, least_s)
    if outcome.answered_by == FALLBACK:
        says_something = found_bps < believed_bps
    else:
        says_something = transit_s >= least_s or found_bps > believed_bps
    if says_something:
        yield found_bps
