"""Links in the simulated world: they take a job from one place to the next."""

from __future__ import annotations

from typing import Protocol

from splitexit.links import Fifo
from splitexit.sim.calendar import Calendar, Handlers
from splitexit.sim.job import Job


class Lane(Protocol):
    """One direction of a link, of one device or shared by many."""

    delay_s: float

    def carry(self, size_bytes: int, job: Job, handlers: Handlers, extra_s: float = 0.0) -> None:
        """Takes a message from now on; `handlers` get the job `extra_s` after it has arrived."""

    def peek(self, now_s: float, size_bytes: int) -> float:
        """When a message that is offered then would arrive, as things stand."""


class FifoLane:
    """First come, first served.

    Args:
        calendar, fifo: the run's calendar, and the link with its queue.
        radio: whether a device's radio sends on it, so that the time on air counts.
    """

    __slots__ = ("_calendar", "_fifo", "_radio", "delay_s")

    def __init__(self, calendar: Calendar, fifo: Fifo, radio: bool) -> None:
        self._calendar, self._fifo, self._radio, self.delay_s = calendar, fifo, radio, fifo.link.delay_s

    def carry(self, size_bytes: int, job: Job, handlers: Handlers, extra_s: float = 0.0) -> None:
        """Takes a message from now on; `handlers` get the job `extra_s` after it has arrived."""
        calendar = self._calendar
        start_s, sent_s, arrive_s = self._fifo.send(calendar.now, size_bytes)
        if self._radio:
            job.airtime_s = sent_s - start_s
        if arrive_s < FOREVER:
            calendar.put(arrive_s + extra_s, job, handlers)

    def peek(self, now_s: float, size_bytes: int) -> float:
        """When a message that is offered then would arrive, as things stand."""
        return self._fifo.peek(now_s, size_bytes)[2]


FOREVER = float("inf")
