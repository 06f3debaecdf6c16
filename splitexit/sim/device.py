"""A simulated device: one CPU, first come first served, and a policy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import Any

from splitexit.calibration import ServiceTimes
from splitexit.experiment import Workload
from splitexit.inference import Answer, Decider, complete, infer
from splitexit.recording import Part
from splitexit.results import Completion
from splitexit.sense import Sense
from splitexit.sim.calendar import Calendar, Event
from splitexit.sim.task import Task
from splitexit.sim.transport import Transport
from splitexit.sim.truth import LookAhead
from splitexit.steps import NoReply, Observe, Reply, Reveal, Send, Step

Life = Callable[[Decider, float], Generator[Step, Any, Answer]]
"""What drives a request, as `splitexit.inference.infer` does."""


class Device:
    """Takes up its requests and writes a row for each.

    Args:
        calendar: the run's.
        part: what the model said.
        times: what every part takes on this device.
        workload: the device's requests.
        decider: its policy.
        pipeline: whether the CPU takes up other work while a payload is on its way.
        sink: called with every row, in the order of completion.
        life: drives its requests.

    sense      what the policy may look at; None where it looks at nothing but readings
    transport  the way to the edge; set before the first request
    """

    __slots__ = (
        "_alarm",
        "_busy",
        "_calendar",
        "_decider",
        "_env",
        "_free_s",
        "_life",
        "_loop_s",
        "_next",
        "_on_computed",
        "_on_reached",
        "_on_wake",
        "_part",
        "_pipeline",
        "_resumed",
        "_sink",
        "_times",
        "_waking",
        "_workload",
        "sense",
        "transport",
    )

    transport: Transport

    def __init__(
        self,
        calendar: Calendar,
        part: Part,
        times: ServiceTimes,
        workload: Workload,
        decider: Decider,
        pipeline: bool,
        sink: Callable[[Completion], None],
        life: Life = infer,
    ) -> None:
        self._calendar, self._env, self._part, self._times = calendar, calendar.env, part, times
        self._workload, self._decider, self._pipeline, self._sink = workload, decider, pipeline, sink
        self._life = life
        self.sense = Sense(decider.setting.link, decider.policy.reads) if decider.watches else None
        self._next = 0
        self._free_s = 0.0
        self._busy = self._waking = False
        self._resumed: deque[Task] = deque()
        self._loop_s: float | None = 0.0  # closed loop: when the next request arrives; None while it cannot
        self._alarm = Event()
        self._on_wake, self._on_computed, self._on_reached = (self._wake,), (self._computed,), (self._compute,)

    def take_next(self) -> None:
        """The CPU is free: it resumes a task, begins the next request, or sleeps until one arrives."""
        if self._resumed:
            task = self._resumed.popleft()
            task.clock_s = task.busy_since_s = max(task.clock_s, self._free_s)
            self._compute(task)
            return
        arrival_s = self._workload.next_arrival_s(self._next, self._loop_s)
        if arrival_s is None:
            return
        if arrival_s <= self._env._now:
            self._begin(arrival_s)
        elif not self._waking:
            self._waking = True
            self._calendar.put(arrival_s, self._alarm, self._on_wake)

    def _wake(self, _: Event) -> None:
        self._waking = False
        if not self._busy:
            self.take_next()

    def _begin(self, arrival_s: float) -> None:
        number, workload = self._next, self._workload
        self._next = number + 1
        self._loop_s = None
        request = workload.request(number, arrival_s)
        start_s = arrival_s if arrival_s > self._free_s else self._free_s
        steps = self._life(self._decider, request.deadline_at_s)
        task = Task(request, self._part, workload.positions[number], steps, self._times, start_s)
        task.step = next(steps)
        self._compute(task)

    def _compute(self, task: Task) -> None:
        """Answers the task's steps until it must wait for the world; the CPU is busy until then."""
        self._busy = True
        step, send, compute = task.step, task.steps.send, task.compute
        try:
            while (kind := type(step)) is not Send:
                if kind is Observe or kind is Reveal:
                    if task.clock_s > self._env._now:  # the policy must see the world as it is then
                        task.step = step
                        self._calendar.put(task.clock_s, task, self._on_reached)
                        return
                    step = send(self._told(task, step))
                else:
                    step = send(compute(step))
            task.step = step
        except StopIteration as done:
            task.answer = done.value
        self._calendar.put(task.clock_s, task, self._on_computed)

    def _told(self, task: Task, step: Any) -> Any:
        """The answer to a question about the world."""
        if type(step) is not Observe:
            return LookAhead(self._decider.setting, self.transport, task)
        assert self.sense is not None
        waiting = self._workload.waiting(self._next, task.clock_s)
        context = task.part.context_of(task.position)
        return self.sense.observe(task.clock_s, step.readings, waiting, task.request.deadline_at_s, context)

    def _computed(self, task: Task) -> None:
        """The CPU has done what it can for this task: it is answered, or its payload leaves."""
        now_s = task.clock_s
        if self.sense is not None:
            self.sense.computed(task.busy_since_s, now_s)
        if task.answer is not None:
            self._finish(task)
        else:
            self.transport.send(task, task.step)
            if not self._pipeline:
                return  # the CPU waits for the reply
        self._release(now_s)

    def heard(self, task: Task, result: Reply | NoReply) -> None:
        """The wait for the edge is over: the request ends, or needs the CPU for its fallback."""
        task.clock_s = now_s = self._env._now
        try:
            task.step = task.steps.send(result)
            if type(task.step) is Send:  # the payload is still there: sending it again takes no computing
                self.transport.send(task, task.step)
                return
            self._resumed.append(task)
        except StopIteration as done:
            task.answer = done.value
            self._finish(task)
        if not self._pipeline:
            self._release(now_s)
        elif not self._busy:
            self.take_next()

    def _release(self, now_s: float) -> None:
        self._free_s, self._busy = now_s, False
        self.take_next()

    def _finish(self, task: Task) -> None:
        answer = task.answer
        assert answer is not None
        row = complete(task.request, answer, task.start_s, task.clock_s)
        if self._decider.learns:
            self._decider.learn(answer, row.response_s)
        if self._workload.arrival_s is None:
            self._loop_s = task.clock_s + self._workload.think_s
        self._sink(row)
