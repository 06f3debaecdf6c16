"""The simulated way from a device to the edge and back, and the device's patience."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

from splitexit.calibration import Rpc, ServiceTimes
from splitexit.decision import EdgeLoad
from splitexit.sense import Sense
from splitexit.sim.calendar import Calendar, Event
from splitexit.sim.job import Job
from splitexit.sim.lane import FOREVER, Lane
from splitexit.sim.task import Task
from splitexit.sim.tier import Tier
from splitexit.steps import NoReply, Reply, Send

Heard = Callable[[Task, Reply | NoReply], None]

UNSEEN = EdgeLoad(0, 0.0)
"""Stands for the edge's load where no policy looks at it."""


class Transport:
    """One device's uplink, downlink and patience.

    Args:
        calendar, edge: the world.
        uplink, downlink: of this device, or shared.
        times, rpc: what every part takes on the edge, and what a call costs.
        sense: told of everything sent and heard; None where the policy looks at nothing of it.
        heard: called once per payload sent, with the reply or for want of it.
    """

    __slots__ = (
        "_alarm_s",
        "_calendar",
        "_due",
        "_env",
        "_heard",
        "_on_alarm",
        "_on_reply",
        "_sense",
        "_sent",
        "_times",
        "downlink",
        "edge",
        "rpc",
        "uplink",
    )

    def __init__(
        self,
        calendar: Calendar,
        edge: Tier,
        uplink: Lane,
        downlink: Lane,
        times: ServiceTimes,
        rpc: Rpc,
        sense: Sense | None,
        heard: Heard,
    ) -> None:
        self._calendar, self._env, self.edge, self.uplink, self.downlink = (
            calendar,
            calendar.env,
            edge,
            uplink,
            downlink,
        )
        self._times, self.rpc, self._sense, self._heard = times, rpc, sense, heard
        # Waiting ends for most requests long before their time is up, so one alarm serves all of them.
        self._due: list[tuple[float, int, Job]] = []
        self._sent = 0
        self._alarm_s = FOREVER
        self._on_alarm, self._on_reply = (self._ring,), (self._replied,)

    def job(self, task: Task, send: Send) -> Job:
        """What the edge would be asked to do for this task, sent at the task's clock."""
        size_bytes = send.payload.size_bytes + self.rpc.uplink_overhead_bytes
        return Job(task, send, self, self._times.at(task.request.number), size_bytes, task.clock_s)

    def send(self, task: Task, send: Send) -> None:
        """The task's payload leaves now."""
        job = self.job(task, send)
        if self._sense is not None:
            self._sense.sent(task.request.number, job.sent_s)
        self._expect(job)
        self.uplink.carry(job.size_bytes, job, self.edge.on_arrival, job.times.rpc_s)

    def reply_leaves(self, job: Job) -> None:
        """An answer, or a refusal for want of room, is at the far end of the downlink."""
        self.downlink.carry(self.rpc.downlink_bytes, job, self._on_reply)

    def reset(self, job: Job) -> None:
        """The connection breaks at the far end; the news get an event of their own: a job that ran has one."""
        self._calendar.put(self._env._now + self.downlink.delay_s, Event(), (lambda _: self._was_reset(job),))

    def _replied(self, job: Job) -> None:
        now_s = self._env._now
        if now_s >= job.give_up_s or not job.awaited:
            return  # too late
        job.awaited = False
        if self._due[0][2] is job:  # mostly so; what stays is forgotten when its time comes
            heappop(self._due)
        elapsed_s = now_s - job.sent_s
        if job.reading is None:
            self._fail(job, NoReply(elapsed_s, job.shed, job.airtime_s))
            return
        if self._sense is None:
            self._heard(job.task, self.reply(job, elapsed_s, UNSEEN))
            return
        load = EdgeLoad(job.queue_length, job.wait_s)
        reply = self.reply(job, elapsed_s, load)
        self._sense.replied(job.task.request.number, job.size_bytes, reply.network_s, load)
        self._heard(job.task, reply)

    @staticmethod
    def reply(job: Job, elapsed_s: float, load: EdgeLoad) -> Reply:
        """A computed job as the device sees it, `elapsed_s` after sending."""
        assert job.reading is not None
        wait_s, compute_s = job.wait_s, job.compute_s
        network_s = elapsed_s - wait_s - compute_s
        return Reply(job.reading, network_s, wait_s, compute_s, load, job.answered_by, job.airtime_s)

    def _was_reset(self, job: Job) -> None:
        if job.give_up_s > self._env._now and job.awaited:
            self._give_up(job, self._env._now - job.sent_s)

    def _expect(self, job: Job) -> None:
        self._sent += 1
        heappush(self._due, (job.give_up_s, self._sent, job))
        if job.give_up_s < self._alarm_s:
            self._set(job.give_up_s)

    def _set(self, time_s: float) -> None:
        self._alarm_s = time_s
        if time_s < FOREVER:
            self._calendar.put(time_s, Event(), self._on_alarm)

    def _ring(self, _: Event) -> None:
        """Time is up for the first of those expected, unless an earlier alarm took this one's place."""
        now_s, due = self._env._now, self._due
        if now_s < self._alarm_s:
            return
        late = []
        while due and (due[0][0] <= now_s or not due[0][2].awaited):
            late.append(heappop(due)[2])
        self._set(due[0][0] if due else FOREVER)
        for job in late:
            if job.awaited:
                self._give_up(job, job.send.timeout_s)  # exactly, so that no rounding leaves time to send again

    def _give_up(self, job: Job, waited_s: float) -> None:
        job.awaited = False
        self._fail(job, NoReply(waited_s, False, job.airtime_s))

    def _fail(self, job: Job, result: NoReply) -> None:
        if self._sense is not None:
            self._sense.given_up(job.task.request.number)
        self._heard(job.task, result)
