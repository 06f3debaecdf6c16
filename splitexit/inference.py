"""The life of one request, written once, without I/O.

`infer` is a generator. It asks for steps; a world answers them: the simulator with virtual time and
recorded readings, the device process with torch and gRPC. It consults the policy, follows the plan and
returns an `Answer`. Nothing about a policy or a request is written a second time anywhere else.

    step                         the world answers with
    Observe(readings)            an Observation holding what the policy declared (only if that is more than readings)
    Reveal()                     a Truth (simulator only)
    ReadExit(exit, first, last)  (Reading, seconds), for stages first+1..last and then the head
    Encode(split, codec, first)  a Payload, made after stages first+1..split
    Switch(mode)                 None; what the device computes from now on takes that mode's times
    Send(...)                    a Reply, or a NoReply

Steps that do not depend on the request are made once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from copy import copy
from functools import lru_cache
from typing import Any

from splitexit.answer import Answer as Answer
from splitexit.answer import Request as Request
from splitexit.answer import complete as complete
from splitexit.answer import outcome as outcome
from splitexit.bundle import ModelSpec
from splitexit.confidence import NARROWING, fires, narrow, restrict
from splitexit.decision import ExitCheck, Observation, Plan, Reading, Setting
from splitexit.errors import PolicyError
from splitexit.policies import OmniscientPolicy, Policy
from splitexit.results import FALLBACK
from splitexit.steps import (
    Encode,
    NoReply,
    Observe,
    Payload,
    ReadExit,
    Reply,
    Reveal,
    RunStages,
    Send,
    Step,
    Switch,
    prior_bytes,
)

Course = Generator[RunStages | ReadExit, "tuple[Reading, float] | None", Reading | None]
"""What `infer_behind` makes."""


class Decider:
    """A policy in its setting: asks it, and refuses impossible plans.

    Args:
        policy: already prepared with `setting`.

    watches   whether the policy looks at more than readings, so that the world must be asked
    plan      the last one decided
    """

    def __init__(self, policy: Policy, setting: Setting) -> None:
        self.policy, self.setting = policy, setting
        self.omniscient = policy if isinstance(policy, OmniscientPolicy) else None
        self.watches = self.omniscient is not None or bool(policy.reads - {"readings"})
        self.learns = type(policy).learn is not Policy.learn
        self._sees_readings = "readings" in policy.reads
        self._decide: Callable[..., Plan] = policy.decide if self.omniscient is None else self.omniscient.decide_knowing
        self.plan: Plan | None = None
        self._checked: dict[int, Plan] = {}
        self.read_steps = _read_steps(setting.exit_stages, setting.spec.num_stages)
        self.encode_steps: dict[tuple[int, str, int], Encode] = {}

    def decide(self, readings: list[Reading], stage: int) -> Plan:
        """The plan of a policy that looks at nothing but readings, after `stage` stages."""
        observation = _NOTHING
        if self._sees_readings:
            observation = _new(Observation)  # its __init__ takes any fields, which costs more than the decision
            observation.readings = tuple(readings)
        return self._sound(self._decide(observation), stage)

    def ask(self, readings: list[Reading], stage: int) -> Generator[Step, Any, Plan]:
        """The plan of any policy after `stage` stages; raises PolicyError for an impossible one."""
        if not self.watches:
            return self.decide(readings, stage)
        observation = yield Observe(tuple(readings))
        if self.omniscient is not None:
            return self._sound(self._decide(observation, (yield Reveal())), stage)
        return self._sound(self._decide(observation), stage)

    def _sound(self, plan: Plan, stage: int) -> Plan:
        if plan is not self.plan:
            self._check(plan)
            self.plan = plan
        if plan.split is not None and plan.split < stage:
            raise PolicyError(f"plan: split {plan.split}, but {stage} stages have already run")
        return plan

    def _check(self, plan: Plan) -> None:
        """Policies mostly return the same few objects: checks each once, and remembers a bounded number."""
        if self._checked.get(id(plan)) is not plan:
            plan.check(self.setting.spec)
            if plan.mode is not None:
                self.setting.require(plan)
            if len(self._checked) >= 256:
                self._checked.clear()
            self._checked[id(plan)] = plan

    def learn(self, answer: Answer, response_s: float) -> None:
        """Tells the policy how a request ended, if it wants to know."""
        if self.learns:
            self.policy.learn(outcome(answer, response_s))

    def timed(self, note: Callable[[int], None], clock_ns: Callable[[], int]) -> Decider:
        """One for the same policy that tells `note` how many nanoseconds of this clock every decision took."""
        decide = self._decide

        def measured(*seen: Any) -> Plan:
            begun_ns = clock_ns()
            plan = decide(*seen)
            note(clock_ns() - begun_ns)
            return plan

        other = copy(self)
        other._decide = measured
        return other


@lru_cache(maxsize=64)
def _read_steps(exit_stages: tuple[int, ...], num_stages: int) -> Sequence[Sequence[ReadExit]]:
    """To every exit, from every stage."""
    stages = range(num_stages + 1)
    return [[ReadExit(e, min(k, at), at) for k in stages] for e, at in enumerate(exit_stages)]


_NOTHING = Observation()
_new = object.__new__


def infer(decider: Decider, deadline_at_s: float) -> Generator[Step, Any, Answer]:
    """One request, from the moment the device takes it up.

    Args:
        decider: the device's policy in its setting.
        deadline_at_s: when the answer is due, on the clock that payloads are stamped with.
    """
    readings: list[Reading] = []
    watches, revises, exit_stages = decider.watches, decider.policy.revises, decider.setting.exit_stages
    plan = (yield from decider.ask(readings, 0)) if watches else decider.decide(readings, 0)
    answer = Answer(plan, readings)
    exits, stage, next_check = plan.exits, 0, 0
    if plan.mode is not None:
        answer.mode = plan.mode
        yield Switch(plan.mode)
    while next_check < len(exits):
        check = exits[next_check]
        next_check += 1
        at = exit_stages[check.exit]
        if at <= stage and readings:
            continue  # a revised plan names heads that are behind us
        reading, seconds = yield decider.read_steps[check.exit][stage]
        answer.device_compute_s += seconds
        before = readings[-1] if readings else None
        if check.rule in NARROWING or (before is not None and before.ruled_out):
            reading = narrow(check, reading, before)
        readings.append(reading)
        stage = at
        if fires(check, readings):
            answer.reading = reading
            return answer
        if revises:
            revised = (yield from decider.ask(readings, stage)) if watches else decider.decide(readings, stage)
            if revised is not plan:
                _require_same_mode(plan, revised)
                plan = answer.plan = revised
                exits, next_check = plan.exits, 0
    if plan.split is not None:
        yield from _offload(answer, plan, stage, decider, deadline_at_s)
    elif readings and readings[-1].exit == decider.setting.spec.final_exit:
        answer.reading = readings[-1]
    else:
        yield from _answer_at(answer, decider.setting.spec.final_exit, stage, decider)
    return answer


def _require_same_mode(plan: Plan, revised: Plan) -> None:
    if revised.mode != plan.mode:
        raise PolicyError(
            f"plan: mode {revised.mode!r} after {plan.mode!r}; a request keeps the mode of its first plan"
        )


def _answer_at(answer: Answer, exit_: int, stage: int, decider: Decider) -> Generator[Step, Any, None]:
    """Runs on from `stage` to this exit, which answers."""
    said, seconds = yield decider.read_steps[exit_][stage]
    answer.device_compute_s += seconds
    answer.reading = restrict(said, answer.readings[-1].ruled_out) if answer.readings else said
    answer.readings.append(answer.reading)


def _offload(
    answer: Answer, plan: Plan, stage: int, decider: Decider, deadline_at_s: float
) -> Generator[Step, Any, None]:
    """Runs up to the split, sends, waits; falls back where no usable reply comes in time."""
    split, codec, setting = plan.split, plan.codec, decider.setting
    assert split is not None
    assert codec is not None
    key = (split, codec, stage)
    step = decider.encode_steps.get(key) or decider.encode_steps.setdefault(key, Encode(*key))
    payload: Payload = yield step
    prior = _prior(answer.readings, plan, setting.spec)
    payload = _with_prior(payload, prior, plan, setting.spec)
    answer.device_compute_s += payload.compute_s
    answer.encode_s = payload.encode_s
    timeout_s = deadline_at_s - payload.at_s
    if not answer.readings:
        timeout_s -= setting.in_mode(plan.mode).fallback_s[split]
    if plan.timeout_s is not None:
        timeout_s = min(timeout_s, plan.timeout_s)
    tries, until_s = 1 + setting.retries, payload.at_s + timeout_s
    while timeout_s > 0.0 and tries:  # otherwise no reply could be used: nothing is sent
        answer.split, answer.codec, answer.payload_bytes = split, codec, payload.size_bytes
        result: Reply | NoReply = yield Send(split, codec, payload, plan.edge_exits, timeout_s, prior)
        answer.airtime_s += result.airtime_s
        if isinstance(result, Reply):
            answer.answered_by, answer.reading = result.answered_by, result.reading
            answer.network_s += result.network_s
            answer.edge_wait_s, answer.edge_compute_s = result.wait_s, result.compute_s
            answer.shed = answer.lost_reply = False
            return
        answer.network_s += result.waited_s
        answer.shed, answer.lost_reply = result.shed, not result.shed
        if result.forgotten:  # once only: what is sent whole refers to nothing
            payload = _with_prior((yield Encode(split, codec, split)), prior, plan, setting.spec)
            answer.encode_s += payload.encode_s
            timeout_s = until_s - payload.at_s
            continue
        tries = 0 if result.shed else tries - 1  # what was refused for want of room would only add to the crowd
        timeout_s -= result.waited_s
    answer.answered_by = FALLBACK
    if not answer.readings:
        yield from _answer_at(answer, setting.spec.next_exit(split), split, decider)
    else:
        answer.reading = max(answer.readings, key=lambda reading: reading.max_prob)


def _with_prior(payload: Payload, prior: Reading | None, plan: Plan, spec: ModelSpec) -> Payload:
    """What is sent together with what the message says of earlier exits."""
    if prior is None:
        return payload
    numbers = spec.num_classes if adds_to_device(plan.edge_exits, spec) else 0
    return payload._replace(size_bytes=payload.size_bytes + prior_bytes(prior.ruled_out, numbers))


def _prior(readings: list[Reading], plan: Plan, spec: ModelSpec) -> Reading | None:
    """The last reading, where what follows on the edge goes on from it (see Send)."""
    if readings and (readings[-1].ruled_out or adds_to_device(plan.edge_exits, spec)):
        return readings[-1]
    return None


def adds_to_device(edge_exits: tuple[ExitCheck, ...], spec: ModelSpec) -> bool:
    """Whether an exit behind the split adds to what the device has read: only the first one can."""
    return bool(edge_exits) and spec.exits[edge_exits[0].exit].additive


def infer_behind(
    spec: ModelSpec,
    split: int,
    checks: tuple[ExitCheck, ...],
    readings: list[Reading],
    until: int,
    prior: Reading | None = None,
) -> Course:
    """What a server does with decoded features: its exits in order, up to stage `until`.

    Steps: ReadExit and RunStages only; the world keeps the time.

    Args:
        split: stages that have run already.
        checks: exits to read; those at or before `split` were read by others.
        readings: what this request's exits behind the link have said; added to.
        until: the last stage that this server has; the model's last one means that the final exit answers.
        prior: see Send.

    Returns:
        The reading that answers, or None: the features behind stage `until` go on to the next tier.
    """
    stage = split
    for check in checks:
        at = spec.exit_stages[check.exit]
        if split < at <= until:
            said = yield ReadExit(check.exit, stage, at)
            assert said is not None
            stage = at
            readings.append(narrow(check, said[0], readings[-1] if readings else prior))
            if check.exit == spec.final_exit or fires(check, readings):
                return readings[-1]
    if until == spec.num_stages:
        said = yield ReadExit(spec.final_exit, stage, until)
        assert said is not None
        before = readings[-1] if readings else prior
        return said[0] if before is None else restrict(said[0], before.ruled_out)
    if until > stage:
        yield RunStages(stage, until)
    return None


def infer_on_edge(
    spec: ModelSpec, split: int, checks: tuple[ExitCheck, ...], prior: Reading | None = None
) -> Generator[RunStages | ReadExit, tuple[Reading, float] | None, Reading]:
    """An edge that has all stages: `infer_behind` up to the final exit."""
    reading = yield from infer_behind(spec, split, checks, [], spec.num_stages, prior)
    assert reading is not None
    return reading


def course_behind(spec: ModelSpec, split: int, until: int) -> tuple[RunStages | ReadExit, ...]:
    """The steps of `infer_behind` without exits to look at: then they do not depend on what is read."""
    steps, course = infer_behind(spec, split, (), [], until), list[RunStages | ReadExit]()
    try:
        course.append(next(steps))
        steps.send((_UNREAD, 0.0))
    except StopIteration:
        return tuple(course)
    raise AssertionError(f"more than one step behind split {split} without exits to look at")


_UNREAD = Reading(0, 0, 0.0, 0.0, 0.0)
