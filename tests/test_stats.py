"""Intervals cover, moments merge, stopping stops."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitexit.stats import Interval, Moments, batch_means, paired, precise, share, student, wilson
from tests.queues import responses

EXPERIMENTS = 1_000


def coverage(intervals: list[Interval], truth: float) -> float:
    """Share of intervals that contain the truth."""
    return float(np.mean([found.low <= truth <= found.high for found in intervals]))


def test_replications_of_m_m_1_cover() -> None:
    """The mean response at load 0.5 is 2 service times; 10 replications, 95 %."""
    found = [
        student([responses(np.random.default_rng([k, r]), 2_000, 0.5, 200).mean() for r in range(10)])
        for k in range(EXPERIMENTS)
    ]
    print(f"\ncoverage of replications: {coverage(found, 2.0):.1%}")
    assert 0.93 <= coverage(found, 2.0) <= 0.97


@pytest.mark.parametrize(("load", "requests"), [(0.5, 10_000), (0.8, 40_000)])
def test_batch_means_of_m_m_1_cover(load: float, requests: int) -> None:
    found = [batch_means(responses(np.random.default_rng([k, 7]), requests, load, 1_000)) for k in range(EXPERIMENTS)]
    covered = coverage([b.interval for b in found if b], 1 / (1 - load))
    print(f"\ncoverage of batch means at load {load}: {covered:.1%}")
    assert 0.93 <= covered <= 0.97


def test_sections_cover_a_percentile() -> None:
    """The response of M/M/1 is exponential, so its 95th percentile is known."""
    load, p95 = 0.5, -2.0 * math.log(0.05)
    runs = (responses(np.random.default_rng([k, 9]), 10_000, load, 500) for k in range(EXPERIMENTS))
    found = [batch_means(run, statistic=partial(np.quantile, q=0.95)) for run in runs]
    covered = coverage([b.interval for b in found if b], p95)
    print(f"\ncoverage of sectioning: {covered:.1%}")
    assert 0.93 <= covered <= 0.97


def test_naive_intervals_do_not_cover() -> None:
    """Why there are batches: taking the requests of one run as independent fails."""
    found = [student(responses(np.random.default_rng([k, 1]), 2_000, 0.8, 500)) for k in range(200)]
    assert coverage(found, 5.0) < 0.6


def test_a_run_too_short_for_its_correlation_says_so() -> None:
    walk = np.cumsum(np.random.default_rng(0).normal(size=4_000))
    found = batch_means(walk)
    assert found is not None
    assert not found.independent
    assert found.batches == 8
    assert found.lag1 > 0.3


def test_batches_need_two_values_each() -> None:
    assert batch_means(np.arange(15.0)) is None
    assert batch_means(np.ones(16)) is not None


def test_student_is_the_textbook() -> None:
    """Law, example 4.26: ten observations, 90 %: 1.34 ± 0.24."""
    found = student([1.20, 1.50, 1.68, 1.89, 0.95, 1.49, 1.58, 1.55, 0.50, 1.09], 0.90)
    assert found.mean == pytest.approx(1.343)
    assert found.half == pytest.approx(0.24, abs=0.005)


def test_one_value_has_no_interval() -> None:
    found = student([3.0])
    assert found.mean == 3.0
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_pairs_cancel_what_they_share() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(scale=10, size=20)
    a, b = common + 1 + rng.normal(scale=0.1, size=20), common
    assert paired(list(a), list(b)).half < 0.1 < student(a).half


def test_wilson_is_the_published_interval() -> None:
    """Newcombe, Statistics in Medicine 17 (1998) 857, table I: 81 of 263 and 0 of 20, 95 %."""
    assert wilson(81 / 263, 263)[1:] == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0.0, 20)[1:] == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_a_unanimous_share_is_not_certain() -> None:
    found = share([0.0, 0.0, 0.0], 300)
    assert found.low == 0.0
    assert 0.005 < found.high < 0.05
    assert share([0.3, 0.31, 0.33], 300) == student([0.3, 0.31, 0.33])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.integers(0, 60))
def test_moments_merge(values: list[float], cut: int) -> None:
    array = np.asarray(values)
    merged = Moments.of(array[:cut]).merge(Moments.of(array[cut:]))
    added = Moments()
    for value in values:
        added = added.add(value)
    for found in (merged, added, Moments.of(array)):
        assert found.count == len(values)
        assert found.mean == pytest.approx(array.mean(), abs=1e-6)
        if len(values) > 1:
            assert found.variance == pytest.approx(array.var(ddof=1), rel=1e-6, abs=1e-4)


def test_stopping_needs_ten_replications_and_the_precision() -> None:
    near, wide = Interval(100.0, 99.1, 100.9), Interval(100.0, 98.9, 101.1)
    assert precise(near, 0.01, 10)
    assert not precise(near, 0.01, 9)
    assert not precise(wide, 0.01, 10)
    assert not precise(Interval(1.0, math.nan, math.nan), 0.5, 10)
    assert Interval(0.0, -1.0, 1.0).relative == math.inf
    assert Interval(0.0, 0.0, 0.0).relative == 0.0


def test_the_interval_of_a_share_ends_at_0_and_1() -> None:
    low, high = share([0.0, 0.02, 0.2], 300), share([1.0, 0.7, 0.99], 300)
    assert (low.low, high.high) == (0.0, 1.0)
    assert low.high < 1.0
    assert high.low > 0.0
    assert math.isnan(share([0.5], 100).low)
