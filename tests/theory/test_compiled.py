"""The compiled engine against closed forms, and whether its error bars hold what they promise.

One device computes every request by itself: M/G/1 at its CPU. Service times are exponential as far as a table of
quantiles can say so, and the truth is that of the table (Pollaczek and Khinchine, with its exact moments).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from splitexit.calibration import Distribution, Rpc
from splitexit.experiment import Experiment
from splitexit.sim import compiled
from splitexit.stats import batch_means
from tests import synthetic

pytest.importorskip("numba")

SERVICE_S, LOAD = 0.010, 0.5
EXPERIMENTS, REQUESTS = 1_000, 40_000
WARM_UP_S = 20.0


@cache
def exponential() -> Distribution:
    """Quantiles of the exponential distribution, the last one where 1e-4 are left."""
    u = np.linspace(0.0, 1.0, 2001)
    quantiles = -SERVICE_S * np.log1p(-np.minimum(u, 1.0 - 1e-4))
    return Distribution(tuple(float(f"{q:.6g}") for q in quantiles))  # as calibration.json keeps them


def moments(distribution: Distribution) -> tuple[float, float]:
    """E[S] and E[S²] of a piecewise linear quantile function: the integrals of it and of its square."""
    a, b = np.array(distribution.quantiles[:-1]), np.array(distribution.quantiles[1:])
    return float(((a + b) / 2).mean()), float(((a * a + a * b + b * b) / 3).mean())


def mean_response(distribution: Distribution, rate_hz: float) -> float:
    """M/G/1: E[S] + λ E[S²] / (2 (1 − λ E[S]))."""
    first, second = moments(distribution)
    return first + rate_hz * second / (2.0 * (1.0 - rate_hz * first))


@pytest.fixture
def queue(tmp_path: Path) -> Experiment:
    """One stage, one head that costs nothing, everything on the device."""
    model = synthetic.spec(stages=1)
    pair = (0, "jpeg")
    return synthetic.experiment(
        tmp_path,
        model=model,
        says=synthetic.recording(model, pairs={pair: 100}),
        takes=synthetic.calibration(model, exponential(), pairs=[pair], rpc=Rpc(0, 1, Distribution.constant(0.0))),
        requests=REQUESTS,
        warmup_s=WARM_UP_S,
        devices__arrivals={"name": "poisson", "rate_hz": LOAD / SERVICE_S},
        devices__deadline_ms=600_000.0,
        policies={"local": {"name": "local"}},
    )


def test_the_table_is_nearly_exponential() -> None:
    """E[S] = s and E[S²] = 2 s² within a percent, so that this is M/M/1 to the eye."""
    first, second = moments(exponential())
    assert first == pytest.approx(SERVICE_S, rel=0.005)
    assert second == pytest.approx(2 * SERVICE_S**2, rel=0.01)
    assert mean_response(exponential(), LOAD / SERVICE_S) == pytest.approx(SERVICE_S / (1 - LOAD), rel=0.01)


def test_mean_response_of_a_long_run(queue: Experiment) -> None:
    """Two million requests within half a percent."""
    summary = compiled.summarise_run(queue, "local", 0, 2_000_000)
    expected_ms = 1e3 * mean_response(exponential(), LOAD / SERVICE_S)
    assert summary["response_ms"]["mean"] == pytest.approx(expected_ms, rel=0.005)


@pytest.mark.slow
def test_a_95_percent_interval_contains_the_truth_95_times_in_a_hundred(queue: Experiment) -> None:
    """splitexit.stats.batch_means, as in every summary: 1,000 repeated runs of M/M/1; 93 to 97 in a hundred."""
    from splitexit.sim.compiled.engine import Engine

    truth = mean_response(exponential(), LOAD / SERVICE_S)
    hits = 0
    for seed in range(EXPERIMENTS):
        rows = Engine(queue, "local", seed).ordered()
        response_s = (rows["done_s"] - rows["arrival_s"])[rows["arrival_s"] >= WARM_UP_S]
        found = batch_means(response_s)
        assert found is not None
        hits += found.interval.low <= truth <= found.interval.high
    print(f"\n{hits} of {EXPERIMENTS} intervals contain the truth")
    assert 0.93 <= hits / EXPERIMENTS <= 0.97
