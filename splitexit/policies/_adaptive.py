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


class Adaptive(Policy):
    """Keeps to a plan that suits the levels of some measurements until one has changed (see splitexit.changes).

    A level is the logarithm of a rate or of a factor. What is looked at are the single transfers and computations that
    an Outcome reports rather than Observation.link: an estimate that follows its measurements gradually is neither
    independent from one request to the next nor, when a change is noticed, there yet.

    replans  how often it has planned anew
    """

    memory: ClassVar[tuple[str, ...]] = ("_states", "_levels", "_alone", "replans")

    def __init__(self) -> None:
        self._states, self._levels = np.zeros((0, 4, 0)), np.zeros(0)
        self._planned: Array | None = None
        self._plan, self._probe = Plan(), Plan()
        self._alone = self.replans = 0

    def _begin(self, levels: Array) -> None:
        """Before the first request, where these levels are expected."""
        self._states = np.stack([DETECTOR.begin(level) for level in levels])
        self._levels = levels

    @abstractmethod
    def _measured(self, outcome: Outcome) -> Iterator[tuple[int, float]]:
        """What a request has shown: numbers of levels, and a measurement of each."""

    @abstractmethod
    def _choose(self, levels: Array) -> tuple[Plan, Plan]:
        """The plan for these levels, and one that sends something."""

    @abstractmethod
    def _differ(self, levels: Array, others: Array) -> bool:
        """Whether these levels may need another plan than those."""

    def decide(self, observation: Observation) -> Plan:
        """The present plan; now and then one that sends something, if that sends nothing."""
        if self._levels is not self._planned:
            self._plan, self._probe = self._choose(self._levels)
            self._planned = self._levels
        if self._plan.split is not None:
            return self._plan
        self._alone = (self._alone + 1) % PROBE_EVERY
        return self._plan if self._alone else self._probe

    def learn(self, outcome: Outcome) -> None:
        """Looks at every measurement; a change of one brings all levels up to date."""
        changed = [DETECTOR.observe(self._states[number], value) for number, value in self._measured(outcome)]
        if any(changed):
            levels = np.array([DETECTOR.level(state) for state in self._states])
            if self._differ(levels, self._levels):
                self._levels = levels
                self.replans += 1


def log_rate(outcome: Outcome, setting: Setting, believed: float) -> Iterator[float]:
    """Logarithm of the bits per second at which a payload went up, if one did.

    The empty round trip is taken to be what it was expected to be, so a longer one counts as a slower link. A payload
    that was given up took at least as long as it was waited for, which says something where `believed` is faster.
    """
    if not outcome.payload_bytes or outcome.transfer_s <= 0.0:
        return
    bits = 8.0 * (outcome.payload_bytes + setting.edge.rpc.uplink_overhead_bytes)
    transit_s = max(outcome.transfer_s - setting.link.rtt_s, 0.1 * outcome.transfer_s)
    found = log(bits / transit_s)
    if outcome.answered_by != FALLBACK or found < believed:
        yield found
