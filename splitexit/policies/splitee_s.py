"""SplitEE-S: what the exits before the split say teaches their arms too."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from splitexit.decision import Observation, Outcome, Plan, Setting, Truth
from splitexit.policies import OmniscientPolicy
from splitexit.policies.splitee import SplitEE

BINS = 20
"""Of confidence, equally wide over 0..1 [inferred]."""


class SplitEES(SplitEE):
    """SplitEE that reads every head up to the split, and learns of all those arms at once (arXiv 2309.09195).

    γ_i = (λ1 + λ2)·i, and with arm i every arm j < i is updated by what it would have earned. The paper takes C_L for
    that, even of samples that never reached the edge: an oracle, which is `splitee_s_oracle` here. This policy runs on
    a device [inferred]: r(j) is known where C_j ≥ α, or where C_L was heard: from the edge, or from the final exit on
    the device. Otherwise, where arm i answered and arm j would have sent, C_L is taken to be the running mean of all
    C_L that were heard with a confidence like C_i before them (bins of 0.05; C_i itself while there are none).
    `observed` counts side observations that were known, and those that were so guessed. Of a lost request, only arms
    that would have answered learn beside the one that was played.
    """

    memory: ClassVar[tuple[str, ...]] = (*SplitEE.memory, "_heard", "_heard_total", "observed")
    side: ClassVar[bool] = True

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Lists the arms; raises InputError where exits, codec or pairs do not fit the model."""
        super().prepare(setting, rng)
        self._heard = np.zeros((len(self.contexts), BINS))
        self._heard_total = np.zeros((len(self.contexts), BINS))
        self.observed = np.zeros(2)

    def learn(self, outcome: Outcome) -> None:
        """The reward of the arm that was played, and of those before it."""
        played = self._of.get(id(outcome.plan))
        if played is None:
            return
        row, arm = played
        said = {reading.exit: reading.max_prob for reading in outcome.readings}
        own = [said[before.exit] for before in self.known_arms[: arm + 1]]
        far = self._far(arm, own[-1], outcome)
        self._rounds[row] += 1.0
        self._credit(row, arm, self.reward(arm, own[-1], own[-1] if far is None else far))
        self._learn_beside(row, arm, own, far)
        if far is not None:
            for confidence in own if self.known_arms[arm].exit != self._final else own[:-1]:
                self._heard[row, _bin(confidence)] += 1.0
                self._heard_total[row, _bin(confidence)] += far

    def _far(self, arm: int, own: float, outcome: Outcome) -> float | None:
        """C_L, if it was heard."""
        if self.known_arms[arm].exit == self._final:
            return own
        return None if outcome.edge_reading is None else outcome.edge_reading.max_prob

    def _learn_beside(self, row: int, arm: int, own: list[float], far: float | None) -> None:
        lost = far is None and not self.leaves(arm, own[-1])
        guess = self._guess(row, own[-1]) if far is None else far
        for before in range(arm):
            known = far is not None or self.leaves(before, own[before])
            if known or not lost:
                self._credit(row, before, self.reward(before, own[before], guess))
                self.observed[0 if known else 1] += 1.0

    def _guess(self, row: int, own: float) -> float:
        """The mean C_L of samples as sure as this one."""
        number = _bin(own)
        heard = self._heard[row, number]
        return float(self._heard_total[row, number] / heard) if heard else own


class SplitEESOracle(OmniscientPolicy, SplitEES):
    """SplitEE-S as the paper evaluates it (arXiv 2309.09195): C_L is known of every sample, whether it was sent or not.

    No device can do that; it is a yardstick for `splitee_s`. C_L is what the final exit says on the device, of features
    as they are, and no reply is ever late or lost to it.
    """

    def decide_knowing(self, observation: Observation, truth: Truth) -> Plan:
        """The arm with the highest index; it and those before it learn at once."""
        row = self._row(observation)
        best = self._best(row)
        far = truth.says(self._final).max_prob
        self._rounds[row] += 1.0
        for number, arm in enumerate(self.known_arms[: best + 1]):
            self._credit(row, number, self.reward(number, truth.says(arm.exit).max_prob, far))
        return self._plans[row][best]

    def learn(self, outcome: Outcome) -> None:
        """Nothing: it has learned when it decided."""


def _bin(confidence: float) -> int:
    return min(int(confidence * BINS), BINS - 1)
