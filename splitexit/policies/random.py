"""Any plan, with equal chances."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from splitexit.decision import Observation, Plan, Setting
from splitexit.policies import Policy

if TYPE_CHECKING:
    import numpy as np


class Random(Policy):
    """Draws a split uniformly (staying local counts as one), then one of its codecs: the uninformed baseline."""

    memory: ClassVar[tuple[str, ...]] = ("_rng",)

    def __init__(self) -> None:
        self._rng: np.random.Generator | None = None
        self._plans: list[list[Plan]] = [[Plan()]]

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Keeps the run's generator and the options."""
        self._rng = rng
        offered = [[Plan(split=s, codec=c) for c in codecs] for s, codecs in setting.codecs.items()]
        self._plans = [[Plan()], *offered]

    def decide(self, observation: Observation) -> Plan:
        """One draw for the split, one for the codec."""
        assert self._rng is not None, "prepare() comes first"
        plans = self._plans[int(self._rng.integers(len(self._plans)))]
        return plans[int(self._rng.integers(len(plans)))]
