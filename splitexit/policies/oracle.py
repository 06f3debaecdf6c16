"""The best that could have been done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from splitexit.decision import ExitCheck, Observation, Plan, Setting, Truth
from splitexit.policies import OmniscientPolicy

if TYPE_CHECKING:
    import numpy as np

    from splitexit.bundle import ModelSpec


class Oracle(OmniscientPolicy):
    """Per request, the plan with the highest utility in the state it finds, with the truth at hand.

    Candidates: every exit on the device (only the heads that it needs are read), and every (split, codec) on offer,
    for the final exit or an earlier one behind it that was recorded; all of it in every mode of the device.
    It is greedy: unbeatable per request, but under contention it does not foresee later requests.
    """

    def __init__(self) -> None:
        self._plans: list[Plan] = []

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Lists the candidates."""
        self._plans = in_every_mode(setting)

    def decide_knowing(self, observation: Observation, truth: Truth) -> Plan:
        """argmax of the true utility; the first of equals."""
        return truth.best(self._plans)[0]


def candidates(setting: Setting) -> list[Plan]:
    """Every single thing that can be done with a request, whatever its exits say."""
    leave = [Plan(exits=_up_to(e, setting.spec)) for e in range(setting.spec.final_exit)]
    pairs = [(split, codec) for split, codecs in setting.codecs.items() for codec in codecs]
    send = [Plan(split=split, codec=codec) for split, codec in pairs]
    there = [Plan(split=s, codec=c, edge_exits=up_to) for s, c in pairs for up_to in _behind(s, c, setting)]
    return [*leave, Plan(), *send, *there]


def in_every_mode(setting: Setting) -> list[Plan]:
    """`candidates`, and those of every mode of the device."""
    others = (replace(plan, mode=mode) for mode, there in setting.modes.items() for plan in candidates(there))
    return [*candidates(setting), *others]


def _behind(split: int, codec: str, setting: Setting) -> Iterator[tuple[ExitCheck, ...]]:
    """The early exits on the edge that can answer what was sent like this, without one on the device before."""
    spec, pair = setting.spec, setting.calibration.pair(split, codec)
    for exit_ in spec.exits_after(split):
        up_to = _up_to(exit_, spec)
        recorded = all(pair.lossless or check.exit in pair.exits for check in up_to)
        if exit_ != spec.final_exit and recorded and spec.exit_stages[up_to[0].exit] > split:
            yield up_to


def _up_to(exit_: int, spec: ModelSpec) -> tuple[ExitCheck, ...]:
    """Leaves at this exit, and reads those that it adds to before it. No max_prob reaches 2, every one −1."""
    *before, last = spec.evidence(exit_)
    return (*(ExitCheck(e, "max_prob", 2.0) for e in before), ExitCheck(last, "max_prob", -1.0))
