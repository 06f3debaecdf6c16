"""A server that computes several jobs in one pass."""

from __future__ import annotations

from collections.abc import Sequence

from splitexit.batching import Batch, Factor, Line, together_s
from splitexit.decision import Reading
from splitexit.inference import Course, infer_behind
from splitexit.sim.calendar import Calendar, Event
from splitexit.sim.job import Job, Share
from splitexit.sim.server import Server
from splitexit.sim.tier import Tier


class Ending(Event):
    """The last job of a batch is done."""

    __slots__ = ()


class BatchServer(Server):
    """Workers that take several jobs of one split at a time, by the rules of `splitexit.batching.Line`.

    Args:
        factor: number of jobs -> relative time of one pass (Calibration.batch_factor).
    """

    def __init__(
        self,
        calendar: Calendar,
        tier: Tier,
        workers: int,
        room: int | None,
        max_size: int,
        max_wait_s: float,
        factor: Factor,
    ) -> None:
        super().__init__(calendar, tier, workers, room)
        self._line: Line[Job] = Line(workers, room, max_size, max_wait_s, self._start_all, self._set)
        self._waiting, self._factor = self._line.waiting, factor
        self._batches: dict[Ending, float] = {}
        self._on_alarm, self._on_end = (self._ring,), (self._ended,)

    def arrive(self, job: Job) -> None:
        """A job arrives now, while its device waits."""
        if not self._line.arrive(job, self._env._now):
            self._tier.shed(job)

    def _set(self, alarm_s: float) -> None:
        self._calendar.put(alarm_s, Event(), self._on_alarm)

    def _ring(self, _: Event) -> None:
        self._line.dispatch(self._env._now)

    def _start_all(self, jobs: list[Job], now_s: float) -> None:
        for job in jobs:
            job.wait_s += now_s - job.arrive_s
        ending, ends_s = Ending(), compute_together(jobs, self._tier, now_s, self._factor)
        for job, done_s in ends_s.items():
            self._running[job] = done_s
            self._calendar.put(done_s, job, self._on_done)
        self._batches[ending] = end_s = max(ends_s.values())
        self._calendar.put(end_s, ending, self._on_end)

    def _done(self, job: Job) -> None:
        if self._running.pop(job, None) is not None:
            job.queue_length = self.present
            self._tier.done(job)

    def _ended(self, ending: Ending) -> None:
        if self._batches.pop(ending, None) is not None:
            self._line.free(self._env._now)

    def fail(self) -> list[Job]:
        """Breaks down; returns the jobs that are lost."""
        self._line.idle += len(self._batches)
        self._batches.clear()
        return super().fail()

    def start_s(self, arrive_s: float) -> float | None:
        """See Line.start_s."""
        return self._line.start_s(arrive_s, self._batches.values())


def compute_together(jobs: Sequence[Job], tier: Share, start_s: float, factor: Factor) -> dict[Job, float]:
    """Runs a batch (splitexit.batching.Batch) from `start_s`. Sets what Job.compute sets.

    Returns:
        When each job is done, or has been stopped.
    """
    worker = _Worker(tier, start_s, factor)
    for _ in Batch(worker, jobs, jobs[0].split, tier.until).run():
        pass
    for job, end_s in worker.ends_s.items():
        job.compute_s += end_s - start_s
    return worker.ends_s


class _Worker:
    """Takes the drawn times, and knows what was recorded."""

    def __init__(self, tier: Share, now_s: float, factor: Factor) -> None:
        self._tier, self._now_s, self._factor = tier, now_s, factor
        self.ends_s: dict[Job, float] = {}

    def steps(self, job: Job) -> Course:
        send, tier = job.send, self._tier
        return infer_behind(tier.spec, job.split, send.edge_exits, job.readings, tier.until, send.prior)

    def wants(self, job: Job) -> bool:
        return job.give_up_s > self._now_s

    def decode(self, job: Job) -> None:
        self._now_s += job.times.decode_s((job.split, job.codec))

    def run_stage(self, jobs: Sequence[Job], stage: int) -> None:
        self._now_s += together_s([job.times.stages[stage] for job in jobs], self._factor)

    def read_exit(self, jobs: Sequence[Job], exit_: int) -> Sequence[Reading]:
        self._now_s += together_s([job.times.exits[exit_] for job in jobs], self._factor)
        return [job.says(exit_) for job in jobs]

    def done(self, job: Job, reading: Reading | None) -> None:
        job.reading = reading
        if reading is None:
            self._now_s += job.recoding_s(self._tier)
        self.stopped(job)

    def stopped(self, job: Job) -> None:
        self.ends_s[job] = self._now_s
