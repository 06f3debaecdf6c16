"""Links under outages and changes of their rate, against hand arithmetic."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import inf
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitexit.errors import InputError
from splitexit.links import Fifo
from splitexit.links.constant import Constant
from splitexit.links.gilbert_elliott import GilbertElliott
from splitexit.links.mahimahi import Mahimahi
from splitexit.links.markov import Markov
from splitexit.links.modulated import Modulated, Window
from splitexit.links.token_bucket import TokenBucket
from splitexit.links.trace import Trace

MB = 1_000_000
TRACES = Path(__file__).parents[1] / "scenarios" / "traces"
WINDOWS: list[Window] = [(1.0, 2.0, 0.0), (3.0, 5.0, 0.5), (4.0, 6.0, 0.5), (8.0, inf, 0.25)]
"""Of 1 MB/s: 1 until 1 s, 0 until 2, 1 until 3, 1/2 until 4, 1/4 until 5, 1/2 until 6, 1 until 8, 1/4 from then on."""


def by_hand() -> Modulated:
    """One megabyte per second."""
    return Modulated(Constant(mbps=8.0, delay_ms=30.0), WINDOWS)


@pytest.mark.parametrize(
    ("start_s", "size_bytes", "finish_s"),
    [
        (0.0, 0, 0.0),
        (1.5, 0, 1.5),
        (0.0, MB // 2, 0.5),
        (0.0, MB, 1.0),
        (0.0, MB + 1, 2.000001),
        (0.5, MB, 2.5),
        (1.0, MB // 4, 2.25),
        (1.5, MB // 4, 2.25),
        (3.0, MB // 2, 4.0),
        (3.0, MB * 3 // 4, 5.0),
        (2.5, 3 * MB, 7.25),
        (0.0, 7 * MB, 15.0),
        (100.0, MB, 104.0),
    ],
)
def test_by_hand(start_s: float, size_bytes: int, finish_s: float) -> None:
    """Before, within, between and after; a message in an outage stands still; factors that overlap multiply."""
    link = by_hand()
    assert link.finish_s(start_s, size_bytes) == pytest.approx(finish_s, abs=1e-9)
    assert link.sent_bytes(start_s, finish_s) == pytest.approx(size_bytes, abs=1e-3)


def test_the_rest_is_the_link_s() -> None:
    """Delay, rate as known beforehand, no copy where there is nothing to copy."""
    link = by_hand()
    assert (link.delay_s, link.mean_bps, link.jitter_ms) == (0.03, 8e6, 0.0)
    assert link.fork() is link
    assert Fifo(link).send(0.5, MB) == pytest.approx((0.5, 2.5, 2.53), abs=1e-9)


@pytest.mark.parametrize("jitter_ms", [0.0, 5.0])
def test_an_outage_to_the_end(jitter_ms: float) -> None:
    """What is not through by then never is, and neither is what comes after."""
    fifo = Fifo(Modulated(Constant(mbps=8.0, delay_ms=30.0, jitter_ms=jitter_ms), [(1.0, inf, 0.0)]))
    assert fifo.send(0.0, MB)[1] == pytest.approx(1.0, abs=1e-9)
    assert fifo.send(0.5, 1) == (pytest.approx(1.0, abs=1e-9), inf, inf)
    assert fifo.peek(2.0, MB) == fifo.send(2.0, MB) == (inf, inf, inf)
    assert fifo.link.sent_bytes(0.0, 50.0) == pytest.approx(MB)


@pytest.mark.parametrize(
    "link", [TokenBucket(mbps=1.0, depth_kb=10.0), GilbertElliott(mbps=1.0, p=0.1, r=0.5)], ids=["token", "loss"]
)
def test_refused_links(link: TokenBucket | GilbertElliott) -> None:
    """In one line that names the link."""
    with pytest.raises(
        InputError, match="^(token-bucket|gilbert-elliott): its capacity depends .* try constant, trace"
    ):
        Modulated(link, [])


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_random_links_keep_their_chance(factor: float) -> None:
    """The same seed meets the same rates with and without events, alone and in a fork."""
    plain = Markov(mbps=[1.0, 9.0], dwell_ms=20.0, jitter_ms=3.0)
    under = Modulated(Markov(mbps=[1.0, 9.0], dwell_ms=20.0, jitter_ms=3.0), [(0.0, inf, factor)])
    for link in (plain, under):
        link.reseed(np.random.default_rng(5))
    twin = under.fork()
    assert twin is not under
    assert twin.link is not under.link
    for start_s in np.arange(0.0, 4.0, 0.37).tolist():
        expected_s = plain.finish_s(start_s, 50_000 / factor)
        assert under.finish_s(start_s, 50_000) == twin.finish_s(start_s, 50_000) == pytest.approx(expected_s, abs=1e-12)
        assert under.arrive_s(start_s, expected_s) == plain.arrive_s(start_s, expected_s)


def test_without_windows_a_trace_is_what_it_was() -> None:
    """And mahimahi from its start on at most an opportunity's millisecond before its own."""
    trace = Trace(trace=TRACES / "norway_tram_12")
    packets = Mahimahi(trace=TRACES / "lte_walk.up")
    for start_s in np.arange(0.0, 900.0, 31.0).tolist():
        assert Modulated(trace, []).finish_s(start_s, 77_777) == trace.finish_s(start_s, 77_777)
    for size_bytes in range(1500, 1_500_000, 15_000):
        ahead_s = packets.fork().finish_s(0.0, size_bytes) - Modulated(packets, []).finish_s(0.0, size_bytes)
        assert -1e-9 <= ahead_s <= 0.001 + 1e-9


SPANS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([0, 1, 2, 5])), max_size=5)
"""From when, for how long (tenths of a second), and halves of the rate."""


@settings(max_examples=200, deadline=None)
@given(spans=SPANS, start=st.integers(0, 60), size_bytes=st.integers(1, 5 * MB))
def test_any_windows(spans: list[tuple[int, int, int]], start: int, size_bytes: int) -> None:
    """Against a walk from edge to edge in exact arithmetic."""
    windows: list[Window] = [(a / 10, (a + n) / 10, halves / 2) for a, n, halves in spans]
    link = Modulated(Constant(mbps=8.0), windows)
    edges = sorted({Fraction(start, 10), *(Fraction(e, 10) for a, n, _ in spans for e in (a, a + n) if e > start)})
    left, finish = Fraction(size_bytes, MB), Fraction(0)
    for edge, after in pairwise([*edges, Fraction(10**9)]):
        rate = Fraction(1)
        for a, n, halves in spans:
            rate *= Fraction(halves, 2) if Fraction(a, 10) <= edge < Fraction(a + n, 10) else 1
        if rate * (after - edge) >= left:
            finish = edge + left / rate
            break
        left -= rate * (after - edge)
    assert link.finish_s(start / 10, size_bytes) == pytest.approx(float(finish), abs=1e-9)
    assert link.sent_bytes(start / 10, float(finish)) == pytest.approx(size_bytes, abs=1e-2)
