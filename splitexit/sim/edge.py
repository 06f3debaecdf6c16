"""The simulated edge: a pool of workers behind one FIFO queue."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from splitexit.sim.calendar import Calendar
from splitexit.sim.job import Job

Back = Callable[[float], None]


class Edge:
    """`workers` servers, each computing one job at a time.

    Args:
        calendar: the run's calendar.
        workers: how many jobs run at once.
    """

    def __init__(self, calendar: Calendar, workers: int) -> None:
        self._calendar, self._free_s = calendar, [0.0] * workers
        self._present = 0

    def start_s(self, arrive_s: float) -> float:
        """When a job arriving then would start, as things stand."""
        return max(arrive_s, self._free_s[0])

    def submit(self, job: Job, back: Back, arrive_s: float) -> None:
        """A job arrives now; `back` is called with the time at which its reply leaves."""
        start_s = self.start_s(arrive_s)
        if start_s >= job.give_up_s:
            return  # nobody waits any more when its turn comes: it is dropped unseen
        self._present += 1
        job.wait_s = start_s - arrive_s
        job.compute(start_s)
        done_s = start_s + job.compute_s
        heapq.heapreplace(self._free_s, done_s)
        self._calendar.at(done_s, self._done, (job, back, done_s))

    def _done(self, finished: tuple[Job, Back, float]) -> None:
        job, back, done_s = finished
        self._present -= 1
        job.queue_length = self._present
        if job.reading is not None:
            back(done_s)
