"""The simulator's queues against closed forms, each within its 99.9 % interval.

The mean of one run is an average of dependent values, so the interval comes from independent runs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import poisson

from splitexit import queueing
from splitexit.calibration import Distribution
from splitexit.results import column
from tests import synthetic
from tests.theory.stations import FREE, SERVICE_S, assert_within, edge, exponential, means, two_sizes, variation, waits

REQUESTS = 2_500
LOADS = [0.3, 0.6, 0.8]
LAWS = {"deterministic": Distribution.constant(SERVICE_S), "exponential": exponential(), "two sizes": two_sizes()}


def khinchine(load: float, law: Distribution) -> float:
    """Mean wait of M/G/1."""
    return queueing.m_g_1_wait_s(load / law.mean, law.mean, law.mean**2 * (1 + variation(law)))


@pytest.mark.parametrize("load", LOADS)
def test_wait_at_the_device_is_that_of_m_d_1(tmp_path: Path, load: float) -> None:
    """For three stages of 10 ms."""
    service_s = 0.030
    experiment = synthetic.experiment(
        tmp_path,
        requests=REQUESTS,
        devices__arrivals={"name": "poisson", "rate_hz": load / service_s},
        devices__deadline_ms=60e3,
    )
    found = means(experiment, lambda table: column(table, "start_s") - column(table, "arrival_s"), policy="local")
    assert_within(found, khinchine(load, Distribution.constant(service_s)))


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("law", LAWS)
def test_wait_at_the_edge_is_that_of_m_g_1(tmp_path: Path, law: str, load: float) -> None:
    """Poisson arrivals reach the edge unchanged."""
    experiment = edge(tmp_path, [LAWS[law]], load / SERVICE_S, REQUESTS)
    assert_within(means(experiment, waits), khinchine(load, LAWS[law]), widest=0.4)


@pytest.mark.parametrize(("workers", "load"), [(2, 0.3), (5, 0.6), (3, 0.8)])
def test_wait_at_the_edge_is_that_of_m_m_c(tmp_path: Path, workers: int, load: float) -> None:
    law = exponential()
    experiment = edge(tmp_path, [law], load * workers / SERVICE_S, REQUESTS, edge__workers=workers)
    # The law is cut off at 1 - 1e-5: by the rule of Lee and Longton (1959), the wait goes with (1 + variation) / 2.
    expected = queueing.m_m_c_wait_s(load * workers, SERVICE_S, workers) * (1 + variation(law)) / 2
    assert_within(means(experiment, waits), expected, widest=0.4)


def crommelin_wait(load: float, workers: int, service_s: float = SERVICE_S) -> float:
    """Mean wait of M/D/c, from the numbers in system one service time apart (Crommelin, POEE Journal 25, 1932).

    Who is in service now is gone then, and who waits is not: n becomes max(n - c, 0) and the arrivals meanwhile.
    """
    size = 60 * workers
    arrivals = poisson.pmf(np.arange(size), load * workers)
    moves = np.zeros((size, size))
    for n in range(size):
        left = max(n - workers, 0)
        moves[n, left:] = arrivals[: size - left]
        moves[n, -1] += 1 - moves[n].sum()
    equations = np.vstack([moves.T - np.eye(size), np.ones(size)])
    numbers = np.linalg.lstsq(equations, np.r_[np.zeros(size), 1.0], rcond=None)[0]
    waiting = (np.maximum(np.arange(size) - workers, 0) * numbers).sum()
    return float(waiting * service_s / (load * workers))


def test_crommelin_with_one_worker_is_khinchine() -> None:
    for load in LOADS:
        assert crommelin_wait(load, 1) == pytest.approx(khinchine(load, LAWS["deterministic"]), rel=1e-6)


@pytest.mark.parametrize(("workers", "load"), [(2, 0.3), (5, 0.6), (3, 0.8)])
def test_wait_at_the_edge_is_that_of_m_d_c(tmp_path: Path, workers: int, load: float) -> None:
    experiment = edge(tmp_path, [LAWS["deterministic"]], load * workers / SERVICE_S, REQUESTS, edge__workers=workers)
    assert_within(means(experiment, waits), crommelin_wait(load, workers), widest=0.4)


@pytest.mark.parametrize("load", LOADS)
def test_a_cloud_behind_an_edge_is_a_queue_of_its_own(tmp_path: Path, load: float) -> None:
    """What leaves M/M/1 is a Poisson stream (Burke 1956), so that the waits of two in a row add up."""
    law = exponential()
    cloud = {"split": 2, "uplink": FREE, "downlink": FREE}
    experiment = edge(tmp_path, [law, law], load / SERVICE_S, REQUESTS, cloud=cloud)
    assert_within(means(experiment, waits), 2 * khinchine(load, law))


@pytest.mark.parametrize("load", LOADS)
def test_round_robin_among_two_servers(tmp_path: Path, load: float) -> None:
    """Each gets every second request of a Poisson stream: E2/M/1, by the root of GI/M/1 (Kendall 1953)."""
    rate_hz, mu_hz = 2 * load / SERVICE_S, 1 / SERVICE_S
    root = brentq(lambda x: (rate_hz / (rate_hz + mu_hz * (1 - x))) ** 2 - x, 0.0, 1.0 - 1e-6)
    experiment = edge(tmp_path, [exponential()], rate_hz, REQUESTS, edge__servers=2)
    assert_within(means(experiment, waits), root * SERVICE_S / (1 - root))


@pytest.mark.parametrize("load", LOADS)
def test_least_loaded_is_between_one_queue_and_round_robin(tmp_path: Path, load: float) -> None:
    """The shortest queue is the best rule (Winston 1977), and worse than two workers behind one queue."""
    rate_hz = 2 * load / SERVICE_S
    found = {}
    for balancer in ("round-robin", "least-loaded"):
        experiment = edge(tmp_path, [exponential()], rate_hz, REQUESTS, edge__servers=2, edge__balancer=balancer)
        found[balancer] = np.asarray(means(experiment, waits, runs=5))
    one_queue = edge(tmp_path, [exponential()], rate_hz, REQUESTS, edge__workers=2)
    shared = np.asarray(means(one_queue, waits, runs=5))
    assert (shared < found["least-loaded"]).all()
    assert (found["least-loaded"] < found["round-robin"]).all()
