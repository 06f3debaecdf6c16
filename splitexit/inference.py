"""The life of one request, written once, without I/O.

`infer` is a generator. It asks for steps; a world answers them: the simulator with virtual time and
recorded readings, the device process with torch and gRPC. It consults the policy, follows the plan and
returns an `Answer`. Nothing about a policy or a request is written a second time anywhere else.

    step                     the world answers with
    Observe(readings)        an Observation holding what the policy declared
    Reveal()                 a Truth (simulator only)
    RunStages(first, last)   seconds it took to run stages first+1..last
    ReadExit(exit)           (Reading, seconds)
    Encode(split, codec)     a Payload
    Now()                    seconds on the run's clock
    Send(...)                a Reply, or a NoReply
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from splitexit.bundle import ModelSpec
from splitexit.confidence import fires
from splitexit.decision import EdgeLoad, ExitCheck, Outcome, Plan, Reading, Setting
from splitexit.errors import PolicyError
from splitexit.policies import OmniscientPolicy, Policy
from splitexit.results import DEVICE, EDGE, FALLBACK, LOCAL, Completion


@dataclass(frozen=True, slots=True)
class Observe:
    """What can the device measure now?"""

    readings: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class Reveal:
    """What would really happen? (for an OmniscientPolicy)"""


@dataclass(frozen=True, slots=True)
class Now:
    """What time is it?"""


@dataclass(frozen=True, slots=True)
class RunStages:
    """Run stages first+1..last on the device."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class ReadExit:
    """Run the head of this exit on the present features."""

    exit: int


@dataclass(frozen=True, slots=True)
class Encode:
    """Turn the present features into bytes."""

    split: int
    codec: str


@dataclass(frozen=True, slots=True)
class Payload:
    """What is sent: its size, the seconds it took, and (live) the bytes themselves."""

    size_bytes: int
    seconds: float
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Send:
    """Send the payload to the edge and wait at most `timeout_s` for the reply."""

    split: int
    codec: str
    payload: Payload
    edge_exits: tuple[ExitCheck, ...]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Reply:
    """The edge's answer: its reading, seconds in transit both ways, its wait and compute, its load."""

    reading: Reading
    network_s: float
    wait_s: float
    compute_s: float
    load: EdgeLoad


@dataclass(frozen=True, slots=True)
class NoReply:
    """No usable answer after `waited_s`; `shed` if the edge refused for want of room."""

    waited_s: float
    shed: bool = False


Step = Observe | Reveal | Now | RunStages | ReadExit | Encode | Send


@dataclass(slots=True)
class Answer:
    """How a request ended; times in seconds, zero where a part did not happen."""

    plan: Plan
    readings: list[Reading] = field(default_factory=list)
    answered_by: str = DEVICE
    reading: Reading | None = None
    device_compute_s: float = 0.0
    encode_s: float = 0.0
    network_s: float = 0.0
    edge_wait_s: float = 0.0
    edge_compute_s: float = 0.0
    split: int = LOCAL
    codec: str = ""
    payload_bytes: int = 0
    shed: bool = False
    lost_reply: bool = False


class Decider:
    """A policy in its setting: asks it, and refuses impossible plans.

    Args:
        policy: already prepared with `setting`.
    """

    def __init__(self, policy: Policy, setting: Setting) -> None:
        self.policy, self.setting = policy, setting
        self.omniscient = policy if isinstance(policy, OmniscientPolicy) else None
        self._learns = type(policy).learn is not Policy.learn
        self._checked: dict[int, Plan] = {}

    def ask(self, readings: tuple[Reading, ...], stage: int) -> Generator[Step, Any, Plan]:
        """The policy's plan after `stage` stages; raises PolicyError for an impossible one."""
        observation = yield Observe(readings)
        if self.omniscient is not None:
            plan = self.omniscient.decide_knowing(observation, (yield Reveal()))
        else:
            plan = self.policy.decide(observation)
        # Policies mostly return the same few objects: check each once, keep a bounded number.
        if self._checked.get(id(plan)) is not plan:
            plan.check(self.setting.spec)
            if len(self._checked) >= 256:
                self._checked.clear()
            self._checked[id(plan)] = plan
        if plan.split is not None and plan.split < stage:
            raise PolicyError(f"plan: split {plan.split}, but {stage} stages have already run")
        return plan

    def learn(self, answer: Answer, response_s: float) -> None:
        """Tells the policy how a request ended, if it wants to know."""
        if self._learns:
            self.policy.learn(outcome(answer, response_s))


def infer(decider: Decider, deadline_at_s: float) -> Generator[Step, Any, Answer]:
    """One request, from the moment the device takes it up.

    Args:
        decider: the device's policy in its setting.
        deadline_at_s: when the answer is due, on the clock that `Now` reads.
    """
    spec = decider.setting.spec
    plan = yield from decider.ask((), 0)
    answer = Answer(plan)
    stage = next_check = 0
    while next_check < len(plan.exits):
        check = plan.exits[next_check]
        next_check += 1
        at = spec.exit_stages[check.exit]
        if at <= stage and answer.readings:
            continue  # a revised plan names heads that are behind us
        yield from _read(answer, check.exit, stage, at)
        stage = at
        if fires(check, answer.readings):
            answer.reading = answer.readings[-1]
            return answer
        if decider.policy.revises:
            plan = answer.plan = yield from decider.ask(tuple(answer.readings), stage)
            next_check = 0
    if plan.split is None:
        if not answer.readings or answer.readings[-1].exit != spec.final_exit:
            yield from _read(answer, spec.final_exit, stage, spec.num_stages)
        answer.reading = answer.readings[-1]
        return answer
    yield from _offload(answer, plan, stage, decider.setting, deadline_at_s)
    return answer


def _read(answer: Answer, exit_: int, stage: int, at: int) -> Generator[Step, Any, None]:
    """Runs from `stage` to the exit's stage and reads its head."""
    if at > stage:
        answer.device_compute_s += yield RunStages(stage, at)
    reading, seconds = yield ReadExit(exit_)
    answer.device_compute_s += seconds
    answer.readings.append(reading)


def _offload(
    answer: Answer, plan: Plan, stage: int, setting: Setting, deadline_at_s: float
) -> Generator[Step, Any, None]:
    """Runs up to the split, sends, waits; falls back where no usable reply comes in time."""
    assert plan.split is not None
    assert plan.codec is not None
    if plan.split > stage:
        answer.device_compute_s += yield RunStages(stage, plan.split)
    payload: Payload = yield Encode(plan.split, plan.codec)
    answer.encode_s = payload.seconds
    now_s: float = yield Now()
    timeout_s = deadline_at_s - now_s - fallback_s(setting, plan.split, bool(answer.readings))
    if plan.timeout_s is not None:
        timeout_s = min(timeout_s, plan.timeout_s)
    if timeout_s > 0.0:  # otherwise no reply could be used: nothing is sent
        answer.split, answer.codec, answer.payload_bytes = plan.split, plan.codec, payload.size_bytes
        reply: Reply | NoReply = yield Send(plan.split, plan.codec, payload, plan.edge_exits, timeout_s)
        if isinstance(reply, Reply):
            _accept(answer, reply)
            return
        answer.network_s, answer.shed, answer.lost_reply = reply.waited_s, reply.shed, not reply.shed
    answer.answered_by = FALLBACK
    if not answer.readings:
        exit_ = next_exit(setting, plan.split)
        yield from _read(answer, exit_, plan.split, setting.spec.exit_stages[exit_])
    answer.reading = max(answer.readings, key=lambda reading: reading.max_prob)


def _accept(answer: Answer, reply: Reply) -> None:
    answer.answered_by, answer.reading = EDGE, reply.reading
    answer.network_s = reply.network_s
    answer.edge_wait_s, answer.edge_compute_s = reply.wait_s, reply.compute_s


def infer_on_edge(spec: ModelSpec, split: int, checks: tuple[ExitCheck, ...]) -> Generator[Step, Any, Reading]:
    """What the edge does with decoded features: its exits in order, the final one at the latest.

    Steps: RunStages and ReadExit only; the world keeps the time.
    """
    stage, readings = split, list[Reading]()
    for check in (*checks, ExitCheck(spec.final_exit)):
        at = spec.exit_stages[check.exit]
        if at > stage:
            yield RunStages(stage, at)
        stage = at
        reading, _ = yield ReadExit(check.exit)
        readings.append(reading)
        if check.exit == spec.final_exit or fires(check, readings):
            break
    return readings[-1]


def next_exit(setting: Setting, split: int) -> int:
    """The first exit at or behind `split`: what a device with no reading computes on to."""
    stages = setting.spec.exit_stages
    return next(e for e, at in enumerate(stages) if at >= split)


def fallback_s(setting: Setting, split: int, has_reading: bool) -> float:
    """Mean seconds that answering without the edge takes: none with a reading, else on to the next exit."""
    if has_reading:
        return 0.0
    exit_ = next_exit(setting, split)
    run = setting.device.stages[split : setting.spec.exit_stages[exit_]]
    return sum(stage.mean for stage in run) + setting.device.exits[exit_].mean


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrives at a device: running number, which sample, when, and when it is due."""

    number: int
    device: int
    sample: int
    label: int
    arrival_s: float
    deadline_at_s: float


def complete(request: Request, answer: Answer, start_s: float, done_s: float, overrun: bool = False) -> Completion:
    """The row of a request that has its answer."""
    assert answer.reading is not None
    return Completion(
        request.number,
        request.device,
        request.sample,
        request.label,
        request.arrival_s,
        start_s,
        answer.device_compute_s,
        answer.encode_s,
        answer.network_s,
        answer.edge_wait_s,
        answer.edge_compute_s,
        done_s,
        answer.split,
        answer.codec,
        answer.reading.exit,
        answer.payload_bytes,
        float("nan"),
        answer.reading.prediction,
        answer.answered_by,
        done_s <= request.deadline_at_s,
        answer.shed,
        answer.lost_reply,
        overrun,
    )


def outcome(answer: Answer, response_s: float) -> Outcome:
    """What the policy learns of it."""
    return Outcome(
        plan=answer.plan,
        readings=tuple(answer.readings),
        response_s=response_s,
        answered_by=answer.answered_by,
        payload_bytes=answer.payload_bytes,
        transfer_s=answer.network_s,
        edge_wait_s=answer.edge_wait_s,
        edge_compute_s=answer.edge_compute_s,
        edge_reading=answer.reading if answer.answered_by == EDGE else None,
    )
