"""A simulated device: one CPU, first come first served, and a policy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from splitexit.experiment import Experiment, Workload
from splitexit.inference import Answer, Decider, NoReply, Observe, Reply, Reveal, Send, complete, infer
from splitexit.results import Completion
from splitexit.sense import Sense
from splitexit.sim.calendar import Calendar
from splitexit.sim.edge import Edge
from splitexit.sim.task import Task
from splitexit.sim.transport import Transport
from splitexit.sim.truth import LookAhead


class Device:
    """Takes up its requests and writes a row for each.

    Args:
        calendar, edge: the world.
        experiment, seed: where links, times and readings come from.
        workload: the device's requests.
        decider: its policy.
        sink: called with every row, in the order of completion.
    """

    def __init__(
        self,
        calendar: Calendar,
        edge: Edge,
        experiment: Experiment,
        seed: int,
        workload: Workload,
        decider: Decider,
        sink: Callable[[Completion], None],
    ) -> None:
        self._calendar, self._workload, self._decider, self._sink = calendar, workload, decider, sink
        self._part = experiment.recording.test
        self._times = experiment.device_times(seed, workload.device)
        reads = decider.policy.reads
        self.sense = Sense(decider.setting.link, reads)
        self.transport = Transport(calendar, edge, experiment, seed, workload.device, self.sense)
        self._pipeline = experiment.scenario.devices.pipeline
        self._counts_queue = "queue_length" in reads
        # A policy that is asked again must see the world as it is then, unless it looks only at readings.
        self._catches_up = decider.policy.revises and bool(reads - {"readings"})
        self._next = 0
        self._free_s = 0.0
        self._busy = self._waking = False
        self._resumed: deque[Task] = deque()
        self._loop_s: float | None = 0.0  # closed loop: when the next request arrives; None while it cannot

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
        if arrival_s <= self._calendar.now:
            self._begin(arrival_s)
        elif not self._waking:
            self._waking = True
            self._calendar.at(arrival_s, self._wake, arrival_s)

    def _wake(self, arrival_s: float) -> None:
        self._waking = False
        if not self._busy:
            self._begin(arrival_s)

    def _begin(self, arrival_s: float) -> None:
        number = self._next
        self._next += 1
        self._loop_s = None
        request = self._workload.request(number, arrival_s)
        start_s = max(arrival_s, self._free_s)
        steps = infer(self._decider, request.deadline_at_s)
        position, times = self._workload.positions[number], self._times.at(number)
        task = Task(request, self._part, position, steps, times, start_s, start_s, start_s, next(steps))
        self._compute(task)

    def _compute(self, task: Task) -> None:
        """Answers the task's steps until it must wait for the world; the CPU is busy until then."""
        self._busy = True
        step, send = task.step, task.steps.send
        try:
            while True:
                kind = type(step)
                if kind is Send:
                    task.step = step
                    self._calendar.at(task.clock_s, self._computed, (task, None))
                    return
                if kind is Observe and self._catches_up and task.clock_s > self._calendar.now:
                    task.step = step
                    self._calendar.at(task.clock_s, self._compute, task)
                    return
                step = send(self._answer(task, kind, step))
        except StopIteration as done:
            self._calendar.at(task.clock_s, self._computed, (task, done.value))

    def _answer(self, task: Task, kind: type, step: Any) -> Any:
        if kind is Observe:
            waiting = self._workload.waiting(self._next, task.clock_s) if self._counts_queue else 0
            return self.sense.observe(task.clock_s, step.readings, waiting, task.request.deadline_at_s)
        if kind is Reveal:
            return LookAhead(self._decider.setting, self.transport, task)
        return task.compute(step)

    def _computed(self, done: tuple[Task, Answer | None]) -> None:
        """The CPU has done what it can for this task: it is answered, or its payload leaves."""
        task, answer = done
        self.sense.computed(task.busy_since_s, task.clock_s)
        if answer is not None:
            self._finish(task, answer)
        else:
            self.transport.send(task, self._heard)
            if not self._pipeline:
                return  # the CPU waits for the reply
        self._release(task.clock_s)

    def _heard(self, task: Task, result: Reply | NoReply, now_s: float) -> None:
        """The wait for the edge is over: the request ends, or needs the CPU for its fallback."""
        task.clock_s = now_s
        try:
            task.step = task.steps.send(result)
            self._resumed.append(task)
        except StopIteration as done:
            self._finish(task, done.value)
        if not self._pipeline:
            self._release(now_s)
        elif not self._busy:
            self.take_next()

    def _release(self, now_s: float) -> None:
        self._free_s, self._busy = now_s, False
        self.take_next()

    def _finish(self, task: Task, answer: Answer) -> None:
        row = complete(task.request, answer, task.start_s, task.clock_s)
        self._decider.learn(answer, row.response_s)
        if self._workload.arrival_s is None:
            self._loop_s = task.clock_s + self._workload.think_s
        self._sink(row)
