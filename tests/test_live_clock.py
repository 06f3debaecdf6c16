"""Timelines and pacing: order, precision, and no drift."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from splitexit.live.clock import Timeline, VirtualTimeline, WallTimeline, sleep_until
from splitexit.live.pace import OVERRUN_S, NativeCpu, PacedCpu

pytestmark = pytest.mark.serial


@pytest.mark.parametrize("kind", [VirtualTimeline, WallTimeline])
def test_functions_are_called_in_the_order_of_time(kind: type[Timeline]) -> None:
    """Those of one time in the order in which they were posted; each with the time it was posted for."""
    timeline, called = kind(), list[tuple[str, float]]()
    for name, at_s in (("c", 0.03), ("a", 0.01), ("b", 0.02), ("b2", 0.02)):
        timeline.post(at_s, lambda now_s, name=name: called.append((name, now_s)))  # type: ignore[misc]
    while timeline.step(0.025):
        pass
    assert called == [("a", 0.01), ("b", 0.02), ("b2", 0.02)]
    assert timeline.now() >= 0.025
    assert timeline.step(1.0)
    assert [name for name, _ in called] == ["a", "b", "b2", "c"]


@pytest.mark.parametrize("kind", [VirtualTimeline, WallTimeline])
def test_what_is_overdue_is_called_at_once(kind: type[Timeline]) -> None:
    timeline, called = kind(), list[float]()
    timeline.step(0.01)
    timeline.post(0.005, called.append)
    assert timeline.step(0.01)
    assert called == [0.005]
    assert timeline.now() >= 0.01


def test_virtual_time_does_not_wait_and_waits_for_nothing_in_vain() -> None:
    timeline = VirtualTimeline()
    assert not timeline.step(1e6)
    assert timeline.now() == 1e6
    with pytest.raises(RuntimeError, match="nobody"):
        timeline.step(float("inf"))


def test_a_post_from_another_thread_ends_the_wait() -> None:
    timeline, called = WallTimeline(), list[float]()
    threading.Timer(0.02, lambda: timeline.post(timeline.now(), called.append)).start()
    assert timeline.step(5.0)
    assert timeline.now() < 2.0
    assert len(called) == 1


def test_waits_end_on_time() -> None:
    """Median within 0.2 ms; a busy machine may be late at times, never early."""
    timeline, late_s = WallTimeline(), list[float]()
    for _ in range(50):
        due_s = timeline.now() + 0.003
        timeline.step(due_s)
        late_s.append(timeline.now() - due_s)
    assert min(late_s) >= 0.0
    assert np.median(late_s) < 2e-4


def test_sleeping_ends_on_time() -> None:
    late_s = []
    for _ in range(50):
        due_s = time.monotonic() + 0.003
        sleep_until(due_s)
        late_s.append(time.monotonic() - due_s)
    assert min(late_s) >= 0.0
    assert np.median(late_s) < 2e-4


@pytest.mark.parametrize("kind", [VirtualTimeline, WallTimeline])
def test_pacing_does_not_drift(kind: type[Timeline]) -> None:
    """Fifty parts of 2 ms end after 100 ms to the nanosecond, though every wait ends a little late."""
    timeline = kind()
    cpu = PacedCpu(timeline)
    start_s = timeline.now()
    cpu.begin(start_s)
    overran = False
    for _ in range(50):
        assert cpu.run(lambda: "done", 0.002) == ("done", 0.002)
        overran |= cpu.settle()
        assert timeline.now() >= cpu.now_s
    assert cpu.now_s - start_s >= 0.1 - 1e-9
    assert overran or cpu.now_s - start_s == pytest.approx(0.1, abs=1e-9)


def test_a_late_start_can_be_made_up_for() -> None:
    """The world sees only the end of the work: on time, nothing has overrun."""
    timeline = WallTimeline()
    cpu = PacedCpu(timeline)
    cpu.begin(timeline.now())
    time.sleep(0.02)
    cpu.reach()
    cpu.run(lambda: None, 0.2)
    start_s = cpu.now_s - 0.2
    assert not cpu.settle()
    assert cpu.now_s - start_s == pytest.approx(0.2)


def test_a_host_that_is_too_slow_is_noticed() -> None:
    timeline = WallTimeline()
    cpu = PacedCpu(timeline)
    cpu.begin(timeline.now())
    cpu.run(lambda: time.sleep(0.02), 0.001)
    assert cpu.settle()
    assert cpu.now_s == pytest.approx(timeline.now(), abs=0.005)  # and the clock does not pretend
    cpu.run(lambda: None, 0.01)
    assert not cpu.settle()
    assert OVERRUN_S < 0.01


def test_native_takes_what_it_takes() -> None:
    timeline = WallTimeline()
    cpu = NativeCpu(timeline)
    cpu.begin(123.0)
    assert cpu.now_s < 1.0
    _, seconds = cpu.run(lambda: time.sleep(0.01), 5.0)
    assert 0.01 <= seconds < 0.1
    assert not cpu.settle()
    assert cpu.now_s == pytest.approx(timeline.now(), abs=0.005)
