"""Random delays against their distributions, and two worlds that cut messages differently."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from splitexit.errors import InputError
from splitexit.links import Fifo
from splitexit.links._jitter import HOLD_S
from splitexit.links.constant import Constant

FRAMES = 100_000


def link(**parameters: Any) -> Constant:
    """1 byte a microsecond, 50 ms."""
    made = Constant(**({"mbps": 8.0, "delay_ms": 50.0, "jitter_ms": 5.0} | parameters))
    made.reseed(np.random.default_rng(7))
    return made


def delays_ms(**parameters: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Of messages of no length, one in each frame of the jitter."""
    made = link(**parameters)
    times = [(frame + 0.5) * HOLD_S for frame in range(FRAMES)]
    return 1e3 * np.array([made.arrive_s(t, t) - t for t in times])


# The means of a part cut at c: the Pareto tail beyond u = 4.5^-3 loses 1/2 4.5^-2, times 3/4 4/3 spreads.
CUT_OFF = -0.5 / 4.5**2


@pytest.mark.parametrize(
    ("distribution", "mean", "deviation"),
    [("normal", 0.0, 1.0), ("uniform", 0.0, 1.0 / sqrt(3.0)), ("pareto-normal", CUT_OFF, None)],
)
def test_moments(distribution: str, mean: float, deviation: float | None) -> None:
    """Within five standard errors; and nothing is more than four spreads off."""
    found = (delays_ms(jitter=distribution) - 50.0) / 5.0
    assert abs(found.mean() - mean) < 5 * found.std() / sqrt(FRAMES)
    if deviation is not None:
        assert found.std() == pytest.approx(deviation, rel=0.02)
    assert np.abs(found).max() <= 4.0 + 1e-9


@pytest.mark.parametrize(("u", "x"), [(0.5, -0.2400789), (0.125, 0.7875873), (0.001, 3.7725581), (1.0, -1.5)])
def test_pareto_normal_by_hand(u: float, x: float) -> None:
    """1/4 Φ⁻¹(1 - u) + (u^(-1/3) - 3/2), the second part at most 3: its quantiles."""
    found = np.quantile((delays_ms(jitter="pareto-normal", delay_ms=500.0) - 500.0) / 5.0, 1.0 - u)
    assert found == pytest.approx(x, abs=0.15 if u < 0.01 else 0.02)


def test_never_before_it_was_sent() -> None:
    """A negative delay is none, as in netem: half of a normal around zero."""
    found = delays_ms(delay_ms=0.0)
    assert found.min() == pytest.approx(0.0, abs=1e-9)
    assert (found < 1e-9).mean() == pytest.approx(0.5, abs=0.01)


def test_it_stays_for_ten_milliseconds() -> None:
    """And then it is another."""
    made = link()
    delays = [made.arrive_s(t, t) - t for t in np.arange(0.0005, 1.0, 0.001).tolist()]
    changes = sum(abs(a - b) > 1e-9 for a, b in pairwise(delays))
    assert changes == 99


def test_nothing_overtakes() -> None:
    """Though the delay falls by more than the gap between them."""
    fifo = Fifo(link(jitter_ms=40.0))
    arrivals = [fifo.send(0.004 * k, 100)[2] for k in range(5000)]
    assert all(a <= b for a, b in pairwise(arrivals))
    assert sum(a == b for a, b in pairwise(arrivals)) > 500


@settings(max_examples=40, deadline=None)
@given(
    messages=st.lists(st.tuples(st.floats(0.0, 0.3), st.integers(1, 100_000)), min_size=1, max_size=12),
    jitter_ms=st.sampled_from([1.0, 10.0, 80.0]),
)
def test_whole_messages_arrive_as_their_pieces_do(messages: list[tuple[float, int]], jitter_ms: float) -> None:
    """The simulator sends messages, the proxy pieces of 1500 bytes: the ends are at most a piece apart."""
    whole, cut = Fifo(link(jitter_ms=jitter_ms)), Fifo(link(jitter_ms=jitter_ms))
    now_s = 0.0
    for gap_s, size_bytes in messages:
        now_s += gap_s
        sizes = [min(1500, size_bytes - start) for start in range(0, size_bytes, 1500)]
        arrivals = [cut.send(now_s, size)[2] for size in sizes]
        _, sent_s, arrive_s = whole.send(now_s, size_bytes)
        # At the very edge of a frame the last bit of a sum decides which delay it is.
        assume(abs(sent_s - round(sent_s / HOLD_S) * HOLD_S) > 1e-9)
        assert 0.0 <= arrive_s - arrivals[-1] + 1e-9 <= 0.0015 + 2e-9


def test_an_unknown_distribution_is_refused() -> None:
    """Where no scenario's schema has done so."""
    with pytest.raises(InputError, match="jitter 'gamma': expected one of normal, pareto-normal, uniform"):
        link(jitter="gamma")
