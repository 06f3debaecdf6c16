"""Time on a live device: one clock, and what happens at which time.

A `Timeline` calls functions at given seconds on its clock. Replies arrive from gRPC's threads, but every
function runs in the one thread that steps the timeline, in the order of time. The same device runs on
`WallTimeline`, where waiting takes time, and on `VirtualTimeline`, where it does not.
"""

from __future__ import annotations

import ctypes
import heapq
import math
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from itertools import count

Act = Callable[[float], None]
"""Called with the time it was posted for."""

SPIN_S = 1.5e-4
"""A sleep ends up to this much too late, with the kernel's timer slack off; the rest is spun away."""

_PR_SET_TIMERSLACK = 29  # linux/prctl.h; per thread, in ns, 50 000 by default
_this_thread = threading.local()


def be_punctual() -> None:
    """Turns the kernel's timer slack off for this thread: sleeps then end some 30 µs late instead of 90.

    Does nothing elsewhere than on Linux.
    """
    if getattr(_this_thread, "punctual", False):
        return
    _this_thread.punctual = True
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


def sleep_until(due_s: float) -> None:
    """Returns at `due_s` on time.monotonic(), a few microseconds late: sleeps, then spins."""
    be_punctual()
    left_s = due_s - time.monotonic()
    if left_s > SPIN_S:
        time.sleep(left_s - SPIN_S)
    while time.monotonic() < due_s:
        time.sleep(0)  # lets other threads of this process run


class Timeline(ABC):
    """Seconds since the run began, and the functions still to be called."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Act]] = []
        self._number = count()

    @abstractmethod
    def now(self) -> float:
        """Seconds since the run began."""

    @abstractmethod
    def step(self, until_s: float) -> bool:
        """Calls the next function that is due by `until_s` and returns True, or reaches `until_s`: False."""

    def post(self, at_s: float, act: Act) -> None:
        """Has `act(at_s)` called at that time, or as soon as possible after it."""
        heapq.heappush(self._due, (at_s, next(self._number), act))

    def _next_s(self) -> float:
        return self._due[0][0] if self._due else math.inf

    def _act(self) -> None:
        at_s, _, act = heapq.heappop(self._due)
        act(at_s)


class VirtualTimeline(Timeline):
    """Jumps from event to event."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0

    def now(self) -> float:
        return self._now_s

    def step(self, until_s: float) -> bool:
        reached_s = min(until_s, self._next_s())
        if reached_s == math.inf:
            raise RuntimeError("waiting for something that nobody will do")
        self._now_s = max(self._now_s, reached_s)
        if self._next_s() > until_s:
            return False
        self._act()
        return True


class WallTimeline(Timeline):
    """The monotonic clock of this machine. `post` may be called from any thread."""

    def __init__(self) -> None:
        super().__init__()
        self._inbox: queue.SimpleQueue[tuple[float, Act]] = queue.SimpleQueue()
        self.begin()

    def begin(self, origin_s: float | None = None) -> None:
        """Time zero is `origin_s` on time.monotonic(), which all processes of a machine share; by default now."""
        self._origin_s = time.monotonic() if origin_s is None else origin_s

    def now(self) -> float:
        return time.monotonic() - self._origin_s

    def post(self, at_s: float, act: Act) -> None:
        self._inbox.put((at_s, act))

    def step(self, until_s: float) -> bool:
        be_punctual()
        while True:
            while not self._inbox.empty():
                super().post(*self._inbox.get())
            left_s = min(until_s, self._next_s()) - self.now()
            if left_s <= 0:
                break
            self._wait(left_s)
        if self._next_s() > until_s:
            return False
        self._act()
        return True

    def _wait(self, left_s: float) -> None:
        """Until something is posted, `left_s` has passed, or shortly before."""
        if left_s <= SPIN_S:
            time.sleep(0)
            return
        with suppress(queue.Empty):
            super().post(*self._inbox.get(timeout=min(left_s - SPIN_S, 3600.0)))
