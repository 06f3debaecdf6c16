"""Who starts together and when, and the course of a batch, without a world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from splitexit.batching import Batch, Line, together_s
from splitexit.decision import ExitCheck, Reading
from splitexit.inference import Course, infer_behind
from tests.synthetic import spec

NEVER, ALWAYS = 2.0, -1.0


@dataclass(eq=False)
class Job:
    """Asks for the exits in `checks`; its device gives up at `give_up_s`."""

    name: str
    split: int = 1
    arrive_s: float = 0.0
    give_up_s: float = 100.0
    checks: tuple[ExitCheck, ...] = ()
    readings: list[Reading] = field(default_factory=list)


class World:
    """A line whose batches last as long as the test likes."""

    def __init__(self, workers: int = 1, room: int | None = None, max_size: int = 1, max_wait_s: float = 0.0) -> None:
        self.started: list[tuple[str, float]] = []
        self.alarms: list[float] = []
        self.line: Line[Job] = Line(workers, room, max_size, max_wait_s, self._start, self.alarms.append)

    def _start(self, jobs: list[Job], now_s: float) -> None:
        self.started.append(("".join(job.name for job in jobs), now_s))

    def come(self, names: str, now_s: float, **changes: object) -> str:
        """One job each; returns the names of those that find room."""
        return "".join(
            name
            for name in names
            if self.line.arrive(Job(name, arrive_s=now_s, **changes), now_s)  # type: ignore[arg-type]
        )


def test_alone_first_come_first_served() -> None:
    world = World(workers=2)
    world.come("abcd", 0.0)
    world.line.free(1.0)
    world.line.free(2.0)
    assert world.started == [("a", 0.0), ("b", 0.0), ("c", 1.0), ("d", 2.0)]
    assert world.alarms == []


def test_a_batch_starts_when_it_is_full() -> None:
    world = World(max_size=3, max_wait_s=0.5)
    world.come("ab", 0.0)
    assert world.started == []
    world.come("c", 0.2)
    assert world.started == [("abc", 0.2)]


def test_a_batch_starts_when_the_oldest_has_waited_enough() -> None:
    world = World(max_size=3, max_wait_s=0.5)
    world.come("a", 0.0)
    world.come("b", 0.2)
    assert world.alarms == [0.5]
    world.line.dispatch(0.5)
    assert world.started == [("ab", 0.5)]


def test_a_batch_is_what_has_queued_up() -> None:
    world = World(max_size=3)
    world.come("abcdef", 0.0)
    world.line.free(1.0)
    world.line.free(2.0)
    assert world.started == [("a", 0.0), ("bcd", 1.0), ("ef", 2.0)]


def test_company_is_of_one_split() -> None:
    world = World(max_size=4)
    world.come("a", 0.0)
    world.come("b", 0.1, split=2)
    world.come("c", 0.2, split=1)
    world.come("d", 0.3, split=2)
    world.line.free(1.0)
    world.line.free(2.0)
    assert world.started == [("a", 0.0), ("bd", 1.0), ("c", 2.0)]


def test_who_finds_no_room_is_refused() -> None:
    """One works, two wait."""
    world = World(room=2)
    assert world.come("abcd", 0.0) == "abc"
    world.line.free(1.0)
    assert world.come("ef", 1.0) == "e"


def test_those_that_wait_for_company_take_room() -> None:
    world = World(room=2, max_size=4, max_wait_s=1.0)
    assert world.come("abc", 0.0) == "ab"
    assert world.started == []


def test_whom_nobody_waits_for_takes_no_room_and_is_not_started() -> None:
    world = World(room=1, max_size=2)
    world.come("a", 0.0)
    world.come("b", 0.0, give_up_s=0.5)
    assert world.come("c", 0.6) == "c"
    world.line.free(1.0)
    assert world.started == [("a", 0.0), ("c", 1.0)]
    world.come("d", 1.0, give_up_s=1.2)
    world.line.free(2.0)
    assert world.line.idle == 1


def test_when_a_job_would_start() -> None:
    world = World(room=1, max_size=2, max_wait_s=0.5)
    assert world.line.start_s(1.0, []) == 1.5
    world.come("a", 1.2)
    assert world.line.start_s(1.3, []) is None  # there would be no room to wait for company
    world.line.dispatch(1.7)
    assert world.line.start_s(2.0, [9.0]) == 9.0


def test_one_pass_takes_the_longest_times_the_factor() -> None:
    assert together_s([1.0, 3.0, 2.0], lambda size: 1.0 + 0.1 * size) == pytest.approx(3.0 * 1.3)
    assert together_s([0.1], lambda size: 1.0) == 0.1


class Worker:
    """A second per part; notes what it does."""

    def __init__(self, until: int = 4) -> None:
        self.now_s, self.until = 0.0, until
        self.log: list[str] = []
        self.ends: dict[str, tuple[float, int | None]] = {}

    def run(self, *jobs: Job) -> list[str]:
        """A batch; what was done, in order."""
        for _ in Batch(self, jobs, jobs[0].split, self.until).run():
            pass
        return self.log

    def _did(self, what: str, jobs: Sequence[Job]) -> None:
        self.now_s += 1.0
        self.log.append(f"{what} {''.join(job.name for job in jobs)}")

    def steps(self, job: Job) -> Course:
        return infer_behind(spec(stages=4), job.split, job.checks, job.readings, self.until)

    def wants(self, job: Job) -> bool:
        return job.give_up_s > self.now_s

    def decode(self, job: Job) -> None:
        self._did("decode", [job])

    def run_stage(self, jobs: Sequence[Job], stage: int) -> None:
        self._did(f"stage{stage}", jobs)

    def read_exit(self, jobs: Sequence[Job], exit_: int) -> Sequence[Reading]:
        self._did(f"exit{exit_}", jobs)
        return [Reading(exit_, 0, 0.5, 0.5, 0.5) for _ in jobs]

    def done(self, job: Job, reading: Reading | None) -> None:
        self.ends[job.name] = (self.now_s, None if reading is None else reading.exit)

    def stopped(self, job: Job) -> None:
        self.ends[job.name] = (self.now_s, -1)


def check(exit_: int, threshold: float) -> tuple[ExitCheck, ...]:
    """Read this exit."""
    return (ExitCheck(exit_, "max_prob", threshold),)


def test_those_that_exit_leave_and_the_rest_goes_on() -> None:
    """Exits lie behind every one of four stages; features come from behind the first."""
    worker = Worker()
    done = worker.run(Job("a"), Job("b", checks=check(1, ALWAYS)), Job("c", checks=check(1, NEVER)))
    assert done == [
        *("decode a", "decode b", "decode c"),
        *("stage1 abc", "exit1 bc", "stage2 ac", "stage3 ac", "exit3 ac"),
    ]
    assert worker.ends == {"b": (5.0, 1), "a": (8.0, 3), "c": (8.0, 3)}


def test_an_exit_of_the_last_one_ends_the_work() -> None:
    worker = Worker()
    assert worker.run(Job("a", checks=check(1, ALWAYS))) == ["decode a", "stage1 a", "exit1 a"]


@pytest.mark.parametrize(
    ("give_up_s", "ran"),
    [
        (1.5, ["stage1 b", "stage2 b", "stage3 b", "exit3 b"]),
        (2.5, ["stage1 ab", "stage2 b", "stage3 b", "exit3 b"]),
        (4.5, ["stage1 ab", "stage2 ab", "stage3 ab", "exit3 b"]),
    ],
)
def test_no_part_begins_for_whom_nobody_waits(give_up_s: float, ran: list[str]) -> None:
    worker = Worker()
    assert worker.run(Job("a", give_up_s=give_up_s), Job("b"))[2:] == ran
    assert worker.ends["a"][1] == -1
    assert worker.ends["b"][1] == 3


def test_an_answer_that_comes_too_late_is_none() -> None:
    worker = Worker()
    worker.run(Job("a", give_up_s=5.0))  # decode, three stages and the head end at 5 s
    assert worker.ends == {"a": (5.0, -1)}


def test_a_tier_with_some_stages_passes_features_on_behind_them_all() -> None:
    """Also those of a request whose exit in between did not fire."""
    worker = Worker(until=3)
    done = worker.run(Job("a"), Job("b", checks=check(1, NEVER)))
    assert done[2:] == ["stage1 ab", "exit1 b", "stage2 ab"]
    assert worker.ends == {"a": (5.0, None), "b": (5.0, None)}


def test_what_arrives_behind_the_last_stage_goes_on_untouched() -> None:
    worker = Worker(until=2)
    assert worker.run(Job("a", split=2), Job("b", split=2)) == []
    assert worker.ends == {"a": (0.0, None), "b": (0.0, None)}
