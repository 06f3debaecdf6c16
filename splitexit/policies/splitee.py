"""SplitEE: which exit to split at, learned without labels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt

from splitexit.codecs import canonical
from splitexit.decision import Observation, Outcome, Plan, Setting
from splitexit.policies import Policy
from splitexit.policies._bandit import Arm, Unit, chosen_exits, fitted_alpha, make_arms

if TYPE_CHECKING:
    from collections.abc import Mapping

Array = np.ndarray[Any, Any]


class SplitEE(Policy):
    """Learns the split with the upper confidence bound (Bajpai, Trivedi, Yadav & Hanawal, arXiv 2309.09195).

    An arm is an exit. The device runs up to it and reads its head alone: from a confidence C_i (max_prob) of α on it
    answers, otherwise the rest runs on the edge, which says C_L. The last arm runs everything on the device. Confidence
    stands in for accuracy, so no labels are needed:

        r(i) = C_i − μ·γ_i        if C_i ≥ α or i = L
               C_L − μ·(γ_i + o)  otherwise                with γ_i = λ1·i + λ2

    Every arm is played once, then argmax of Q_i/N_i + c·sqrt(ln t / N_i). The γ that is learned from is the γ that is
    paid (the authors' program has two). Where a reply is lost the device answers with C_i, and that is what the request
    earned, the offload paid. Replies that come late teach late: until an arm was heard of, it is played again.

    Args:
        alpha: confidence from which the device answers; 0.7 is the paper's for IMDb and Yelp. `fitted`: the best on the
            calibration split, with its labels.
        codec: how features are sent, at every split.
        arms: exits to choose among [default: all whose split has the codec on offer, and the final one].
        cost: how deep an arm is: `exits` passed, as the paper's layers, or the share of `macs` times their number
            [inferred].
        lambda1: cost of running up to an exit, per unit of depth; 0.08 is the paper's.
        lambda2: cost of reading one head; 0.02 is the paper's.
        offload: cost o of sending; the paper's regret is at 0.5, its sweep from 0.1 to 0.6.
        mu: weight of costs against confidence.
        c: how much arms are tried that are not known well; 1 is the paper's, much for rewards that span less than 1.
    """

    memory: ClassVar[tuple[str, ...]] = ("_counts", "_totals", "_rounds")
    side: ClassVar[bool] = False

    def __init__(
        self,
        *,
        alpha: Annotated[float, Ge(0)] | Literal["fitted"] = 0.7,
        codec: str = "uint8",
        arms: list[int] | None = None,
        cost: Unit = "exits",
        lambda1: Annotated[float, Ge(0)] = 0.08,
        lambda2: Annotated[float, Ge(0)] = 0.02,
        offload: Annotated[float, Ge(0)] = 0.5,
        mu: Annotated[float, Gt(0)] = 1.0,
        c: Annotated[float, Ge(0)] = 1.0,
    ) -> None:
        self.alpha, self.codec, self.arms, self.cost = alpha, codec, arms, cost
        self.lambda1, self.lambda2, self.offload, self.mu, self.c = lambda1, lambda2, offload, mu, c

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Lists the arms; raises InputError where exits, codec or pairs do not fit the model."""
        codec = canonical(self.codec)
        exits = chosen_exits(setting, codec, self.arms)
        self.threshold = self._threshold(setting, exits, codec)
        self.contexts = self._contexts(setting)
        rows = [self._arms(setting, exits, codec) for _ in self.contexts]
        self.known_arms = rows[0]
        # The arms of every context are plans of their own, so that an outcome tells by its plan which it belongs to.
        self._plans = [[arm.plan for arm in row] for row in rows]
        self._of = {id(plan): (r, k) for r, row in enumerate(self._plans) for k, plan in enumerate(row)}
        self._final = setting.spec.final_exit
        self._counts = np.zeros((len(rows), len(exits)))
        self._totals = np.zeros((len(rows), len(exits)))
        self._rounds = np.zeros(len(rows))

    def _threshold(self, setting: Setting, exits: list[int], codec: str) -> float:
        """Alpha as a number."""
        if self.alpha != "fitted":
            return self.alpha
        self.threshold = 1.0  # costs do not depend on it
        costs = [self.mu * arm.cost for arm in self._arms(setting, exits, codec)]
        return fitted_alpha(setting, exits, codec, costs, self.mu * self.offload)

    def _arms(self, setting: Setting, exits: list[int], codec: str) -> list[Arm]:
        return make_arms(
            setting.spec,
            exits,
            codec,
            self.threshold,
            side=self.side,
            unit=self.cost,
            lambda1=self.lambda1,
            lambda2=self.lambda2,
        )

    def _contexts(self, setting: Setting) -> Mapping[str, int]:
        """What is learned apart from one another: one bandit for everything."""
        return {"": 0}

    def _row(self, observation: Observation) -> int:
        """Which of them the present request belongs to."""
        return 0

    def decide(self, observation: Observation) -> Plan:
        """The arm with the highest index."""
        row = self._row(observation)
        return self._plans[row][self._best(row)]

    def _best(self, row: int) -> int:
        counts = self._counts[row]
        fewest = int(counts.argmin())
        if counts[fewest] == 0.0:
            return fewest
        wider = self.c * math.sqrt(math.log(self._rounds[row] + 1.0))
        return int((self._totals[row] / counts + wider / np.sqrt(counts)).argmax())

    def reward(self, arm: int, own: float, far: float) -> float:
        """r(i) of the arm with this number, where its exit says C_i = `own` and the final one C_L = `far`."""
        _, _, cost = self.known_arms[arm]
        if self.leaves(arm, own):
            return own - self.mu * cost
        return far - self.mu * (cost + self.offload)

    def leaves(self, arm: int, own: float) -> bool:
        """Whether the device answers."""
        return own >= self.threshold or self.known_arms[arm].exit == self._final

    def learn(self, outcome: Outcome) -> None:
        """The reward of the arm that was played."""
        played = self._of.get(id(outcome.plan))
        if played is None:
            return
        row, arm = played
        own = outcome.readings[-1].max_prob
        far = own if outcome.edge_reading is None else outcome.edge_reading.max_prob
        self._rounds[row] += 1.0
        self._credit(row, arm, self.reward(arm, own, far))

    def _credit(self, row: int, arm: int, reward: float) -> None:
        self._counts[row, arm] += 1.0
        self._totals[row, arm] += reward
