"""Regret in the same state: how far each decision falls short of the best that the oracle could have done then.

At the first decision of a request, the simulator tries out the plan that the policy chose and the oracle's candidates,
in the state that the request found: its links, its edge, the jobs of all devices as they are there and then. So regret
means something under contention too, where two runs under different policies soon differ in everything.

Without contention its mean is the oracle's mean utility less the policy's. The oracle's own is 0. It can be below 0
where a policy does what is no candidate: it narrows down classes, or waits longer for having a reading to fall back
on. Of a policy that revises its plan, the first one counts.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from splitexit.decision import Plan, Setting, Truth
from splitexit.experiment import Experiment
from splitexit.inference import Answer, Decider, infer
from splitexit.policies.oracle import in_every_mode
from splitexit.results import to_table
from splitexit.sim.run import simulate
from splitexit.steps import Observe, Reveal, Step

Clock = Callable[[], int]

COLUMNS = ("regret", "switched")
"""What `judged` adds to the rows: utility lost, and whether the plan differs from the device's one before."""


@dataclass(frozen=True)
class Judged:
    """A run whose decisions were judged.

    table      its rows, with COLUMNS
    decide_ns  what each decision took, where a clock was given; revised ones too
    """

    table: pa.Table
    decide_ns: np.ndarray[Any, Any]


class Judge:
    """Looks on while one device decides; its `infer` takes the place of `splitexit.inference.infer`.

    Args:
        setting: the device's.
        clock_ns: what to time decisions by; None: they are not timed.

    regret, switched  by request, in their order
    """

    def __init__(self, setting: Setting, clock_ns: Clock | None = None) -> None:
        self._candidates, self._clock_ns = in_every_mode(setting), clock_ns
        self._decider: Decider | None = None
        self._before: Plan | None = None
        self.regret: list[float] = []
        self.switched: list[bool] = []
        self.decide_ns: list[int] = []

    def infer(self, decider: Decider, deadline_at_s: float) -> Generator[Step, Any, Answer]:
        """The life of a request, which is asked for the truth once more as soon as its plan is known."""
        decider = self._watched(decider)
        steps = infer(decider, deadline_at_s)
        step = next(steps)
        while type(step) is Observe or type(step) is Reveal:
            step = steps.send((yield step))
        assert decider.plan is not None
        self._judge(decider.plan, (yield Reveal()))
        try:
            while True:
                step = steps.send((yield step))
        except StopIteration as done:
            answer: Answer = done.value
            return answer

    def _watched(self, decider: Decider) -> Decider:
        if self._decider is None:
            self._decider = decider if self._clock_ns is None else decider.timed(self.decide_ns.append, self._clock_ns)
        return self._decider

    def _judge(self, plan: Plan, truth: Truth) -> None:
        self.regret.append(truth.best(self._candidates)[1] - truth.utility(plan))
        self.switched.append(self._before is not None and self._before != plan)
        self._before = plan


def judged(
    experiment: Experiment, policy: str, seed: int, requests: int | None = None, clock_ns: Clock | None = None
) -> Judged:
    """The same run as `simulate`, row by row, with every decision judged. Args and errors as there.

    Args:
        clock_ns: times decisions, in nanoseconds; None: they are not timed.
    """
    judges = [Judge(experiment.setting(experiment.group(n)), clock_ns) for n in range(experiment.total_devices)]
    rows = simulate(experiment, policy, seed, requests, lambda number: judges[number].infer)
    table = to_table(rows, experiment.schema)
    regret = np.array([value for judge in judges for value in judge.regret])
    switched = np.array([value for judge in judges for value in judge.switched], bool)
    for name, values in zip(COLUMNS, (regret, switched), strict=True):
        table = table.append_column(name, pa.array(values))
    return Judged(table, np.array([ns for judge in judges for ns in judge.decide_ns], np.int64))
