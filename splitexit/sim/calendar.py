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

URGENT, NORMAL = 0, 1
MANY = 1024
SLOTS_PER_S = 256.0  # a power of two, so that no rounding puts an event into a slot that begins after it


class Event:
    """Something that can stand in the calendar, at one time after another."""

    __slots__ = ("callbacks",)
    _ok = True  # SimPy asks whether an event has failed; ours raise where they happen
    callbacks: Any


class Due(Event):
    """A slot of time begins."""

    __slots__ = ("slot",)

    def __init__(self, slot: int) -> None:
        self.slot = slot


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
        self._near_s = 0.0
        self._later: dict[int, list[Any]] = {}
        self._on_due = (self._bring,)

    def put(self, time_s: float, event: Event, handlers: Handlers) -> None:
        """Calls handlers(event) at `time_s`, which is not in the past and finite."""
        event.callbacks = handlers
        queue, entry = self._queue, (time_s, NORMAL, self._next(), event)
        if time_s < self._near_s or len(queue) < MANY:
            heappush(queue, entry)
        else:
            self._put_later(entry)

    def _put_later(self, entry: tuple[float, int, int, Event]) -> None:
        """Keeps it with the others of its slot until that begins: ten thousand devices would make the heap deep."""
        slot = int(entry[0] * SLOTS_PER_S)
        waiting = self._later.get(slot)
        if waiting is not None:
            waiting.append(entry)
        elif slot / SLOTS_PER_S <= self.env._now:
            heappush(self._queue, entry)
        else:
            self._later[slot] = [entry]
            due = Due(slot)
            due.callbacks = self._on_due
            heappush(self._queue, (slot / SLOTS_PER_S, URGENT, self._next(), due))

    def _bring(self, due: Due) -> None:
        """A slot begins: what waits for it goes into the heap, in its order."""
        self._near_s = (due.slot + 1) / SLOTS_PER_S
        for entry in self._later.pop(due.slot):
            heappush(self._queue, entry)

    def step(self) -> bool:
        """Handles the next event; False where there is none."""
        if not self._queue:
            return False
        self.env.step()
        return True

    def run(self) -> None:
        """Works through the calendar until it is empty."""
        self.env.run()
