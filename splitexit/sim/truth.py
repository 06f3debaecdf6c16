"""What would really happen: the truth that the oracle asks for.

A plan is tried out by driving the same `infer` generator as everything else, with a world that looks
ahead: the links are asked without being used, the edge is taken as it stands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

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


class LookAhead:
    """The truth about one request at the moment of its decision (implements splitexit.decision.Truth)."""

    def __init__(self, setting: Setting, transport: Transport, task: Task) -> None:
        self._setting, self._transport, self._task = setting, transport, task

    def utility(self, plan: Plan) -> float:
        """Utility of carrying out `plan` in the present state, if no other request came in between."""
        task, request = self._task, self._task.request
        begun_s = task.clock_s
        try:
            answer = self._try(plan)
            done_s = task.clock_s
        finally:
            task.clock_s = begun_s
        assert answer.reading is not None
        correct = answer.reading.prediction == request.label
        return self._setting.utility.of(correct, done_s - request.arrival_s, done_s <= request.deadline_at_s)

    def says(self, exit_: int) -> Reading:
        """What this exit says of the request's sample on the device."""
        return self._task.part.readings(exit_)[self._task.position]

    def best(self, plans: Sequence[Plan]) -> tuple[Plan, float]:
        """Of plans such as `splitexit.policies.oracle.candidates` makes, the first with the highest utility, and that.

        What cannot be better than another, because of its part on the device alone, is not tried out.
        """
        at_most = [self._at_most(plan) for plan in plans]
        best, place = -math.inf, 0
        for number in sorted(range(len(plans)), key=at_most.__getitem__, reverse=True):
            if at_most[number] < best - ROUNDING:
                break
            worth = self.utility(plans[number])
            if worth > best or (worth == best and number < place):
                best, place = worth, number
        return plans[place], best

    def _at_most(self, plan: Plan) -> float:
        """A utility that the plan cannot exceed: everything behind the device takes no time, and it is in time."""
        task, spec = self._task, self._setting.spec
        part, position, times, request = task.part, task.position, task.times, task.request
        if plan.split is None or plan.codec is None:
            last = plan.exits[-1].exit if plan.exits else spec.final_exit
            answers = [part.readings(last)[position]]
            device_s = times.run_s(0, spec.exit_stages[last])
        else:
            last = plan.edge_exits[-1].exit if plan.edge_exits else spec.final_exit
            alone = part.readings(spec.next_exit(plan.split))[position]
            answers = [part.edge_readings(plan.split, plan.codec, last)[position], alone]
            device_s = times.encode_s((plan.split, plan.codec))
            device_s += times.run_s(0, plan.split) if plan.split else 0.0
        right = any(reading.prediction == request.label for reading in answers)
        return self._setting.utility.of(right, task.clock_s + device_s - request.arrival_s, True)

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
