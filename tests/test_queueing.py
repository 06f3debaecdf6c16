"""Formulas of queues against each other, against limits, and against queues that are drawn.

tests/theory holds the simulator, which runs on SimPy, to the same formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapreplace
from math import factorial, inf

import numpy as np
import pytest

from splitexit import queueing

LOADS = [0.3, 0.6, 0.8]
Draw = Callable[[np.random.Generator, int], np.ndarray]
LAWS: dict[str, Draw] = {
    "always the same": lambda rng, n: np.ones(n),
    "exponential": lambda rng, n: rng.exponential(1.0, n),
    "two sizes": lambda rng, n: np.where(rng.random(n) < 0.9, 0.5, 5.5),
}


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("law", LAWS)
def test_m_g_1_is_the_wait_of_drawn_queues(law: str, load: float) -> None:
    """Within 3 %, by Lindley's recursion: a wait is how far the sum of service − gap has risen above its least."""
    rng = np.random.default_rng(0)
    count = 2_000_000
    gaps, services = rng.exponential(1.0 / load, count), LAWS[law](rng, count)
    sums = np.concatenate([[0.0], np.cumsum(services[:-1] - gaps[1:])])
    waits = sums - np.minimum.accumulate(sums)
    expected = queueing.m_g_1_wait_s(load, 1.0, float((services**2).mean()))
    assert waits.mean() == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("workers", [2, 5])
def test_m_m_c_is_the_response_of_drawn_queues(workers: int, load: float) -> None:
    """Within 3 %: every request goes to the worker that is free first."""
    rng = np.random.default_rng(0)
    count = 200_000
    arrivals = np.cumsum(rng.exponential(1.0 / load / workers, count)).tolist()
    free, total = [0.0] * workers, 0.0
    for arrival, service in zip(arrivals, rng.exponential(1.0, count).tolist(), strict=True):
        done = max(arrival, free[0]) + service
        heapreplace(free, done)
        total += done - arrival
    expected = 1.0 + queueing.m_m_c_wait_s(load * workers, 1.0, workers)
    assert total / count == pytest.approx(expected, rel=0.03)


def test_erlang_c_is_its_sum() -> None:
    """Erlang 1917: the tail a^c / (c! (1 − ρ)) among all states."""
    for workers in (1, 2, 3, 10, 50):
        for load in np.linspace(0.01, 0.99, 9) * workers:
            tail = load**workers / (factorial(workers) * (1 - load / workers))
            states = sum(load**k / factorial(k) for k in range(workers))
            assert queueing.erlang_c(load, workers) == pytest.approx(tail / (states + tail), rel=1e-12)


def test_one_worker_is_one_queue() -> None:
    for load in LOADS:
        assert queueing.m_m_c_wait_s(load, 1.0, 1) == pytest.approx(queueing.m_g_1_wait_s(load, 1.0, 2.0))
        assert queueing.m_g_1_wait_s(load, 1.0, 1.0) == pytest.approx(load / (2 * (1 - load)))


def test_limits() -> None:
    """Nobody there, nobody waits; more than can be done, all wait for ever; a thousand workers do not overflow."""
    assert queueing.m_g_1_wait_s(0.0, 1.0, 2.0) == queueing.m_m_c_wait_s(0.0, 1.0, 3) == 0.0
    assert queueing.m_g_1_wait_s(1.0, 1.0, 2.0) == queueing.m_m_c_wait_s(3.0, 1.0, 3) == inf
    assert queueing.erlang_c(5.0, 3) == 1.0
    assert queueing.m_m_c_number(3.0, 3) == inf
    assert 0.0 < queueing.erlang_c(1000.0, 1024) < 1.0


def test_little_and_the_inverse() -> None:
    """Requests there are rate times response (Little 1961); `load_of` finds the load again."""
    for workers in (1, 2, 8, 100):
        for share in (0.0, 0.1, 0.5, 0.9, 0.99):
            load = share * workers
            number = queueing.m_m_c_number(load, workers)
            assert number == pytest.approx(load * (1.0 + queueing.m_m_c_wait_s(load, 1.0, workers)))
            assert queueing.load_of(number, workers) == pytest.approx(load, abs=1e-6)
        assert queueing.load_of(1e9, workers) < workers
