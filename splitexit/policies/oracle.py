"""The best that could have been done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from splitexit.decision import ExitCheck, Observation, Plan, Setting, Truth
from splitexit.policies import OmniscientPolicy

if TYPE_CHECKING:
    import numpy as np

    from splitexit.bundle import ModelSpec


class Oracle(OmniscientPolicy):
    """Per request, the plan with the highest utility in the state it finds, with the truth at hand.

    Candidates: every exit on the device (only the heads that it needs are read), and every (split, codec) on offer.
    It is greedy: unbeatable per request, but under contention it does not foresee later requests.
    """

    def __init__(self) -> None:
        self._plans: list[Plan] = []

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Lists the candidates."""
        leave = [Plan(exits=_up_to(e, setting.spec)) for e in range(setting.spec.final_exit)]
        send = [Plan(split=s, codec=c) for s, codecs in setting.codecs.items() for c in codecs]
        self._plans = [*leave, Plan(), *send]

    def decide_knowing(self, observation: Observation, truth: Truth) -> Plan:
        """argmax of the true utility; the first of equals."""
        return max(self._plans, key=truth.utility)


def _up_to(exit_: int, spec: ModelSpec) -> tuple[ExitCheck, ...]:
    """Leaves at this exit, and reads those that it adds to before it. No max_prob reaches 2, every one −1."""
    *before, last = spec.evidence(exit_)
    return (*(ExitCheck(e, "max_prob", 2.0) for e in before), ExitCheck(last, "max_prob", -1.0))
