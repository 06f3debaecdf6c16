"""One simulated server: workers behind one queue, first come, first served."""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING

from splitexit.sim.calendar import Calendar
from splitexit.sim.job import Job

if TYPE_CHECKING:
    from splitexit.sim.tier import Tier


class Server:
    """`workers` that compute one job at a time each.

    Args:
        calendar: the run's calendar.
        tier: whose server it is; told of what becomes of a job.
        workers: how many jobs run at once.
        room: how many may wait; None for any number.

    down   how many failures it suffers from at present
    """

    def __init__(self, calendar: Calendar, tier: Tier, workers: int, room: int | None) -> None:
        self._calendar, self._env, self._tier, self._idle, self._room = calendar, calendar.env, tier, workers, room
        self._waiting: deque[Job] = deque()
        self._running: dict[Job, float] = {}
        self._on_done = (self._done,)
        self.down = 0

    @property
    def present(self) -> int:
        """Jobs waiting or running; those that nobody waits for any more leave the head of the queue."""
        waiting, now_s = self._waiting, self._env._now
        while waiting and waiting[0].give_up_s <= now_s:
            waiting.popleft()
        return len(waiting) + len(self._running)

    def arrive(self, job: Job) -> None:
        """A job arrives now, while its device waits."""
        if self._idle:
            self._start(job)
        elif self._room is not None and self.present - len(self._running) >= self._room:
            self._tier.shed(job)
        else:
            self._waiting.append(job)

    def _start(self, job: Job) -> None:
        self._idle -= 1
        now_s = self._env._now
        job.wait_s += now_s - job.arrive_s
        self._running[job] = done_s = job.compute(self._tier, now_s)
        self._calendar.put(done_s, job, self._on_done)

    def _done(self, job: Job) -> None:
        if self._running.pop(job, None) is None:
            return  # it was lost when the server failed
        self._idle += 1
        job.queue_length = self.present
        if self._waiting:
            self._start(self._waiting.popleft())
        self._tier.done(job)

    def fail(self) -> list[Job]:
        """Breaks down; returns the jobs that are lost."""
        lost = [*self._running, *self._waiting]
        self._idle += len(self._running)
        self._running.clear()
        self._waiting.clear()
        self.down += 1
        return lost

    def recover(self) -> None:
        """One failure less; works again after the last, with nothing to do."""
        self.down -= 1

    def start_s(self, arrive_s: float) -> float | None:
        """When a job arriving then would start, as things stand; None if it would be refused for want of room."""
        free_s = [0.0] * self._idle + list(self._running.values())
        heapq.heapify(free_s)
        ahead = 0
        for job in self._waiting:
            start_s = free_s[0]
            if start_s < job.give_up_s:
                ahead += start_s > arrive_s
                heapq.heapreplace(free_s, job.expected_done_s(self._tier, start_s))
        full = self._room is not None and free_s[0] > arrive_s and ahead >= self._room
        return None if full else max(arrive_s, free_s[0])
