"""SimPy's calendar, used through callbacks.

A process per request costs five times as much as a callback per event, for the same times. What happens to
a request is always one thing after another, so the objects themselves are the events and are used again.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush
from typing import Any

import simpy

Handlers = tuple[Callable[[Any], None]]
"""What is called with the event when its time comes; a tuple, made once, because SimPy goes through it."""

NORMAL = 1


class Event:
    """Something that can stand in the calendar, at one time after another."""

    __slots__ = ("callbacks",)
    _ok = True  # SimPy asks whether an event has failed; ours raise where they happen
    callbacks: Any


class Calendar:
    """Calls handlers at given times; equal times in the order in which they were put in.

    env  SimPy's environment. What reads the time often reads `env._now`: `env.now` is a property, and asking it ten
         times for every request would take a tenth of a run.
    """

    def __init__(self) -> None:
        self.env = simpy.Environment()
        # SimPy's heap is filled directly: schedule() takes a delay, and now + (t - now) is not always t.
        self._queue: list[Any] = self.env._queue
        self._next = self.env._eid.__next__

    def put(self, time_s: float, event: Event, handlers: Handlers) -> None:
        """Calls handlers(event) at `time_s`, which is not in the past and finite."""
        event.callbacks = handlers
        heappush(self._queue, (time_s, NORMAL, self._next(), event))

    def run(self) -> None:
        """Works through the calendar until it is empty."""
        self.env.run()
