"""Batching against closed forms: exact ones of periodic arrivals, and bulk service of Poisson arrivals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import poisson

from splitexit.calibration import Distribution
from splitexit.results import column, to_table
from splitexit.sim import simulate
from tests.theory.stations import SERVICE_S, assert_within, edge, means

BATCH = {1: 1.0, 2: 1.4, 4: 2.0, 8: 3.2}
"""Relative time of so many samples in one pass."""
CONSTANT = Distribution.constant(SERVICE_S)
FOREVER_MS = 60_000.0


def factor(size: int) -> float:
    """Linear between the sizes of BATCH."""
    return float(np.interp(size, list(BATCH), list(BATCH.values())))


@pytest.mark.parametrize("size", [2, 3, 8])
def test_full_batches_of_periodic_arrivals(tmp_path: Path, size: int) -> None:
    """The k-th of a batch waits for those behind it, and all take the time of one pass of that size."""
    gap_s, rounds = 0.05, 20
    experiment = edge(
        tmp_path,
        [CONSTANT],
        1.0,
        size * rounds,
        batch=BATCH,
        edge__batching={"max_size": size, "max_wait_ms": FOREVER_MS},
        devices__arrivals={"name": "periodic", "rate_hz": 1 / gap_s},
    )
    table = to_table(simulate(experiment, "send", 0))
    behind = size - 1 - np.arange(size * rounds) % size
    np.testing.assert_allclose(column(table, "edge_wait_s"), behind * gap_s, rtol=0, atol=1e-9)
    np.testing.assert_allclose(column(table, "edge_compute_s"), SERVICE_S * factor(size), rtol=0, atol=1e-9)


def test_a_batch_starts_when_the_oldest_has_waited_enough(tmp_path: Path) -> None:
    """Every 10 ms one, who waits at most 25 ms: batches of three."""
    experiment = edge(
        tmp_path,
        [CONSTANT],
        1.0,
        30,
        batch=BATCH,
        edge__batching={"max_size": 8, "max_wait_ms": 25.0},
        devices__arrivals={"name": "periodic", "rate_hz": 100.0},
    )
    table = to_table(simulate(experiment, "send", 0))
    np.testing.assert_allclose(column(table, "edge_wait_s"), [0.025, 0.015, 0.005] * 10, rtol=0, atol=1e-9)
    np.testing.assert_allclose(column(table, "edge_compute_s"), SERVICE_S * factor(3), rtol=0, atol=1e-9)


def bulk_wait(rate_hz: float, fewest: int, most: int, limit: int = 400) -> float:
    """Mean wait of M/D^(a,b)/1: batches of `fewest` to `most`, as many as there are, each of SERVICE_S factor(n).

    From the chain of numbers left behind by batches (Neuts, A general class of bulk queues with Poisson input,
    Ann. Math. Statist. 38, 1967): over a cycle of the chain, the time spent by all in queue over the arrivals.
    """
    service_s = {n: SERVICE_S * factor(n) for n in range(fewest, most + 1)}
    moves, waited, length = np.zeros((limit, limit)), np.zeros(limit), np.zeros(limit)
    for left in range(limit):
        missing = max(fewest - left, 0)
        size = min(max(left, fewest), most)
        took, rest = service_s[size], max(left - size, 0)
        # while some are missing: left, left + 1, … wait for 1 / rate each; then `rest` and those who come meanwhile
        waited[left] = sum(range(left, left + missing)) / rate_hz + rest * took + rate_hz * took**2 / 2
        length[left] = missing / rate_hz + took
        moves[left, rest:] = poisson.pmf(np.arange(limit - rest), rate_hz * took)
        moves[left, -1] += 1 - moves[left].sum()
    equations = np.vstack([moves.T - np.eye(limit), np.ones(limit)])
    chain = np.linalg.lstsq(equations, np.r_[np.zeros(limit), 1.0], rcond=None)[0]
    return float(chain @ waited / (chain @ length) / rate_hz)


def test_bulks_of_one_are_m_d_1() -> None:
    for load in (0.3, 0.6, 0.8):
        expected = load * SERVICE_S / (2 * (1 - load))
        assert bulk_wait(load / SERVICE_S, 1, 1) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
@pytest.mark.parametrize(("fewest", "most"), [(1, 8), (4, 4)])
def test_wait_is_that_of_bulk_service(tmp_path: Path, fewest: int, most: int, load: float) -> None:
    """Of the capacity with the largest batches."""
    rate_hz = load * most / (SERVICE_S * factor(most))
    wait_ms = 0.0 if fewest == 1 else FOREVER_MS
    batching = {"max_size": most, "max_wait_ms": wait_ms}
    experiment = edge(tmp_path, [CONSTANT], rate_hz, 3_000, batch=BATCH, edge__batching=batching)
    found = means(experiment, lambda table: column(table, "edge_wait_s"))
    assert_within(found, bulk_wait(rate_hz, fewest, most))
