"""The best that could have been done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from splitexit.decision import ExitCheck, Observation, Plan, Setting, Truth
from splitexit.policies import OmniscientPolicy

if TYPE_CHECKING:
    import numpy as np


class Oracle(OmniscientPolicy):
    """Per request, the plan with the highest utility in the state it finds, with the truth at hand.

    Candidates: every exit on the device (only the one head is read), and every (split, codec) on offer.
    It is greedy: unbeatable per request, but under contention it does not foresee later requests.
    """

    def __init__(self) -> None:
        self._plans: list[Plan] = []

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Lists the candidates. A threshold of −1 on max_prob always fires."""
        leave = [Plan(exits=(ExitCheck(e, "max_prob", -1.0),)) for e in range(setting.spec.final_exit)]
        send = [Plan(split=s, codec=c) for s, codecs in setting.codecs.items() for c in codecs]
        self._plans = [*leave, Plan(), *send]

    def decide_knowing(self, observation: Observation, truth: Truth) -> Plan:
        """argmax of the true utility; the first of equals."""
        return max(self._plans, key=truth.utility)
