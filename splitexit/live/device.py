"""A live device: one thread that drives the life of every request and answers its steps with torch.

While one request waits for the edge, the next is taken up (if the scenario says so); a reply that needs
computing goes before new arrivals. The same code runs on wall time over gRPC and, paired with an edge in
the same process, on virtual time.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from splitexit.calibration import Times
from splitexit.confidence import reading_among
from splitexit.decision import EdgeLoad, Reading
from splitexit.errors import UsageError
from splitexit.experiment import Experiment
from splitexit.inference import Answer, Request, adds_to_device, complete, infer
from splitexit.live.model import Array, LiveModel
from splitexit.live.pace import Cpu
from splitexit.live.references import DeviceMemory
from splitexit.live.transport import Failure, Transport
from splitexit.live.wire import Query, Result, bundle_tag
from splitexit.policies import OmniscientPolicy
from splitexit.results import Completion
from splitexit.sense import Sense
from splitexit.steps import Encode, NoReply, Observe, Payload, ReadExit, Reply, Send, Step, Switch


@dataclass(slots=True)
class Task:
    """A request being worked on: its generator, what that asked for last, and the features so far."""

    request: Request
    steps: Generator[Step, Any, Answer]
    step: Step
    times: Times
    features: Array
    start_s: float
    ready_s: float
    sent_s: float = 0.0
    sent_bytes: int = 0
    overrun: bool = False
    read: Reading | None = None
    levels: Array | None = None


class DeviceRuntime:
    """Takes up its requests and writes a row for each.

    Args:
        experiment, policy, seed, device: which requests, with which policy, at which times; the same as simulated.
        model: with the codecs on offer.
        images: sample id -> float32 C×H×W in [0, 1].
        cpu: how long computing takes, and the timeline.
        transport: the way to the edge.
        sink: called with every row, in the order of completion.
        requests: how many, instead of the scenario's number.
        clock_ns: times decisions.

    late       replies that came after they had been given up; never used
    decide_ns  what each of the policy's decisions took
    policy     the policy that decides

    Raises UsageError for a policy that needs to know the truth.
    """

    def __init__(
        self,
        experiment: Experiment,
        policy: str,
        seed: int,
        model: LiveModel,
        images: Mapping[int, Array],
        cpu: Cpu,
        transport: Transport,
        sink: Callable[[Completion], None],
        device: int = 0,
        requests: int | None = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.decide_ns: list[int] = []
        self._decider = experiment.decider(policy, seed, device).timed(self.decide_ns.append, clock_ns)
        self.policy = self._decider.policy
        if isinstance(self.policy, OmniscientPolicy):
            raise UsageError(f"policy {policy!r} decides with the truth, which no device knows: only simulate it")
        self._workload = experiment.workload(seed, device, requests)
        self._part = experiment.recording.test
        self._times = experiment.device_times(seed, device)
        for times in (self._times, *self._times.modes.values()):
            times.at(0)  # loads what drawing needs, before the first request
        self._pipeline = experiment.group(device).config.pipeline
        self._framing_bytes = experiment.edge_calibration.rpc.uplink_overhead_bytes
        self._model, self._images, self._cpu, self._transport, self._sink = model, images, cpu, transport, sink
        self._seed, self._tag, self._memory = seed, bundle_tag(model.digests), DeviceMemory()
        self._sense = Sense(self._decider.setting.link, self._decider.policy.reads)
        self._next = 0
        self._loop_s: float | None = 0.0  # closed loop: when the next request arrives; None while it cannot
        self._awaited: dict[int, Task] = {}
        self._resumed: deque[Task] = deque()
        self._stopped = False
        self.late = 0

    def run(self) -> None:
        """Until no request is left, or `stop`."""
        while not self._stopped:
            if self._resumed:
                self._work(self._resumed.popleft())
                continue
            arrival_s = self._workload.next_arrival_s(self._next, self._loop_s)
            if arrival_s is None and not self._awaited:  # all are answered, or the device has left for good
                break
            self._take_up(arrival_s)

    def stop(self) -> None:
        """Ends `run` as soon as it waits; may be called from any thread."""
        self._cpu.timeline.post(0.0, self._stop)

    def _stop(self, at_s: float) -> None:
        self._stopped = True

    def _take_up(self, arrival_s: float | None) -> None:
        """Waits for that arrival, or until something else happens."""
        timeline = self._cpu.timeline
        if arrival_s is None or (self._awaited and not self._pipeline):
            timeline.step(math.inf)
        elif not timeline.step(max(arrival_s, timeline.now())):
            self._begin(arrival_s)

    def _begin(self, arrival_s: float) -> None:
        number = self._next
        self._next, self._loop_s = number + 1, None
        request = self._workload.request(number, arrival_s)
        steps = infer(self._decider, request.deadline_at_s)
        self._cpu.begin(arrival_s)
        start_s = self._cpu.now_s
        features = self._images[request.sample]
        self._work(Task(request, steps, next(steps), self._times.at(number), features, start_s, start_s))

    def _work(self, task: Task) -> None:
        """Answers the task's steps until it must wait for the edge, or ends."""
        self._cpu.begin(task.ready_s)
        busy_since_s, answer = self._cpu.now_s, None
        try:
            while not isinstance(task.step, Send):
                task.step = task.steps.send(self._answer(task, task.step))
        except StopIteration as done:
            answer = done.value
        task.overrun |= self._cpu.settle()
        self._sense.computed(busy_since_s, self._cpu.now_s)
        if answer is not None:
            self._finish(task, answer, self._cpu.now_s)
        else:
            self._send(task, self._cpu.now_s)

    def _answer(self, task: Task, step: Step) -> Any:
        match step:
            case ReadExit(exit_, first, last):
                before_s = self._run(task, first, last) if last > first else 0.0
                compute = partial(self._model.read, task.features, exit_, task.read)
                task.read, seconds = self._cpu.run(compute, task.times.exits[exit_])
                return task.read, before_s + seconds
            case Encode(split, codec, first):
                compute_s = self._run(task, first, split) if split > first else 0.0
                pair = (split, codec)
                encode = partial(self._memory.encode, self._model.codecs[pair], pair, task.features)
                (content, task.levels), seconds = self._cpu.run(encode, task.times.encode_s(pair))
                return Payload(len(content), compute_s, seconds, self._cpu.now_s, content)
            case Switch(mode):
                task.times = self._times.modes[mode].at(task.request.number)
                return None
            case Observe(readings):
                self._cpu.reach()
                now_s, request = self._cpu.now_s, task.request
                waiting = self._workload.waiting(self._next, now_s)
                context = self._part.context_of(self._workload.positions[request.number])
                return self._sense.observe(now_s, readings, waiting, request.deadline_at_s, context)
        raise TypeError(f"no device can answer {step}")

    def _run(self, task: Task, first: int, last: int) -> float:
        compute = partial(self._model.net.run_stages, task.features, first, last)
        task.features, seconds = self._cpu.run(compute, task.times.run_s(first, last))
        return seconds

    def _send(self, task: Task, now_s: float) -> None:
        step, number = task.step, task.request.number
        assert isinstance(step, Send)
        task.sent_s, task.sent_bytes = now_s, step.payload.size_bytes + self._framing_bytes
        self._awaited[number] = task
        self._sense.sent(number, now_s)
        content, device = step.payload.content, task.request.device
        query = Query(
            number,
            device,
            step.split,
            step.codec,
            content,
            step.edge_exits,
            step.timeout_s,
            self._tag,
            self._seed,
            ruled_out=0 if step.prior is None else step.prior.ruled_out,
            evidence=self._evidence(step),
        )
        self._cpu.timeline.post(now_s + step.timeout_s, partial(self._heard, number, Failure.LATE))
        self._transport.send(query, now_s, partial(self._heard, number))

    def _evidence(self, step: Send) -> tuple[float, ...]:
        """The logits that an exit on the edge adds to, if one does."""
        if step.prior is None or not adds_to_device(step.edge_exits, self._model.spec):
            return ()
        assert step.prior.logits is not None, "a live reading has its logits"
        return tuple(step.prior.logits.tolist())

    def _heard(self, number: int, result: Result | Failure, at_s: float) -> None:
        """The wait is over: the request ends, or needs the CPU for its fallback."""
        task = self._awaited.pop(number, None)
        if task is None:
            self.late += isinstance(result, Result)
            return
        try:
            task.step = task.steps.send(self._reply(task, task.step, result, at_s))
            if isinstance(task.step, Send):  # the payload is still there: sending it again takes no computing
                self._send(task, at_s)
                return
            task.ready_s = at_s
            self._resumed.append(task)
        except StopIteration as done:
            self._finish(task, done.value, at_s)
        if not self._pipeline:
            self._cpu.begin(at_s)

    def _reply(self, task: Task, sent: Step, result: Result | Failure, at_s: float) -> Reply | NoReply:
        assert isinstance(sent, Send)
        number, elapsed_s, pair = task.request.number, at_s - task.sent_s, (sent.split, sent.codec)
        if isinstance(result, Failure):
            self._sense.given_up(number)
            if result is Failure.FORGOTTEN:
                self._memory.forget(pair)
            # Exactly the timeout where it is over, so that no rounding leaves time to send again.
            waited_s = sent.timeout_s if result is Failure.LATE else elapsed_s
            return NoReply(waited_s, result is Failure.SHED, forgotten=result is Failure.FORGOTTEN)
        if task.levels is not None:
            self._memory.answered(pair, number, task.levels)
        network_s = max(0.0, elapsed_s - result.wait_s - result.compute_s)
        load = EdgeLoad(result.queue_length, result.wait_s)
        self._sense.replied(number, task.sent_bytes, network_s, load)
        classes = self._model.spec.num_classes
        said = reading_among(result.exit, result.logits, result.ruled_out, classes, result.confidence)
        return Reply(said, network_s, result.wait_s, result.compute_s, load)

    def _finish(self, task: Task, answer: Answer, done_s: float) -> None:
        row = complete(task.request, answer, task.start_s, done_s, task.overrun)
        self._decider.learn(answer, row.response_s)
        if self._workload.arrival_s is None:
            self._loop_s = done_s + self._workload.think_s
        self._sink(row)
