"""What a device learns of its link."""

from __future__ import annotations

import numpy as np
import pytest

from splitexit.decision import LinkEstimate
from splitexit.estimate import LinkEstimator


def test_it_finds_rate_and_rtt_from_noisy_transfers_of_mixed_sizes() -> None:
    rng = np.random.default_rng(0)
    estimator = LinkEstimator(LinkEstimate(rate_bps=20e6, rtt_s=0.010))
    for size in rng.choice([500, 4000, 16000], 400):
        estimator.observe(size, (0.040 + 8 * size / 5e6) * rng.normal(1.0, 0.03))
    assert estimator.estimate.rtt_s == pytest.approx(0.040, rel=0.1)
    assert estimator.estimate.rate_bps == pytest.approx(5e6, rel=0.15)


def test_it_follows_a_step() -> None:
    estimator = LinkEstimator(LinkEstimate(10e6, 0.020))
    for rate in (10e6, 1e6):
        for _ in range(60):
            estimator.observe(8000, 0.020 + 8 * 8000 / rate)
    assert estimator.estimate.round_trip_s(8000) == pytest.approx(0.084, rel=0.03)


def test_it_keeps_a_true_prior() -> None:
    estimator = LinkEstimator(LinkEstimate(10e6, 0.020))
    for _ in range(100):
        estimator.observe(1000, 0.020 + 8e-4)
    assert estimator.estimate.rtt_s == pytest.approx(0.020)
    assert estimator.estimate.rate_bps == pytest.approx(10e6)


def test_it_stays_positive_whatever_it_sees() -> None:
    rng = np.random.default_rng(1)
    estimator = LinkEstimator(LinkEstimate(10e6, 0.0))
    for _ in range(2000):
        estimator.observe(float(rng.integers(0, 10**6)), float(rng.exponential(rng.choice([1e-6, 1.0]))))
        assert 0 < estimator.estimate.rate_bps < np.inf
        assert estimator.estimate.rtt_s >= 0
