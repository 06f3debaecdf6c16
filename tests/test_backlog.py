"""Stable queues are called stable, overloaded ones are not."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from splitexit.backlog import BACKLOGGED, STABLE, UNSTABLE, changes, p_value, verdict, while_all_work
from tests.queues import m_m_1

TRIALS = 100


def verdicts(load: float, requests: int, replications: int = 1) -> Counter[str]:
    """What so many M/M/1 runs are called."""
    found: Counter[str] = Counter()
    for trial in range(TRIALS):
        rng = np.random.default_rng([trial, requests, int(100 * load)])
        found[verdict([changes(*m_m_1(rng, requests, load)) for _ in range(replications)])] += 1
    return found


@pytest.mark.parametrize("load", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("requests", [1_000, 5_000])
def test_a_stable_queue_is_called_stable(load: float, requests: int) -> None:
    assert verdicts(load, requests)[STABLE] >= 99


@pytest.mark.parametrize(("load", "requests", "replications"), [(1.3, 5_000, 1), (1.1, 5_000, 5), (1.05, 20_000, 5)])
def test_an_unstable_queue_is_called_unstable(load: float, requests: int, replications: int) -> None:
    assert verdicts(load, requests, replications)[UNSTABLE] >= 99


def test_a_short_overload_is_not_called_stable() -> None:
    assert verdicts(1.3, 1_000)[STABLE] == 0


def test_growth_that_levels_off_is_a_backlog() -> None:
    """Everything takes 60 s in a run of 200 s: the number in system rises to its level and stays there."""
    arrival = np.arange(2_000) / 10
    assert verdict([changes(arrival, arrival + 60.0)]) == BACKLOGGED
    assert verdict([changes(arrival, arrival + 60.0, from_s=70.0)]) == STABLE


def test_turning_work_away_is_a_backlog() -> None:
    arrival = np.arange(2_000) / 10
    quiet = [changes(arrival, arrival + 0.05)]
    assert verdict(quiet) == verdict(quiet, shed_rate=0.005) == STABLE
    assert verdict(quiet, shed_rate=0.05) == BACKLOGGED


def test_one_request_is_no_trend() -> None:
    assert verdict([changes(np.array([1.0]), np.array([2.0]))]) == STABLE


def test_p_value_of_constant_changes() -> None:
    assert p_value(np.ones(32)) == 0.0
    assert p_value(np.zeros(32)) == 1.0


def test_the_run_ends_where_devices_run_out_of_requests() -> None:
    device = np.repeat(np.arange(20), 100)
    arrival = np.tile(np.arange(100.0), 20) + device  # the first device ends at 99, the last at 118
    assert while_all_work(device, arrival) == 100.0
    assert while_all_work(np.array([7, 7]), np.array([1.0, 3.0])) == 3.0
