"""When a change is declared: against the posterior worked out by hand, on noise, steps and outliers."""

from __future__ import annotations

import json
from math import exp, lgamma, log, pi

import numpy as np
import pytest

from splitexit.changes import LONGEST, MEAN, PROBABILITY, ChangeDetector


def declared(values: np.ndarray, level: float = 0.0, **settings: float) -> list[int]:
    """At which measurements."""
    detector = ChangeDetector(**settings)
    state = detector.begin(level)
    return [n for n, value in enumerate(values.tolist()) if detector.observe(state, value)]


def noisy(rng: np.random.Generator, count: int, noise: float = 0.1) -> np.ndarray:
    """Logarithms of 1 with so much relative noise."""
    return np.log(rng.normal(1.0, noise, count))


@pytest.mark.parametrize("seed", range(10))
def test_noise_is_no_change(seed: int) -> None:
    """1,000 measurements with 10 % of noise, and with 3 %."""
    rng = np.random.default_rng(seed)
    assert declared(noisy(rng, 1000)) == []
    assert declared(noisy(rng, 1000, 0.03)) == []


def test_a_trigger_on_five_percent_would_fire_again_and_again() -> None:
    """What the detector is for: a moving average that is compared with the last plan's by SPINN's 5 %."""
    fired = []
    for seed in range(10):
        average = planned = 1.0
        fired.append(0)
        for value in np.random.default_rng(seed).normal(1.0, 0.1, 1000):
            average += 0.2 * (value - average)
            if abs(average / planned - 1.0) > 0.05:
                planned = average
                fired[-1] += 1
    assert min(fired) > 50


@pytest.mark.parametrize("factor", [0.1, 0.5, 2.0, 10.0, 1000.0])
def test_a_step_is_declared_once_and_soon(factor: float) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        values = np.concatenate([noisy(rng, 100), log(factor) + noisy(rng, 100)])
        found = declared(values)
        assert len(found) == 1
        assert 101 <= found[0] <= 104


def test_a_small_step_is_declared_too() -> None:
    """A quarter more, 2.2 standard deviations, in most of 20 cases; none is declared twice."""
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found.append(declared(np.concatenate([noisy(rng, 100), log(1.25) + noisy(rng, 100)])))
    assert all(len(times) <= 1 and (not times or times[0] > 100) for times in found)
    assert sum(map(len, found)) >= 12


def test_every_step_is_declared_however_close_to_the_last() -> None:
    rng = np.random.default_rng(0)
    for gap in (3, 4, 6, 30):
        values = np.concatenate([noisy(rng, 50), log(4) + noisy(rng, gap), log(16) + noisy(rng, 50)])
        assert len(declared(values)) == 2, gap


def test_the_level_is_that_of_the_declared_run() -> None:
    rng, detector = np.random.default_rng(0), ChangeDetector()
    state = detector.begin(0.0)
    values = np.concatenate([noisy(rng, 60), 3.0 + noisy(rng, 60)])
    for n, value in enumerate(values.tolist()):
        detector.observe(state, value)
        if n in (59, 119):
            assert detector.level(state) == pytest.approx(values[n - 59 : n + 1].mean(), abs=0.02)


def test_a_first_level_that_is_wrong_is_a_change() -> None:
    assert declared(noisy(np.random.default_rng(0), 100), level=log(8)) == [1]


def test_a_lone_outlier_is_none() -> None:
    for size in (0.5, 1.0, 3.0, 100.0):
        values = noisy(np.random.default_rng(1), 200)
        values[[80, 140]] += (size, -size)
        assert declared(values) == []


def test_what_hardly_varies_still_may_by_the_floor() -> None:
    """1,000 equal measurements, then ones 4 % beside them: too little to plan anew; then 30 %: enough."""
    same, beside, beyond = np.zeros(1000), np.full(100, 0.04), np.full(20, 0.3)
    assert declared(np.concatenate([same, beside])) == []
    assert declared(np.concatenate([same, beyond])) == [1001]


def test_the_posterior_is_that_of_adams_and_mackay() -> None:
    """The recursion written out over all run lengths, with Murphy's predictive density."""
    rng, detector = np.random.default_rng(2), ChangeDetector(floor=0.0)
    state = detector.begin(0.0, length=1)
    squares, kappa = 2.5 * 0.1**2, (0.1 / log(10)) ** 2
    runs = [(0.01, [], 2.0 * 0.1**2, kappa, 2.0), (0.99, [], squares, kappa + 1, 2.5)]
    for value in np.concatenate([noisy(rng, 8), 1.0 + noisy(rng, 4)]).tolist():
        detector.observe(state, value)
        grown = [(p * density(value, of), *more(value, of)) for p, *of in runs]
        total = sum(p for p, *_ in grown)
        runs = [(0.01, [], 2.0 * 0.1**2, kappa, 2.0), *((0.99 * p / total, *of) for p, *of in grown)]
        np.testing.assert_allclose(state[PROBABILITY, : len(runs)], [p for p, *_ in runs], rtol=1e-9, atol=1e-300)
        np.testing.assert_allclose(state[MEAN, : len(runs)], [mean(seen, weight) for _, seen, _, weight, _ in runs])


def mean(seen: list[float], weight: float) -> float:
    return sum(seen) / weight


def density(value: float, of: list) -> float:
    """Student's t with 2 α degrees of freedom around the mean, variance β (κ + 1) / (α κ)."""
    seen, squares, kappa, alpha = of
    scale = squares * (kappa + 1) / (alpha * kappa)
    off = (value - mean(seen, kappa)) ** 2 / scale
    constant = lgamma(alpha + 0.5) - lgamma(alpha) - 0.5 * log(2 * alpha * pi * scale)
    return exp(constant - (alpha + 0.5) * log(1 + off / (2 * alpha)))


def more(value: float, of: list) -> tuple:
    """What is known of a run with one measurement more."""
    seen, squares, kappa, alpha = of
    squares += kappa * (value - mean(seen, kappa)) ** 2 / (2 * (kappa + 1))
    return [*seen, value], squares, kappa + 1, alpha + 0.5


def test_long_runs_go_on_for_ever() -> None:
    rng, detector = np.random.default_rng(3), ChangeDetector()
    state = detector.begin(0.0)
    for value in noisy(rng, 5 * LONGEST).tolist():
        assert not detector.observe(state, value)
    assert np.isfinite(state).all()
    assert state[PROBABILITY].sum() == pytest.approx(1.0)
    assert abs(detector.level(state)) < 0.03
    found = [detector.observe(state, log(3) + value) for value in noisy(rng, 5).tolist()]
    assert sum(found) == 1


def test_the_benchmark_says_what_it_says_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    """benchmarks/changes.py: no alarm of ours, many of a 5 % trigger, steps found."""
    from benchmarks import changes

    assert changes.main(["--runs", "1", "--json"]) == 0
    rows = {(row["detector"], row["samples"]): row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["declared", "transfer"]["alarms_per_1000"] == 0.0
    assert rows["declared", "transfer"]["steps"]["0.1"] == {"once": 1.0, "missed": 0.0, "delay": 2.0, "longest": 2}
    assert rows["5 %", "transfer"]["alarms_per_1000"] > 50
    assert changes.main(["--runs", "1"]) == 0
    assert "exactly once" in capsys.readouterr().out
