"""HI-LCB: from which confidence on the device answers, learned from when the edge agrees."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le

from splitexit.codecs import canonical
from splitexit.decision import LinkEstimate, Observation, Outcome, Plan, Setting
from splitexit.errors import InputError
from splitexit.policies import Policy
from splitexit.policies._bandit import NEVER, reading_at
from splitexit.policies.offload import require_pair

if TYPE_CHECKING:
    from splitexit.calibration import Pair


class HiLcb(Policy):
    """Learns the threshold of one exit by lower confidence bounds (HI-LCB: Chattopadhyay, Sutar, Champati & Moharir,
    "Low-regret and low-complexity learning for hierarchical inference", 2025; the index is recalled, not re-read).

    The exit's confidence falls into a bin φ. Of the O(φ) samples sent from there, the edge agreed with a share f(φ):

        LCB(φ) = max over φ' ≤ φ of f(φ') − sqrt(α·ln t / O(φ'))

    A sample is sent if the answer here is more likely wrong than sending costs: 1 − LCB(φ) > γ. That more confidence
    means more accuracy is the assumption behind the maximum, and makes the rule one threshold. There are no labels: the
    edge's answer is taken for the truth, as the paper takes its remote model's, so what is learned is agreement, not
    accuracy, and only of samples that were sent. A lost reply teaches nothing.

    γ is the worth of the time that sending takes, in units of a right answer, by the scenario's utility: expected
    seconds behind the exit under the present link estimate and reported wait, and a miss where they pass the deadline.

    Args:
        exit: the exit that plays the small model.
        codec: how features are sent.
        bins: of confidence, equally full on the calibration split [inferred].
        alpha: width of the bounds; the regret is logarithmic from above 0.5 on.
        cost: γ in units of a right answer [default: from the utility].
    """

    reads: ClassVar[frozenset[str]] = frozenset({"link", "edge_load"})
    memory: ClassVar[tuple[str, ...]] = ("_agreed", "_sent", "_rounds")

    def __init__(
        self,
        *,
        exit: Annotated[int, Ge(0)] = 0,
        codec: str = "uint8",
        bins: Annotated[int, Ge(1), Le(256)] = 16,
        alpha: Annotated[float, Gt(0)] = 0.52,
        cost: Annotated[float, Ge(0)] | None = None,
    ) -> None:
        self.exit, self.codec, self.bins, self.alpha, self.cost = exit, codec, bins, alpha, cost

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Lays out the bins; raises InputError where exit or pair do not fit the model."""
        spec = setting.spec
        if self.exit >= spec.final_exit:
            raise InputError(f"exit {self.exit}: expected one before the final exit, 0..{spec.final_exit - 1}")
        split = spec.exit_stages[self.exit]
        codec = require_pair(setting, split, canonical(self.codec))
        between = np.linspace(0.0, 1.0, self.bins + 1)[1:-1]
        self._edges = np.unique(np.quantile(setting.calibration.exits[self.exit].max_prob, between))
        levels = [0.0, *self._edges.tolist(), NEVER]
        self._plans = [Plan(reading_at(spec, self.exit, level), split, codec) for level in levels]
        self._agreed, self._sent = np.zeros(len(levels) - 1), np.zeros(len(levels) - 1)
        self._rounds = 0
        self._price(setting, (split, codec))

    def _price(self, setting: Setting, pair: Pair) -> None:
        """What does not change of the cost of sending."""
        before_s = setting.device_s(pair[0])
        self._setting, self._size_bytes = setting, setting.payload_bytes(*pair)
        self._fixed_s = setting.offload_s(*pair, LinkEstimate(rate_bps=math.inf, rtt_s=0.0)) - before_s
        self._left_s = setting.deadline_s - before_s - setting.device.exits[self.exit].mean

    def decide(self, observation: Observation) -> Plan:
        """Leaves from the first bin on whose bound is worth as much as sending."""
        enough = 1.0 - (self._cost(observation) if self.cost is None else self.cost)
        found = np.flatnonzero(self._bounds() >= enough)
        return self._plans[int(found[0]) if len(found) else -1]

    def _cost(self, observation: Observation) -> float:
        utility, load = self._setting.utility, observation.edge_load
        expected_s = self._fixed_s + observation.link.round_trip_s(self._size_bytes)
        expected_s += 0.0 if load is None else load.wait_s
        worth = utility.latency_per_s * expected_s + utility.miss * (expected_s > self._left_s)
        return worth / utility.accuracy if utility.accuracy > 0.0 else math.inf

    def _bounds(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """LCB of every bin, at least 0, which is all that is known before anything was sent from it."""
        sent = np.maximum(self._sent, 1.0)
        bounds = self._agreed / sent - np.sqrt(self.alpha * math.log(self._rounds + 1.0) / sent)
        return np.maximum.accumulate(np.maximum(bounds, 0.0))

    def learn(self, outcome: Outcome) -> None:
        """Whether the edge agreed, if it was asked."""
        self._rounds += 1
        if outcome.edge_reading is None:
            return
        own = outcome.readings[-1]
        number = int(np.searchsorted(self._edges, own.max_prob, side="right"))
        self._sent[number] += 1.0
        self._agreed[number] += own.prediction == outcome.edge_reading.prediction
