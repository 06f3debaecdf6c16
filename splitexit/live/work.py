"""Requests at the edge, and what computes them with torch: one of them, or several together."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from splitexit.batching import Batch
from splitexit.calibration import Times
from splitexit.decision import Reading
from splitexit.errors import PayloadError, UnknownReferenceError
from splitexit.inference import Course, infer_behind
from splitexit.live.model import Array, LiveModel
from splitexit.live.pace import Pace
from splitexit.live.wire import Query, Refused, Status

Wanted = Callable[[], bool]
"""Whether anybody still waits for the answer."""


def prior_of(query: Query) -> Reading | None:
    """What a request tells of its device's last reading."""
    if not query.ruled_out and not query.evidence:
        return None
    evidence = np.array(query.evidence, np.float32) if query.evidence else None
    exit_ = query.exits[0].exit - 1 if query.evidence else 0
    return Reading(exit_, 0, math.nan, math.nan, math.nan, evidence, ruled_out=query.ruled_out)


class EdgeJob:
    """One request, and what came of it; times on time.monotonic().

    Args:
        query: a sound one.
        arrive_s: when it came.
        give_up_s: when its device stops waiting; nothing is begun for it after that.
        active: whether its call still stands.
        times: what every part is to take; None on a native edge.

    features         as far as they have come
    start_s, end_s   when work on it began, together with others or alone, and when it was over
    parts_s          what every part of that took
    prior, readings  what the device's last exit said (see Send.prior), and what exits here have said
    queue_length     others that waited or were worked on when it was over
    reading, error   what came of it
    worker           what computes it, once that has begun
    over             whether nothing more happens to it
    turn             set when its thread has something to do: to compute, or to answer
    """

    features: Array
    reading: Reading
    start_s: float
    end_s: float

    def __init__(
        self, query: Query, arrive_s: float, give_up_s: float, active: Wanted, times: Times | None = None
    ) -> None:
        self.query, self.split = query, query.split
        self.arrive_s, self.give_up_s, self.active, self.times = arrive_s, give_up_s, active, times
        self.parts_s: list[float] = []
        self.prior, self.readings = prior_of(query), list[Reading]()
        self.queue_length = 0
        self.error: Exception | None = None
        self.worker: TorchWorker | None = None
        self.over = False
        self.turn = threading.Event()

    @property
    def before(self) -> Reading | None:
        """The last reading so far, of the device or here."""
        return self.readings[-1] if self.readings else self.prior

    def drawn(self, part: Callable[[Times], float]) -> float:
        """What a part is to take."""
        assert self.times is not None, "a native edge draws no times"
        return part(self.times)


class TorchWorker:
    """Computes a batch (see splitexit.batching.Worker).

    Args:
        model: with the codecs on offer.
        jobs: of one split.
        pace: how long that takes.
        left: called with every job that is over.

    batch   the jobs on their way
    course  its passes, one after the other
    """

    def __init__(
        self, model: LiveModel, jobs: Sequence[EdgeJob], pace: Pace, left: Callable[[EdgeJob], None] = lambda job: None
    ) -> None:
        self._model, self.jobs, self.pace, self._left = model, jobs, pace, left
        self.batch = Batch(self, jobs, jobs[0].split, model.spec.num_stages)
        self.course = self._run()

    def _run(self) -> Iterator[None]:
        self.pace.begin()
        for job in self.jobs:
            job.start_s = self.pace.now_s
        yield from self.batch.run()

    def steps(self, job: EdgeJob) -> Course:
        """What follows its split, up to the final exit."""
        spec = self._model.spec
        return infer_behind(spec, job.split, job.query.exits, job.readings, spec.num_stages, job.prior)

    def wants(self, job: EdgeJob) -> bool:
        """Whether its device still waits, its call stands and its payload is one."""
        return job.error is None and self.pace.now_s < job.give_up_s and job.active()

    def decode(self, job: EdgeJob) -> None:
        """Its features; a payload that is none refuses this job alone."""
        pair = (job.split, job.query.codec)
        if self.wants(job):
            try:
                job.features = self._model.decode(pair, job.query.device, job.query.payload)
            except PayloadError as error:
                unknown = isinstance(error, UnknownReferenceError)
                job.error = Refused(Status.NOT_FOUND if unknown else Status.INVALID_ARGUMENT, str(error))
        self._did([job], lambda times: times.decode_s(pair))

    def run_stage(self, jobs: Sequence[EdgeJob], stage: int) -> None:
        """One pass for all."""
        out = self._model.run_together([job.features for job in jobs], stage)
        for job, features in zip(jobs, out, strict=True):
            job.features = features
        self._did(jobs, lambda times: times.stages[stage])

    def read_exit(self, jobs: Sequence[EdgeJob], exit_: int) -> Sequence[Reading]:
        """One pass for all."""
        readings = self._model.read_together([job.features for job in jobs], exit_, [job.before for job in jobs])
        self._did(jobs, lambda times: times.exits[exit_])
        return readings

    def _did(self, jobs: Sequence[EdgeJob], part: Callable[[Times], float]) -> None:
        seconds = self.pace.did(lambda: [job.drawn(part) for job in jobs])
        for job in jobs:
            job.parts_s.append(seconds)

    def done(self, job: EdgeJob, reading: Reading | None) -> None:
        """It has its answer."""
        assert reading is not None  # an edge that has all stages always answers
        job.reading = reading
        self._end(job)

    def stopped(self, job: EdgeJob) -> None:
        """It gets none."""
        if job.error is None:
            job.error = Refused(Status.DEADLINE_EXCEEDED, "nobody waits any more")
        self._end(job)

    def _end(self, job: EdgeJob) -> None:
        self.pace.settle()
        job.end_s = self.pace.now_s
        self._left(job)
