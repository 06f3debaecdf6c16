"""A simulated run that stops wherever a decision is due, so that whoever drives it decides.

It is the run of `simulate`, event for event: a device that would ask its policy is set aside instead, the calendar
stands still, and goes on once the plan is there. No thread is needed, because a request's life is a generator that
can wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import Any, ClassVar, NamedTuple

from splitexit.decision import Observation, Outcome, Plan
from splitexit.experiment import Experiment
from splitexit.inference import Decider
from splitexit.policies import Policy
from splitexit.results import Completion
from splitexit.sim.calendar import Calendar
from splitexit.sim.device import Device
from splitexit.sim.task import Task
from splitexit.sim.world import World
from splitexit.steps import Observe


class Question(NamedTuple):
    """A request that a device takes up: what the device can measure then, and how its last request ended, if any."""

    device: int
    request: int
    observation: Observation
    last: Outcome | None


def decisions(
    experiment: Experiment, seed: int, requests: int | None, sink: Callable[[Completion], None]
) -> Generator[Question, Plan, None]:
    """Runs the scenario; yields every decision, of all devices, and is sent the plan.

    Args:
        experiment, seed, requests: as for `simulate`.
        sink: called with every row, in the order of completion.

    Raises:
        PolicyError: a plan is impossible for this model.
    """
    asked: deque[tuple[_Device, Task, Question]] = deque()
    calendar = Calendar()
    world = World(experiment, seed, calendar)
    for number in range(experiment.total_devices):
        device = _device(experiment, seed, number, requests, calendar, sink, asked)
        world.connect(device, number)
        device.take_next()
        yield from _answered(asked)
    while calendar.step():
        yield from _answered(asked)


def _answered(asked: deque[tuple[_Device, Task, Question]]) -> Generator[Question, Plan, None]:
    while asked:
        device, task, question = asked.popleft()
        device.carry_out(task, (yield question))


class _Asker(Policy):
    """Looks at everything, decides what it was told to."""

    reads: ClassVar[frozenset[str]] = Observation.FIELDS - {"readings"}

    def __init__(self) -> None:
        self.plan = Plan()
        self.last: Outcome | None = None

    def decide(self, observation: Observation) -> Plan:
        return self.plan

    def learn(self, outcome: Outcome) -> None:
        self.last = outcome


class _Device(Device):
    """Puts its questions into `asked`. Its CPU is taken meanwhile, as by a policy that takes no time."""

    __slots__ = ("_asked", "_asker", "_seen")

    _seen: Observation

    def __init__(self, asker: _Asker, asked: deque[tuple[_Device, Task, Question]], *device: Any) -> None:
        super().__init__(*device)
        self._asker, self._asked = asker, asked

    def _compute(self, task: Task) -> None:
        if type(task.step) is not Observe or task.clock_s > self._env._now:
            super()._compute(task)
            return
        self._busy, request = True, task.request
        self._seen = super()._told(task, task.step)
        self._asked.append((self, task, Question(request.device, request.number, self._seen, self._asker.last)))

    def _told(self, task: Task, step: Any) -> Any:
        return self._seen

    def carry_out(self, task: Task, plan: Plan) -> None:
        """The decision is there."""
        self._asker.plan = plan
        super()._compute(task)


def _device(
    experiment: Experiment,
    seed: int,
    number: int,
    requests: int | None,
    calendar: Calendar,
    sink: Callable[[Completion], None],
    asked: deque[tuple[_Device, Task, Question]],
) -> _Device:
    group, asker = experiment.group(number), _Asker()
    return _Device(
        asker,
        asked,
        calendar,
        experiment.recording.test,
        experiment.device_times(seed, number),
        experiment.workload(seed, number, requests),
        Decider(asker, experiment.setting(group)),
        group.config.pipeline,
        sink,
    )
