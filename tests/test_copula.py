"""Dependent uniform numbers: marginals, correlations, what is measured of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import kstest

from splitexit.copula import Dependence, Uniforms

WIDTH, BLOCK = 6, 512


def drawn(dependence: Dependence, blocks: int = 200, alone: int = 0) -> np.ndarray:
    """(blocks, requests, parts)."""
    rngs = (np.random.default_rng([3, block]) for block in range(blocks))
    return np.stack([Uniforms(dependence, WIDTH, alone, rng).take(BLOCK) for rng in rngs])


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of normal scores."""
    return float(np.corrcoef(ndtri(a).ravel(), ndtri(b).ravel())[0, 1])


@pytest.mark.parametrize(("rho", "phi"), [(0.5, 0.0), (0.8, 0.9), (0.2, 0.6)])
def test_each_number_is_uniform_and_depends_as_asked(rho: float, phi: float) -> None:
    u = drawn(Dependence(rho, phi))
    assert ((u > 0) & (u < 1)).all()
    independent = u[:, 100, 0]  # one request of every block
    assert kstest(independent, "uniform").pvalue > 0.01
    assert np.quantile(u, [0.05, 0.5, 0.95]) == pytest.approx([0.05, 0.5, 0.95], abs=0.02)
    assert correlation(u[:, :, 0], u[:, :, 3]) == pytest.approx(rho, abs=0.04)
    assert correlation(u[:, :-1, 1], u[:, 1:, 2]) == pytest.approx(rho * phi, abs=0.04)
    assert correlation(u[:, :-1, 1], u[:, 1:, 1]) == pytest.approx(rho * phi, abs=0.04)
    assert correlation(u[:, :-5, 1], u[:, 5:, 2]) == pytest.approx(rho * phi**5, abs=0.04)


def test_a_block_starts_in_the_stationary_law() -> None:
    first = drawn(Dependence(0.9, 0.95), blocks=1500)[:, 0]
    for part in range(WIDTH):
        assert kstest(first[:, part], "uniform").pvalue > 0.01
    assert correlation(first[:, 0], first[:, 1]) == pytest.approx(0.9, abs=0.03)


def test_blocks_know_nothing_of_each_other() -> None:
    u = drawn(Dependence(0.9, 0.99), blocks=1500)
    assert abs(correlation(u[:-1, -1, 0], u[1:, 0, 0])) < 0.08


def test_what_stands_alone_depends_on_nothing() -> None:
    u = drawn(Dependence(0.9, 0.9), alone=1)
    assert abs(correlation(u[:, :, 0], u[:, :, -1])) < 0.02
    assert abs(correlation(u[:, :-1, -1], u[:, 1:, -1])) < 0.02
    assert correlation(u[:, :, 0], u[:, :, -2]) > 0.8


@pytest.mark.parametrize("dependence", [Dependence(), Dependence(0.0, 0.7)])
def test_without_dependence_it_is_the_generators_numbers(dependence: Dependence) -> None:
    expected = np.random.default_rng(5).random((BLOCK, WIDTH))
    np.testing.assert_array_equal(Uniforms(dependence, WIDTH, 1, np.random.default_rng(5)).take(BLOCK), expected)


@pytest.mark.parametrize("dependence", [Dependence(), Dependence(0.6), Dependence(0.6, 0.8)])
def test_a_few_at_a_time_are_the_same_to_the_last_bit(dependence: Dependence) -> None:
    whole = Uniforms(dependence, WIDTH, 1, np.random.default_rng(9)).take(BLOCK)
    few = Uniforms(dependence, WIDTH, 1, np.random.default_rng(9))
    np.testing.assert_array_equal(np.concatenate([few.take(n) for n in (8, 8, 1, 31, 464)]), whole)


@pytest.mark.parametrize(("within", "lag1"), [(1.0, 0.0), (-0.1, 0.0), (0.5, 1.0), (0.5, float("nan"))])
def test_what_is_no_dependence_is_refused(within: float, lag1: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        Dependence(within, lag1)


def seconds(rho: float, phi: float, requests: int = 4000) -> np.ndarray:
    """Of every part, as they would be measured: some spread widely, one hardly at all."""
    u = Uniforms(Dependence(rho, phi), WIDTH, 0, np.random.default_rng(1)).take(requests).T
    spread = np.array([1.0, 0.8, 0.5, 0.3, 0.1, 0.001])
    return np.exp(0.3 * ndtri(u)) * spread[:, None]


@pytest.mark.parametrize(("rho", "phi"), [(0.5, 0.7), (0.9, 0.3), (0.3, 0.9)])
def test_dependence_is_found_again(rho: float, phi: float) -> None:
    found = Dependence.measured(seconds(rho, phi))
    assert found.within == pytest.approx(rho, abs=0.08)
    assert found.lag1 == pytest.approx(phi, abs=0.1)


def test_outliers_count_for_their_rank_alone() -> None:
    """Single parts that are interrupted for a hundred times as long."""
    measured = seconds(0.5, 0.5)
    rng = np.random.default_rng(2)
    measured[rng.integers(0, WIDTH, 20), rng.integers(0, measured.shape[1], 20)] *= 100.0
    found = Dependence.measured(measured)
    assert found.within == pytest.approx(0.5, abs=0.08)
    assert found.lag1 == pytest.approx(0.5, abs=0.1)


def test_independent_parts_are_mostly_called_so() -> None:
    """Two standard errors: few of many independent measurements seem to depend, and none by much."""
    rng = np.random.default_rng(0)
    found = [Dependence.measured(rng.gamma(4.0, 1.0, (WIDTH, 300))) for _ in range(40)]
    assert sum(one == Dependence() for one in found) >= 34
    assert max(one.within for one in found) < 0.1


@pytest.mark.parametrize("parts", [[], [[1.0, 1.0, 1.0]] * 3, [[1.0, 2.0, 3.0, 1.5]]])
def test_nothing_to_compare_is_no_dependence(parts: list[list[float]]) -> None:
    """No parts, parts that do not vary, one part."""
    assert Dependence.measured(parts) == Dependence()


def test_parts_that_move_as_one_keep_a_little_of_their_own() -> None:
    one = np.random.default_rng(0).gamma(4.0, 1.0, 2000)
    assert 0.85 < Dependence.measured([one, 2 * one, 3 * one]).within < 1.0


def test_interruptions_of_single_parts_do_not_pass_for_a_slow_phase() -> None:
    """The parts share a phase of a few per cent; one in ten is interrupted for as long as it takes, by itself."""
    rng = np.random.default_rng(6)
    phase = 1.0 + 0.03 * rng.standard_normal(4000)
    parts = phase * np.ones((WIDTH, 1)) * (1.0 + (rng.random((WIDTH, 4000)) < 0.1))
    scores = ndtri((parts.argsort(axis=1).argsort(axis=1) + 0.5) / parts.shape[1])
    assert np.corrcoef(scores)[0, 1] > 0.5
    assert Dependence.measured(parts.tolist()).within < 0.15
