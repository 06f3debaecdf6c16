"""What would really happen: the truth that the oracle asks for.

A plan is tried out by driving the same `infer` generator as everything else, with a world that looks
ahead: the links are asked without being used, the edge is taken as it stands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from splitexit.bundle import ModelSpec
from splitexit.decision import Observation, Plan, Reading, Setting
from splitexit.inference import Answer, Decider, infer
from splitexit.policies import Policy
from splitexit.sim.job import Job
from splitexit.sim.task import Task
from splitexit.sim.transport import UNSEEN, Transport
from splitexit.steps import NoReply, Reply, Send

ROUNDING = 1e-9
"""What the bound on a utility may be off by, because its seconds are added in another order."""


class _Given(Policy):
    """Carries out one plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def decide(self, observation: Observation) -> Plan:
        return self._plan


class _Chance(NamedTuple):
    """What the plan of that number in a list can achieve at most, with the last exit that it reads.

    right  whether one of the answers that it can come to is
    """

    at_most: float
    last: int
    number: int
    right: bool


def _most_first(chance: _Chance) -> tuple[float, int, int]:
    return (-chance.at_most, chance.last, chance.number)


def _last_exit(plan: Plan, spec: ModelSpec) -> int:
    checks = plan.exits if plan.split is None else plan.edge_exits
    return checks[-1].exit if checks else spec.final_exit


class LookAhead:
    """The truth about one request at the moment of its decision (implements splitexit.decision.Truth)."""

    def __init__(self, setting: Setting, transport: Transport, task: Task) -> None:
        self._setting, self._transport, self._task = setting, transport, task

    def utility(self, plan: Plan) -> float:
        """Utility of carrying out `plan` in the present state, if no other request came in between."""
        return self._tried(plan)[0]

    def _tried(self, plan: Plan) -> tuple[float, float]:
        """Its utility, and when it would be done."""
        task, request = self._task, self._task.request
        begun_s, times = task.clock_s, task.times
        try:
            answer = self._try(plan)
            done_s = task.clock_s
        finally:
            task.clock_s, task.times = begun_s, times
        assert answer.reading is not None
        correct = answer.reading.prediction == request.label
        return self._worth(correct, done_s, done_s <= request.deadline_at_s), done_s

    def _worth(self, correct: bool, done_s: float, in_time: bool = True) -> float:
        return self._setting.utility.of(correct, done_s - self._task.request.arrival_s, in_time)

    def says(self, exit_: int) -> Reading:
        """What this exit says of the request's sample on the device."""
        return self._task.part.readings(exit_)[self._task.position]

    def best(self, plans: Sequence[Plan]) -> tuple[Plan, float]:
        """Of plans such as `splitexit.policies.oracle.candidates` makes, the first with the highest utility, and that.

        What cannot be better than another is not tried out: because of its part on the device, or because of what was
        sent alike comes back no sooner from a later exit.
        """
        chances = sorted((self._chance(number, plan) for number, plan in enumerate(plans)), key=_most_first)
        back: dict[tuple[Any, ...], tuple[int, float]] = {}  # of what was sent so: the exit that answered, and when
        best, place = -math.inf, 0
        for at_most, last, number, right in chances:
            if at_most < best - ROUNDING:
                break
            plan = plans[number]
            sent = None if plan.split is None else (plan.split, plan.codec, plan.mode)
            sooner, back_s = back.get(sent, (last, -math.inf)) if sent else (last, -math.inf)
            if sooner < last and self._worth(right, back_s) < best - ROUNDING:
                continue
            worth, done_s = self._tried(plan)
            if sent and sooner >= last:
                back[sent] = last, done_s
            if worth > best or (worth == best and number < place):
                best, place = worth, number
        return plans[place], best

    def _chance(self, number: int, plan: Plan) -> _Chance:
        """Everything behind the device taken to need no time, and the answer to come before the deadline."""
        task, spec, last = self._task, self._setting.spec, _last_exit(plan, self._setting.spec)
        part, position, times, label = task.part, task.position, task.times_in(plan.mode), task.request.label
        if plan.split is None or plan.codec is None:
            answers = [part.readings(last)[position]]
            device_s = times.run_s(0, spec.exit_stages[last])
        else:
            alone = part.readings(spec.next_exit(plan.split))[position]
            answers = [part.edge_readings(plan.split, plan.codec, last)[position], alone]
            device_s = times.encode_s((plan.split, plan.codec))
            device_s += times.run_s(0, plan.split) if plan.split else 0.0
        right = any(reading.prediction == label for reading in answers)
        return _Chance(self._worth(right, task.clock_s + device_s), last, number, right)

    def _try(self, plan: Plan) -> Answer:
        steps = infer(Decider(_Given(plan), self._setting), self._task.request.deadline_at_s)
        value: Any = None
        try:
            while True:
                step = steps.send(value)
                value = self._send(step) if isinstance(step, Send) else self._task.compute(step)
        except StopIteration as done:
            answer: Answer = done.value
            return answer

    def _send(self, send: Send) -> Reply | NoReply:
        task, transport = self._task, self._transport
        sent_s, job = task.clock_s, transport.job(task, send)
        arrive_s = transport.uplink.peek(sent_s, job.size_bytes, task.request.device) + job.times.rpc_s
        lost = transport.edge.down
        back_s = arrive_s + transport.downlink.delay_s if lost else self._back_s(job, arrive_s)
        refused = lost or job.shed
        if back_s >= job.give_up_s or (job.reading is None and not refused):
            task.clock_s = job.give_up_s
            return NoReply(send.timeout_s)
        task.clock_s = back_s
        if refused:
            return NoReply(back_s - sent_s, job.shed)
        return transport.reply(job, back_s - sent_s, UNSEEN)

    def _back_s(self, job: Job, arrive_s: float) -> float:
        """When the reply or refusal would be here; neither job.reading nor job.shed is set where there is none."""
        done_s = self._transport.edge.expect(job, arrive_s)
        reply_bytes = self._transport.rpc.downlink_bytes
        return self._transport.downlink.peek(done_s, reply_bytes, self._task.request.device)
