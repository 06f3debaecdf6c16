"""ANS: an online Neurosurgeon that learns the delay behind the split."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le

from splitexit.decision import Observation, Outcome, Plan, Setting
from splitexit.errors import InputError
from splitexit.policies import Policy, _options
from splitexit.results import FALLBACK


class Ans(Policy):
    """Picks the split by LinUCB on what lies behind it (Autodidactic Neurosurgeon, Zhang et al., WWW 2021).

    The device knows what its own part takes: that was measured. What link and edge take is linear in the features x of
    the rest of the network, with unknown weights θ that hold the edge's speed, the link's rate and the round trip. With
    A = ridge·I + Σ x·xᵀ and b = Σ x·delay:

        argmin over splits of device_s + θ·x − α·sqrt(xᵀ A⁻¹ x),  θ = A⁻¹ b

    Staying local has x = 0 and teaches nothing, so on the requests number 1, 4, 9, 16, … the best split other than
    local is taken: about √T of T requests, the paper's schedule of forced samples without a known T [inferred]. It
    looks at no link estimate and no reported load. A request without a reply counts as the deadline [inferred].

    x = (multiply-accumulates, layers, payload bytes, 1), each over its largest value, delays over what the whole
    network takes on the device. The paper counts layers and MACs by type; a bundle does not say them by type, and of
    the networks here only the last layer is no convolution: it is behind every split, in the 1, as is the round trip
    [inferred]. The paper's weights for key frames of a video are left out.

    Args:
        codecs: only these are considered; by default all that were recorded.
        alpha: weight of the confidence, in units of the time that the whole network takes on the device [inferred].
        ridge: prior precision of θ [inferred].
        discount: weight that is left of a sample after every request, after D-LinUCB (Russac, Vernade & Cappé, NeurIPS
            2019) [inferred]; with 1 nothing is forgotten, as in the paper, and a change is found out late.
    """

    memory: ClassVar[tuple[str, ...]] = ("_gram", "_moment", "_rounds")

    def __init__(
        self,
        *,
        codecs: list[str] | None = None,
        alpha: Annotated[float, Ge(0)] = 0.1,
        ridge: Annotated[float, Gt(0)] = 0.1,
        discount: Annotated[float, Gt(0), Le(1)] = 0.99,
    ) -> None:
        self.codecs, self.alpha, self.ridge, self.discount = codecs, alpha, ridge, discount

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Tabulates features and the device's part; raises InputError where no codec is on offer."""
        pairs = _options.pairs(setting, self.codecs)
        if not pairs:
            raise InputError(f"none of the codecs {self.codecs} is on offer; there are {_options.pairs(setting, None)}")
        self._unit_s, self._lost_s = setting.local_s(), setting.deadline_s
        raw = np.array([_features(setting, split, codec) for split, codec in pairs])
        self._features = raw / raw.max(axis=0)
        device_s = [setting.device_s(split) + setting.device.encode[split, codec].mean for split, codec in pairs]
        self._device = np.array(device_s) / self._unit_s
        self._plans = [Plan(split=split, codec=codec) for split, codec in pairs]
        self._number = {pair: number for number, pair in enumerate(pairs)}
        size = self._features.shape[1]
        self._gram, self._moment = self.ridge * np.eye(size), np.zeros(size)
        self._rounds = 0

    def decide(self, observation: Observation) -> Plan:
        """The plan with the least optimistic delay; at times the least of those that send."""
        self._rounds += 1
        self._forget()
        inverse = np.linalg.inv(self._gram)
        spread = np.einsum("ij,jk,ik->i", self._features, inverse, self._features)
        expected = self._device + self._features @ (inverse @ self._moment) - self.alpha * np.sqrt(spread)
        best = int(expected.argmin())
        forced = math.isqrt(self._rounds) ** 2 == self._rounds
        return self._plans[best] if forced or expected[best] < 1.0 else _LOCAL

    def learn(self, outcome: Outcome) -> None:
        """The delay behind the device's part."""
        plan = outcome.plan
        if plan.split is None or plan.codec is None:
            return
        delay_s = outcome.transfer_s + outcome.edge_wait_s + outcome.edge_compute_s
        delay = (self._lost_s if outcome.answered_by == FALLBACK else delay_s) / self._unit_s
        x = self._features[self._number[plan.split, plan.codec]]
        self._gram = self._gram + np.outer(x, x)
        self._moment = self._moment + delay * x

    def _forget(self) -> None:
        """What was learned weighs less with every request; the prior stays."""
        prior = self.ridge * np.eye(len(self._moment))
        self._gram = prior + self.discount * (self._gram - prior)
        self._moment = self.discount * self._moment


_LOCAL = Plan()


def _features(setting: Setting, split: int, codec: str) -> tuple[float, float, float, float]:
    """Multiply-accumulates and layers behind the split, mean bytes with framing, and 1."""
    final, rest = setting.spec.exits[-1], setting.spec.stages[split:]
    macs, layers = final.macs + sum(s.macs for s in rest), final.layers + sum(s.layers for s in rest)
    return float(macs), float(layers), setting.payload_bytes(split, codec), 1.0
