"""What every arrival process in the table must do."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from splitexit.arrivals import ARRIVALS, Arrivals, Closed, Periodic, Poisson

CASES = {"periodic": {"rate_hz": 20.0}, "poisson": {"rate_hz": 20.0}, "closed": {"think_ms": 5.0}}


def make(name: str) -> Arrivals:
    """One of this kind."""
    return ARRIVALS.load(name)(**CASES[name])


OPEN = [name for name in CASES if not make(name).closed]


def test_every_process_has_a_case() -> None:
    """A process that is added to the table must be added to the cases."""
    assert set(CASES) == set(ARRIVALS.names())


@pytest.mark.parametrize("name", CASES)
def test_parameters_are_keywords_stored_unchanged(name: str) -> None:
    """And annotated."""
    for parameter in inspect.signature(ARRIVALS.load(name)).parameters.values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.annotation is not inspect.Parameter.empty
    for key, value in CASES[name].items():
        assert getattr(make(name), key) == value


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_times(name: str, count: int) -> None:
    """As many as asked for, float64, increasing from 0 on, the same for the same generator."""
    times = make(name).times_s(count, np.random.default_rng(3))
    assert times.shape == (count,)
    assert times.dtype == np.float64
    assert (times >= 0).all()
    assert (np.diff(times) > 0).all()
    np.testing.assert_array_equal(times, make(name).times_s(count, np.random.default_rng(3)))


@pytest.mark.parametrize("name", OPEN)
def test_more_requests_do_not_move_the_first_ones(name: str) -> None:
    """A longer run extends a shorter one."""
    short, long = (make(name).times_s(count, np.random.default_rng(3)) for count in (100, 1000))
    np.testing.assert_array_equal(long[:100], short)


@pytest.mark.parametrize("name", OPEN)
def test_the_rate_is_the_rate(name: str) -> None:
    """Within five standard errors of a Poisson process."""
    times = make(name).times_s(20_000, np.random.default_rng(1))
    assert 20_000 / times[-1] == pytest.approx(20.0, rel=5 / np.sqrt(20_000))


def test_periodic() -> None:
    """The first at 0."""
    np.testing.assert_array_equal(Periodic(rate_hz=4.0).times_s(4, np.random.default_rng(0)), [0.0, 0.25, 0.5, 0.75])


def test_poisson_gaps_are_exponential() -> None:
    """Mean and standard deviation are both 1 / rate, and a share exp(-1) of the gaps is longer."""
    gaps = np.diff(Poisson(rate_hz=50.0).times_s(100_000, np.random.default_rng(2)))
    assert gaps.mean() == pytest.approx(0.02, rel=0.02)
    assert gaps.std() == pytest.approx(0.02, rel=0.02)
    assert (gaps > 0.02).mean() == pytest.approx(np.exp(-1), abs=0.01)


def test_closed() -> None:
    """No times of its own; no pause by default."""
    assert Closed().think_s == 0.0
    assert Closed(think_ms=250.0).think_s == 0.25
    assert Closed.closed
    with pytest.raises(TypeError, match="closed"):
        Closed().times_s(1, np.random.default_rng(0))
