"""The threads of an edge's requests, which take turns at computing.

A request's thread brings its job and stays until that is over. The thread of a batch's first job leads: it runs every
pass, for all jobs of the batch. When its own job is over it leaves with the reply, and the thread of another job leads
on. So a request that is computed alone never changes threads, and nobody's reply waits for the rest of a batch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from splitexit.batching import Line
from splitexit.live.model import LiveModel
from splitexit.live.pace import Pace
from splitexit.live.wire import Refused, Status
from splitexit.live.work import EdgeJob, TorchWorker
from splitexit.scenario.sections import Batching

ALONE = Batching(max_size=1)
"""Without batching."""


class Crew:
    """Computes jobs: a few batches at once, the others in line (splitexit.batching.Line).

    Args:
        model: with the codecs on offer.
        workers: batches at once, each on one thread.
        queue: jobs that may wait; None for any number.
        batching: who is computed together.
        pace: start on time.monotonic() -> the time of a batch that starts then.
    """

    def __init__(
        self, model: LiveModel, workers: int, queue: int | None, batching: Batching, pace: Callable[[float], Pace]
    ) -> None:
        self._model, self._queue, self._pace, self._patience_s = model, queue, pace, batching.max_wait_s
        self._line: Line[EdgeJob] = Line(
            workers, queue, batching.max_size, batching.max_wait_s, self._start, lambda due_s: None
        )
        self._lock, self._running = threading.Lock(), 0

    @property
    def present(self) -> int:
        """How many jobs wait or run."""
        with self._lock:
            return self._running + self._line.length(time.monotonic())

    def serve(self, job: EdgeJob) -> None:
        """Returns when the job has its reading; raises Refused where it gets none."""
        self._arrive(job)
        self._wait_in_line(job)
        while not job.over:
            job.turn.wait()
            job.turn.clear()
            if not job.over:
                self._lead(job)
        if job.error is not None:
            raise job.error

    def _arrive(self, job: EdgeJob) -> None:
        if job.give_up_s <= time.monotonic():
            raise Refused(Status.DEADLINE_EXCEEDED, "nobody waits any more")
        with self._lock:
            if not self._line.arrive(job, job.arrive_s):
                raise Refused(Status.RESOURCE_EXHAUSTED, f"shed: {self._queue} requests are waiting already")

    def _wait_in_line(self, job: EdgeJob) -> None:
        """Until the job is in a batch; the thread of the oldest rings the alarm for those that wait for company."""
        for until_s in (min(job.arrive_s + self._patience_s, job.give_up_s), job.give_up_s):
            if job.worker is not None or job.turn.wait(min(until_s - time.monotonic(), threading.TIMEOUT_MAX)):
                return
            with self._lock:
                if job.worker is None:
                    self._line.dispatch(until_s)
        with self._lock:
            if job.worker is None:
                if job in self._line.waiting:
                    self._line.waiting.remove(job)
                raise Refused(Status.DEADLINE_EXCEEDED, "no worker was free in time")

    def _start(self, jobs: list[EdgeJob], now_s: float) -> None:
        """Called by the line, under the lock."""
        start_s = max(
            now_s, *(job.arrive_s for job in jobs)
        )  # some come while a thread wakes up to say that it is free
        worker = TorchWorker(self._model, jobs, self._pace(start_s), self._left)
        for job in jobs:
            job.worker = worker
        self._running += len(jobs)
        jobs[0].turn.set()

    def _lead(self, job: EdgeJob) -> None:
        """Computes the job's batch, at least until the job is over."""
        worker = job.worker
        assert worker is not None
        try:
            for _ in worker.course:
                if job.over and worker.batch.left:
                    next(iter(worker.batch.left)).turn.set()
                    return
        except Exception as error:  # every one of them has to be told
            for other in worker.jobs:
                if not other.over:
                    other.error = error
                    self._left(other)
        with self._lock:
            self._line.free(worker.pace.now_s)

    def _left(self, job: EdgeJob) -> None:
        with self._lock:
            self._running -= 1
            job.queue_length = self._running + self._line.length(time.monotonic())
        job.over = True
        job.turn.set()
