"""Links whose rate changes at random, against hand arithmetic and their stationary distributions."""

from __future__ import annotations

from itertools import pairwise
from math import exp, sqrt
from typing import Any

import numpy as np
import pytest
from scipy.special import exp1

from splitexit.errors import InputError
from splitexit.links import Fifo
from splitexit.links._spans import Spans
from splitexit.links.fading import Fading
from splitexit.links.markov import Markov

MB = 1_000_000


def by_hand() -> Spans:
    """One, zero, two and one MB per second over 1, 1, 2 and 1 s, in every block: 6 MB in 5 s."""
    lengths_s, rates = np.array([1.0, 1.0, 2.0, 1.0]), np.array([1.0, 0.0, 2.0, 1.0]) * MB
    return Spans(np.random.default_rng(0), lambda rng, number: (lengths_s, rates))


@pytest.mark.parametrize(
    ("start_s", "size_bytes", "finish_s"),
    [
        (0.3, 0, 0.3),
        (0.0, MB // 2, 0.5),
        (0.0, MB, 1.0),
        (0.5, 600_000, 2.05),
        (1.5, 1, 2.0000005),
        (1.0, 4 * MB, 4.0),
        (4.5, MB, 5.5),
        (0.0, 6 * MB, 5.0),
        (0.0, 13 * MB, 11.0),
        (5.0, MB // 4, 5.25),
        (50_001.0, 2 * MB, 50_003.0),
    ],
)
def test_the_integral_by_hand(start_s: float, size_bytes: int, finish_s: float) -> None:
    """Within a span, over several, over a stall, over blocks; a link asked late or early says the same."""
    spans = by_hand()
    assert spans.finish_s(start_s, size_bytes) == pytest.approx(finish_s, abs=1e-9)
    spans.finish_s(60_000.0, MB)
    assert spans.finish_s(start_s, size_bytes) == pytest.approx(finish_s, abs=1e-9)


def markov(**parameters: Any) -> Markov:
    """States of 8, 16, 24, ... Mbit/s, that is 1, 2, 3, ... bytes a microsecond."""
    made = Markov(**({"mbps": [8.0, 16.0, 24.0, 32.0], "dwell_ms": 100.0} | parameters))
    made.reseed(np.random.default_rng(3))
    return made


def states_at(made: Markov, times_s: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The state at each time, from how long one byte takes (a change within that microsecond aside)."""
    taken_s = np.array([made.finish_s(t, 1) - t for t in times_s.tolist()])
    return np.rint(1e-6 / taken_s).astype(int) - 1


@pytest.mark.parametrize("dwells_ms", [100.0, [40.0, 10.0, 100.0, 50.0]])
def test_occupancy(dwells_ms: float | list[float]) -> None:
    """Every state's share of the time is its share of the dwells, within five standard errors."""
    made, count = markov(dwell_ms=dwells_ms), 10_000
    share = np.bincount(states_at(made, np.arange(count) * 0.5), minlength=4) / count
    weights = np.broadcast_to(dwells_ms, 4) / np.broadcast_to(dwells_ms, 4).sum()
    assert (abs(share - weights) < 5 * np.sqrt(weights * (1 - weights) / count)).all()
    assert made.mean_bps == pytest.approx(8e6 * (weights @ [1, 2, 3, 4]))


@pytest.mark.parametrize("lag_ms", [5.0, 30.0, 100.0])
def test_how_long_it_stays(lag_ms: float) -> None:
    """P(same state after t) of a two-state chain: π₁ + π₂ exp(-(1/d₁ + 1/d₂) t), and the mirror of it."""
    made, count = markov(mbps=[8.0, 16.0], dwell_ms=[20.0, 60.0]), 20_000
    states = states_at(made, np.sort(np.concatenate([(t := np.arange(count) * 0.5), t + lag_ms / 1e3])))
    before, after = states[::2], states[1::2]
    decay = exp(-(1 / 20.0 + 1 / 60.0) * lag_ms)
    for state, weight in ((0, 0.25), (1, 0.75)):
        stayed, expected = (after[before == state] == state), weight + (1 - weight) * decay
        assert abs(stayed.mean() - expected) < 5 * sqrt(expected * (1 - expected) / len(stayed))


def test_equal_states_leave_for_every_other() -> None:
    """Four states with one dwell: 1/4 + 3/4 exp(-4/3 t/d) is still or again the same after t."""
    made, count = markov(), 20_000
    states = states_at(made, np.sort(np.concatenate([(t := np.arange(count) * 0.5), t + 0.05])))
    expected = 0.25 + 0.75 * exp(-4 / 3 * 0.5)
    assert abs((states[::2] == states[1::2]).mean() - expected) < 5 * sqrt(expected * (1 - expected) / count)


def test_the_first_state_is_a_typical_one() -> None:
    """Over many seeds it is drawn as if the chain had run for ever."""
    made, firsts = Markov(mbps=[8.0, 16.0], dwell_ms=[10.0, 90.0]), []
    for seed in range(1000):
        made.reseed(np.random.default_rng(seed))
        firsts.append(int(states_at(made, np.array([0.0]))[0]))
    assert abs(np.mean(firsts) - 0.9) < 5 * sqrt(0.09 / 1000)


def test_one_state_is_a_constant_rate() -> None:
    assert Markov(mbps=[8.0]).finish_s(3.0, 10 * MB) == pytest.approx(13.0, abs=1e-9)


def test_markov_refuses_what_cannot_be() -> None:
    with pytest.raises(InputError, match="dwell_ms has 3 entries for 2 states"):
        Markov(mbps=[1.0, 2.0], dwell_ms=[5.0, 6.0, 7.0])
    for nothing in ([], [0.0, 0.0]):
        with pytest.raises(InputError, match="no state has a rate"):
            Markov(mbps=nothing)


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 10.0, 30.0, 60.0])
def test_ergodic_capacity(snr_db: float) -> None:
    """e^(1/SNR) E1(1/SNR) / ln 2 per Hz."""
    snr = 10.0 ** (snr_db / 10.0)
    expected = np.exp(1.0 / snr) * exp1(1.0 / snr) / np.log(2.0)
    assert Fading(bandwidth_mhz=1.0, snr_db=snr_db).mean_bps == pytest.approx(1e6 * expected, rel=1e-6)


def test_the_rate_at_ten_decibels() -> None:
    """2.9 bit/s per Hz; what goes through is within four standard errors of it, over some 40,000 blocks."""
    link, count = Fading(bandwidth_mhz=1.0, snr_db=10.0, coherence_ms=10.0), 1000
    assert link.mean_bps == pytest.approx(2.9e6, rel=0.005)
    fifo = Fifo(link)
    end_s = max(fifo.send(0.0, 145_000)[1] for _ in range(count))
    deviation = np.log2(1.0 + 10.0 * np.random.default_rng(1).exponential(size=200_000)).std()
    through = 8 * 145_000 * count / end_s / 1e6
    assert abs(through - link.mean_bps / 1e6) < 4 * deviation / sqrt(end_s / 0.01)


def test_a_block_is_as_long_as_the_coherence() -> None:
    """The rate changes at its edges, and only there."""
    link = Fading(bandwidth_mhz=8.0, coherence_ms=10.0)
    taken = [link.finish_s(t, 1) - t for t in np.arange(0.0005, 1.0, 0.001).tolist()]
    changes = [abs(b / a - 1.0) > 1e-6 for a, b in pairwise(taken)]
    assert [k for k, changed in enumerate(changes) if changed] == list(range(9, 999, 10))
