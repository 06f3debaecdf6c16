"""What would really happen: the truth that the oracle asks for.

A plan is tried out by driving the same `infer` generator as everything else, with a world that looks
ahead: the links are asked without being used, the edge is taken as it stands.
"""

from __future__ import annotations

from typing import Any

from splitexit.decision import Observation, Plan, Setting
from splitexit.inference import Answer, Decider, infer
from splitexit.policies import Policy
from splitexit.sim.job import Job
from splitexit.sim.task import Task
from splitexit.sim.transport import UNSEEN, Transport
from splitexit.steps import NoReply, Reply, Send


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
