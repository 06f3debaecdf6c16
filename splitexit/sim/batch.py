"""A server that computes several jobs in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from splitexit.decision import Reading
from splitexit.inference import infer_behind
from splitexit.sim.calendar import Calendar, Event
from splitexit.sim.job import Job, Share
from splitexit.sim.server import Server
from splitexit.sim.tier import Tier
from splitexit.steps import ReadExit, RunStages

Factor = Callable[[int], float]
"""Number of samples in one pass -> its time, relative to that of one sample."""


class Batch(Event):
    """Jobs that one worker computes together, until the last of them is done."""

    __slots__ = ()


class BatchServer(Server):
    """Workers that take several jobs of one split at a time.

    A free worker starts when the oldest job has company up to `max_size`, or has waited for `max_wait_s`. Jobs that
    wait for company count as waiting.

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
        self._max_size, self._max_wait_s, self._factor = max_size, max_wait_s, factor
        self._batches: dict[Batch, float] = {}
        self._alarm_s = -1.0
        self._on_alarm, self._on_end = (self._ring,), (self._ended,)

    def arrive(self, job: Job) -> None:
        """A job arrives now, while its device waits."""
        self._waiting.append(job)
        self._dispatch()
        if self._room is not None and len(self._waiting) > self._room and self._waiting[-1] is job:
            self._waiting.pop()
            self._tier.shed(job)

    def _ring(self, _: Event) -> None:
        self._dispatch()

    def _dispatch(self) -> None:
        """Starts what can start now, and sets an alarm for when the oldest job has waited enough."""
        now_s = self._env._now
        while self._idle and self.present > len(self._running):
            oldest = self._waiting[0]
            jobs = self._company(oldest.split, now_s)
            due_s = oldest.arrive_s + self._max_wait_s
            if len(jobs) < self._max_size and now_s < due_s:
                if due_s != self._alarm_s:
                    self._alarm_s = due_s
                    self._calendar.put(due_s, Event(), self._on_alarm)
                return
            self._start_all(jobs, now_s)

    def _company(self, split: int, now_s: float) -> list[Job]:
        """The oldest jobs of that split that are still wanted, up to the size of a batch."""
        jobs: list[Job] = []
        for job in self._waiting:
            if job.split == split and job.give_up_s > now_s:
                jobs.append(job)
                if len(jobs) == self._max_size:
                    break
        return jobs

    def _start_all(self, jobs: list[Job], now_s: float) -> None:
        self._idle -= 1
        for job in jobs:
            self._waiting.remove(job)
            job.wait_s += now_s - job.arrive_s
        batch, ends_s = Batch(), compute_together(jobs, self._tier, now_s, self._factor)
        for job, done_s in ends_s.items():
            self._running[job] = done_s
            self._calendar.put(done_s, job, self._on_done)
        self._batches[batch] = end_s = max(ends_s.values())
        self._calendar.put(end_s, batch, self._on_end)

    def _done(self, job: Job) -> None:
        if self._running.pop(job, None) is not None:
            job.queue_length = self.present
            self._tier.done(job)

    def _ended(self, batch: Batch) -> None:
        if self._batches.pop(batch, None) is not None:
            self._idle += 1
            self._dispatch()

    def fail(self) -> list[Job]:
        """Breaks down; returns the jobs that are lost."""
        idle = self._idle + len(self._batches)
        self._batches.clear()
        lost = super().fail()
        self._idle = idle
        return lost

    def start_s(self, arrive_s: float) -> float | None:
        """When a batch of a job arriving then would start if no other came: whom it would meet cannot be foreseen."""
        start_s = arrive_s if self._idle else max(arrive_s, min(self._batches.values()))
        if self._max_size > 1:
            oldest_s = self._waiting[0].arrive_s if self._waiting else arrive_s
            start_s = max(start_s, oldest_s + self._max_wait_s)
        full = self._room is not None and start_s > arrive_s and len(self._waiting) >= self._room
        return None if full else start_s


def compute_together(jobs: Sequence[Job], tier: Share, start_s: float, factor: Factor) -> dict[Job, float]:
    """Decodes one after the other, then runs stage by stage; what exits early leaves, and the rest goes on.

    A pass of n samples takes the longest of their own times, times factor(n). Sets what Job.compute sets.

    Returns:
        When each job is done, or has been stopped.
    """
    course = _Course(jobs, tier, start_s, factor)
    course.run()
    for job, end_s in course.ends_s.items():
        job.compute_s += end_s - start_s
    return course.ends_s


class _Course:
    """Jobs of one split on their way through a tier's stages; `asked` holds those still on it, with their next step."""

    def __init__(self, jobs: Sequence[Job], tier: Share, start_s: float, factor: Factor) -> None:
        self._jobs, self._tier, self._now_s, self._factor = jobs, tier, start_s, factor
        self._asked: dict[Job, RunStages | ReadExit] = {}
        self.ends_s: dict[Job, float] = {}

    def run(self) -> None:
        """From the payloads to the last job's end."""
        tier, split = self._tier, self._jobs[0].split
        if split < tier.until:
            for job in self._jobs:
                self._now_s += job.times.decode_s((split, job.codec))
        self._steps = {
            job: infer_behind(tier.spec, split, job.send.edge_exits, job.readings, tier.until) for job in self._jobs
        }
        for job in self._jobs:
            self._advance(job, None)
        for stage in range(split, tier.until):
            if wanted := self._wanted(self._asked):
                self._pass(len(wanted), max(job.times.stages[stage] for job in wanted))
                self._reach(stage + 1)

    def _pass(self, size: int, longest_s: float) -> None:
        self._now_s += longest_s * self._factor(size)

    def _reach(self, stage: int) -> None:
        """Every job is behind this stage: some read an exit there, some are through."""
        here = [job for job, step in self._asked.items() if step.last == stage]
        exits = {job: step.exit for job in self._wanted(here) if isinstance(step := self._asked[job], ReadExit)}
        if exits:
            self._pass(len(exits), max(job.times.exits[exit_] for job, exit_ in exits.items()))
            for job in self._wanted(exits):
                self._advance(job, (job.says(exits[job]), 0.0))
        for job in here:
            if type(self._asked.get(job)) is RunStages and job not in self.ends_s:
                self._advance(job, None)

    def _wanted(self, jobs: Iterable[Job]) -> list[Job]:
        """Those whose devices still wait; the others are stopped."""
        for job in [job for job in jobs if job.give_up_s <= self._now_s]:
            self._leave(job)
        return [job for job in jobs if job in self._asked]

    def _advance(self, job: Job, said: tuple[Reading, float] | None) -> None:
        if job.give_up_s <= self._now_s:
            self._leave(job)
            return
        try:
            self._asked[job] = self._steps[job].send(said)
        except StopIteration as done:
            job.reading = done.value
            if done.value is None:
                self._now_s += job.recoding_s(self._tier)
            self._leave(job)

    def _leave(self, job: Job) -> None:
        self._asked.pop(job, None)
        self.ends_s[job] = self._now_s
