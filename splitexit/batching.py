"""Several requests in one pass through the network: who starts together and when, and the course of a batch.

The rules are written once; a world answers with time (`splitexit.sim.batch`), or with torch (`splitexit.live`).
Without batching a batch is one request, so these are also the rules of a plain queue: first come, first served.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, Protocol, TypeVar

from splitexit.decision import Reading
from splitexit.inference import Course
from splitexit.steps import ReadExit, RunStages

Factor = Callable[[int], float]
"""Number of samples in one pass -> its time, relative to that of one sample."""


def together_s(own_s: Sequence[float], factor: Factor) -> float:
    """Seconds of one pass over samples that would take these on their own: the longest, times factor(how many)."""
    return max(own_s) * factor(len(own_s))


class Waiting(Protocol):
    """A job as its queue sees it.

    split      where its features come from; a batch holds one split only
    arrive_s   when it came
    give_up_s  when nobody waits for it any more
    """

    @property
    def split(self) -> int: ...
    @property
    def arrive_s(self) -> float: ...
    @property
    def give_up_s(self) -> float: ...


W = TypeVar("W", bound=Waiting)


class Line(Generic[W]):
    """Workers and the jobs that wait for them.

    A free worker starts when the oldest job has company up to `max_size`, or has waited for `max_wait_s`. Jobs that
    wait for company count as waiting.

    Args:
        workers: how many batches run at once.
        room: how many jobs may wait; None for any number.
        max_size, max_wait_s: of a batch.
        start: told of jobs that start together, and when; one worker is busy with them until `free`.
        alarm: asked to call `dispatch` at a time.

    waiting  in the order of arrival
    idle     workers with nothing to do
    """

    def __init__(
        self,
        workers: int,
        room: int | None,
        max_size: int,
        max_wait_s: float,
        start: Callable[[list[W], float], None],
        alarm: Callable[[float], None],
    ) -> None:
        self.idle, self._room, self._max_size, self._max_wait_s = workers, room, max_size, max_wait_s
        self._start, self._alarm, self._alarm_s = start, alarm, -1.0
        self.waiting: deque[W] = deque()

    def length(self, now_s: float) -> int:
        """How many wait; those that nobody waits for any more leave the head."""
        waiting = self.waiting
        while waiting and waiting[0].give_up_s <= now_s:
            waiting.popleft()
        return len(waiting)

    def arrive(self, job: W, now_s: float) -> bool:
        """A job comes, while somebody waits for it; False if it finds no room."""
        self.waiting.append(job)
        self.dispatch(now_s)
        if self._room is None or self.length(now_s) <= self._room or self.waiting[-1] is not job:
            return True
        self.waiting.pop()
        return False

    def free(self, now_s: float) -> None:
        """A worker is through with its batch."""
        self.idle += 1
        self.dispatch(now_s)

    def dispatch(self, now_s: float) -> None:
        """Starts what can start now, and has itself called again when the oldest job has waited enough."""
        while self.idle and self.length(now_s):
            oldest = self.waiting[0]
            jobs, due_s = self._company(oldest.split, now_s), oldest.arrive_s + self._max_wait_s
            if len(jobs) < self._max_size and now_s < due_s:
                if due_s != self._alarm_s:
                    self._alarm_s = due_s
                    self._alarm(due_s)
                return
            for job in jobs:
                self.waiting.remove(job)
            self.idle -= 1
            self._start(jobs, now_s)

    def _company(self, split: int, now_s: float) -> list[W]:
        """The oldest jobs of that split that are still wanted, up to the size of a batch."""
        wanted = (job for job in self.waiting if job.split == split and job.give_up_s > now_s)
        return list(islice(wanted, self._max_size))

    def start_s(self, arrive_s: float, free_s: Iterable[float]) -> float | None:
        """When a batch of a job arriving then would start if no other came: whom it would meet cannot be foreseen.

        Args:
            free_s: when each of the batches that run will be over.

        Returns:
            None if the job would find no room.
        """
        start_s = arrive_s if self.idle else max(arrive_s, min(free_s))
        if self._max_size > 1:
            oldest_s = self.waiting[0].arrive_s if self.waiting else arrive_s
            start_s = max(start_s, oldest_s + self._max_wait_s)
        full = self._room is not None and start_s > arrive_s and len(self.waiting) >= self._room
        return None if full else start_s


J = TypeVar("J")
J_contra = TypeVar("J_contra", contravariant=True)


class Worker(Protocol[J_contra]):
    """What computes a batch, and keeps its time."""

    def steps(self, job: J_contra) -> Course:
        """What the job asks for (splitexit.inference.infer_behind)."""

    def wants(self, job: J_contra) -> bool:
        """Whether anybody still waits for the job; once not, never again."""

    def decode(self, job: J_contra) -> None:
        """Turns one payload into features."""

    def run_stage(self, jobs: Sequence[J_contra], stage: int) -> None:
        """Runs the stage with this number (from 0) on the features of all these, in one pass."""

    def read_exit(self, jobs: Sequence[J_contra], exit_: int) -> Sequence[Reading]:
        """What the head says of all these, in one pass."""

    def done(self, job: J_contra, reading: Reading | None) -> None:
        """A job is through: with the reading that answers, or without one, when its features go on to a next tier."""

    def stopped(self, job: J_contra) -> None:
        """A job is given up, because nobody wants it any more."""


class Batch(Generic[J]):
    """Jobs of one split on their way through a server's stages; `left` holds those still on it, with their next step.

    Payloads are decoded one after the other. Then all go stage by stage: those that exit leave, those that nobody
    waits for any more are stopped, and the rest goes on.

    Args:
        worker: what computes.
        split: stages that have run already.
        until: the last stage of this server.
    """

    def __init__(self, worker: Worker[J], jobs: Sequence[J], split: int, until: int) -> None:
        self._worker, self._jobs, self._split, self._until = worker, jobs, split, until
        self._steps = {job: worker.steps(job) for job in jobs}
        self.left: dict[J, RunStages | ReadExit] = {}

    def run(self) -> Iterator[None]:
        """From the payloads to the last job's end, with a pause behind every stage."""
        if self._split < self._until:
            for job in self._jobs:
                self._worker.decode(job)
        for job in self._jobs:
            self._advance(job, None)
        for stage in range(self._split, self._until):
            if wanted := self._wanted(self.left):
                self._worker.run_stage(wanted, stage)
                self._reach(stage + 1)
                yield

    def _reach(self, stage: int) -> None:
        """Every job is behind this stage: some read the exit there, some are through."""
        here = self._wanted(self._at(stage))
        read = [job for job in here if isinstance(self.left[job], ReadExit)]
        if read:
            step = self.left[read[0]]
            assert isinstance(step, ReadExit)  # the same for all: no two exits lie behind one stage
            said = dict(zip(read, self._worker.read_exit(read, step.exit), strict=True))
            for job in self._wanted(read):
                self._advance(job, (said[job], 0.0))
        for job in self._at(stage):
            self._advance(job, None)

    def _at(self, stage: int) -> list[J]:
        """Those whose step ends behind this stage."""
        return [job for job, step in self.left.items() if step.last == stage]

    def _wanted(self, jobs: Iterable[J]) -> list[J]:
        """Those that somebody waits for; the others are stopped."""
        wanted = []
        for job in list(jobs):
            if self._worker.wants(job):
                wanted.append(job)
            else:
                self._stop(job)
        return wanted

    def _advance(self, job: J, said: tuple[Reading, float] | None) -> None:
        if not self._worker.wants(job):
            self._stop(job)
            return
        try:
            self.left[job] = self._steps[job].send(said)
        except StopIteration as done:
            self.left.pop(job, None)
            self._worker.done(job, done.value)

    def _stop(self, job: J) -> None:
        self.left.pop(job, None)
        self._worker.stopped(job)
