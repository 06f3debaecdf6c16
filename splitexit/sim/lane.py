"""Links in the simulated world: they take a job from one place to the next."""

from __future__ import annotations

from typing import Protocol

from splitexit.links import Fifo
from splitexit.links.sharing import Sharing
from splitexit.sim.calendar import Calendar, Event, Handlers
from splitexit.sim.job import Job


class Lane(Protocol):
    """One direction of a link, of one device or shared by many."""

    delay_s: float

    def carry(self, size_bytes: int, job: Job, handlers: Handlers, extra_s: float = 0.0) -> None:
        """Takes a message from now on; `handlers` get the job `extra_s` after it has arrived."""

    def peek(self, now_s: float, size_bytes: int, sender: int) -> float:
        """When a message that is offered then would arrive, as things stand."""


class FifoLane:
    """First come, first served.

    Args:
        calendar, fifo: the run's calendar, and the link with its queue.
        radio: whether devices send on it, so that the time on air counts.
        shared: whether several do, each over a connection of its own.
    """

    __slots__ = ("_calendar", "_env", "_fifo", "_radio", "_shared", "delay_s")

    def __init__(self, calendar: Calendar, fifo: Fifo, *, radio: bool = False, shared: bool = False) -> None:
        self._calendar, self._fifo, self._radio, self._shared = calendar, fifo, radio, shared
        self._env = calendar.env
        self.delay_s = fifo.link.delay_s

    def carry(self, size_bytes: int, job: Job, handlers: Handlers, extra_s: float = 0.0) -> None:
        """Takes a message from now on; `handlers` get the job `extra_s` after it has arrived."""
        sender = job.task.request.device if self._shared else None
        start_s, sent_s, arrive_s = self._fifo.send(self._env._now, size_bytes, sender)
        if self._radio:
            job.airtime_s = sent_s - start_s if sent_s < FOREVER else max(0.0, job.give_up_s - start_s)
        if arrive_s < FOREVER:
            self._calendar.put(arrive_s + extra_s, job, handlers)

    def peek(self, now_s: float, size_bytes: int, sender: int) -> float:
        """When a message that is offered then would arrive, as things stand."""
        return self._fifo.peek(now_s, size_bytes, sender if self._shared else None)[2]


class SharedLane:
    """Processor sharing among the devices of an access point. Args as above."""

    def __init__(self, calendar: Calendar, sharing: Sharing, *, radio: bool = False) -> None:
        self._calendar, self._env, self._sharing, self._radio = calendar, calendar.env, sharing, radio
        self.delay_s = sharing.link.delay_s
        self._alarm_s = FOREVER
        self._on_alarm = (self._ring,)

    def carry(self, size_bytes: int, job: Job, handlers: Handlers, extra_s: float = 0.0) -> None:
        """Takes a message from now on; `handlers` get the job `extra_s` after it has arrived."""
        now_s = self._env._now
        if self._radio:
            job.airtime_s = job.give_up_s - now_s  # unless it is through before
        self._deliver(now_s)
        self._sharing.offer(now_s, size_bytes, (job, handlers, extra_s), job.task.request.device)
        self._arm()

    def _arm(self) -> None:
        """Sets an alarm for the next delivery, unless an earlier one is set: that will set it."""
        due_s = self._sharing.next_s()
        if due_s < self._alarm_s:
            self._alarm_s = due_s
            self._calendar.put(due_s, Event(), self._on_alarm)

    def _ring(self, _: Event) -> None:
        now_s = self._env._now
        if now_s == self._alarm_s:  # otherwise an earlier alarm has taken this one's place
            self._alarm_s = FOREVER
            self._deliver(now_s)
            self._arm()

    def _deliver(self, now_s: float) -> None:
        while self._sharing.next_s() <= now_s:
            (job, handlers, extra_s), start_s, sent_s, arrive_s = self._sharing.take()
            if self._radio:
                job.airtime_s = sent_s - start_s
            if arrive_s < FOREVER:
                self._calendar.put(arrive_s + extra_s, job, handlers)

    def peek(self, now_s: float, size_bytes: int, sender: int) -> float:
        """When a message that is offered then would arrive if no other came."""
        return self._sharing.peek(now_s, size_bytes, sender)[2]


FOREVER = float("inf")
