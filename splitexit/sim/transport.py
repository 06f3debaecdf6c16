"""The simulated way from a device to the edge and back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from splitexit.decision import EdgeLoad
from splitexit.experiment import Experiment
from splitexit.inference import NoReply, Reply, Send
from splitexit.sense import Sense
from splitexit.sim.calendar import Calendar
from splitexit.sim.edge import Edge
from splitexit.sim.job import Job
from splitexit.sim.task import Task

Heard = Callable[[Task, Reply | NoReply, float], None]


class Transport:
    """One device's uplink, downlink and patience.

    Args:
        calendar, edge: the world.
        experiment, seed, device: where the links and the edge's times come from.
        sense: told of everything sent and heard.
    """

    def __init__(
        self, calendar: Calendar, edge: Edge, experiment: Experiment, seed: int, device: int, sense: Sense
    ) -> None:
        self._calendar, self.edge, self._sense = calendar, edge, sense
        self._spec, self._part = experiment.spec, experiment.recording.test
        self.uplink, self.downlink = experiment.uplink(seed, device), experiment.downlink(seed, device)
        self._times = experiment.edge_times(seed, device)
        self.rpc = experiment.edge_calibration.rpc
        self._awaited: dict[int, Job] = {}

    def job(self, task: Task, send: Send) -> Job:
        """What the edge would be asked to do for this task, sent at the task's clock."""
        times = self._times.at(task.request.number)
        give_up_s = task.clock_s + send.timeout_s
        return Job(self._spec, self._part, task.position, send.split, send.codec, send.edge_exits, times, give_up_s)

    def uplink_bytes(self, send: Send) -> int:
        """Bytes on the wire."""
        return send.payload.size_bytes + self.rpc.uplink_overhead_bytes

    def send(self, task: Task, heard: Heard) -> None:
        """The task's payload leaves now; `heard` is called once, with the reply or for want of it."""
        send = task.step
        assert isinstance(send, Send)
        sent_s, number = task.clock_s, task.request.number
        self._sense.sent(number, sent_s)
        job = self._awaited[number] = self.job(task, send)
        arrive_s = self.uplink.send(sent_s, self.uplink_bytes(send))[2] + job.times.rpc_s
        # A payload that arrives after the device has given up is refused on sight.
        if arrive_s < job.give_up_s:
            back = partial(self._reply_leaves, task, send, sent_s, job, heard)
            self._calendar.at(arrive_s, partial(self.edge.submit, job, back), arrive_s)
        self._calendar.at(job.give_up_s, partial(self._give_up, heard, job.give_up_s - sent_s), task)

    def _reply_leaves(self, task: Task, send: Send, sent_s: float, job: Job, heard: Heard, now_s: float) -> None:
        arrive_s = self.downlink.send(now_s, self.rpc.downlink_bytes)[2]
        self._calendar.at(arrive_s, partial(self._replied, task, send, sent_s, job, heard), arrive_s)

    def _replied(self, task: Task, send: Send, sent_s: float, job: Job, heard: Heard, now_s: float) -> None:
        number = task.request.number
        if self._awaited.pop(number, None) is None:
            return  # too late
        reply = self.reply(job, now_s - sent_s)
        self._sense.replied(number, self.uplink_bytes(send), reply.network_s, reply.load)
        heard(task, reply, now_s)

    @staticmethod
    def reply(job: Job, elapsed_s: float) -> Reply:
        """A computed job as the device sees it, `elapsed_s` after sending."""
        assert job.reading is not None
        network_s = elapsed_s - job.wait_s - job.compute_s
        return Reply(job.reading, network_s, job.wait_s, job.compute_s, EdgeLoad(job.queue_length, job.wait_s))

    def _give_up(self, heard: Heard, timeout_s: float, task: Task) -> None:
        job = self._awaited.pop(task.request.number, None)
        if job is None:
            return  # it was answered
        self._sense.given_up(task.request.number)
        heard(task, NoReply(timeout_s), job.give_up_s)
