"""Processor sharing against hand arithmetic and against a slow reference."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitexit.errors import InputError
from splitexit.links import Link
from splitexit.links.constant import Constant
from splitexit.links.fading import Fading
from splitexit.links.gilbert_elliott import GilbertElliott
from splitexit.links.mahimahi import Mahimahi
from splitexit.links.markov import Markov
from splitexit.links.modulated import Modulated
from splitexit.links.sharing import Delivery, Sharing
from splitexit.links.token_bucket import TokenBucket
from splitexit.links.trace import Trace

MB = 1_000_000
TRACES = Path(__file__).parents[1] / "scenarios" / "traces"
Offers = list[tuple[float, float]]


def deliveries(sharing: Sharing, offers: Offers) -> list[Delivery]:
    """What becomes of messages offered at these times, numbered."""
    found = []
    for number, (now_s, size_bytes) in enumerate(offers):
        while sharing.next_s() <= now_s:
            found.append(sharing.take())
        sharing.offer(now_s, size_bytes, number)
    while sharing.next_s() < inf:
        found.append(sharing.take())
    return found


def test_by_hand() -> None:
    """3 MB at 0 s and 1 MB at 1 s at 1 MB/s: the second has had half the rate for 2 s, the first the rest."""
    sharing = Sharing(Constant(mbps=8.0, delay_ms=100.0))
    found = deliveries(sharing, [(0.0, 3 * MB), (1.0, MB), (10.0, MB // 2)])
    assert [one.key for one in found] == [1, 0, 2]
    assert [one[1:] for one in found] == [
        pytest.approx((1.0, 3.0, 3.1), abs=1e-12),
        pytest.approx((0.0, 4.0, 4.1), abs=1e-12),
        pytest.approx((10.0, 10.5, 10.6), abs=1e-12),
    ]


def test_the_time_of_the_next_moves() -> None:
    """Later when another comes, earlier when that is shorter; none is never."""
    sharing = Sharing(Constant(mbps=8.0))
    assert sharing.next_s() == inf
    sharing.offer(0.0, 2 * MB)
    assert sharing.next_s() == pytest.approx(2.0)
    sharing.offer(1.0, 10 * MB)
    assert sharing.next_s() == pytest.approx(3.0)
    sharing.offer(1.0, MB // 10)
    assert sharing.next_s() == pytest.approx(1.3)
    with pytest.raises(ValueError, match="take that one first"):
        sharing.offer(1.4, MB)


def test_nothing_to_take() -> None:
    """An error of the caller."""
    with pytest.raises(IndexError):
        Sharing(Constant(mbps=8.0)).take()


def test_equals_leave_in_the_order_they_came() -> None:
    """At one moment."""
    found = deliveries(Sharing(Constant(mbps=8.0)), [(0.0, MB)] * 3)
    assert [(one.key, one.sent_s) for one in found] == [(k, pytest.approx(3.0)) for k in range(3)]


@pytest.mark.parametrize(
    "link", [TokenBucket(mbps=1.0, depth_kb=10.0), GilbertElliott(mbps=1.0, p=0.1, r=0.5)], ids=["token", "loss"]
)
def test_refused_links(link: Link) -> None:
    """In one line that names the link."""
    with pytest.raises(InputError, match="^(token-bucket|gilbert-elliott): its capacity depends on what is sent"):
        Sharing(link)


LINKS: dict[str, Link] = {
    "constant": Constant(mbps=8.0, delay_ms=3.0),
    "trace": Trace(trace=TRACES / "norway_tram_12"),
    "mahimahi": Mahimahi(trace=TRACES / "lte_walk.up"),
    "markov": Markov(mbps=[0.0, 2.0, 9.0], dwell_ms=100.0),
    "fading": Fading(bandwidth_mhz=1.0, coherence_ms=20.0),
    "outages": Modulated(Constant(mbps=8.0), [(0.2, 0.5, 0.0), (0.7, 1.9, 0.3)]),
}
OFFERS = st.lists(st.tuples(st.sampled_from([0.0, 1e-4, 0.01, 0.3]), st.integers(0, 90_000)), min_size=1, max_size=25)
"""Gaps in seconds and sizes in bytes."""


def reference(link: Link, offers: Offers) -> dict[int, float]:
    """When each is through: all that is left of every message present is written down at every event."""
    left: dict[int, float] = {}
    waiting, now_s, through = list(enumerate(offers)), 0.0, dict[int, float]()
    while waiting or left:
        due_s = link.fluid_s(now_s, min(left.values()) * len(left)) if left else inf
        arrival_s = waiting[0][1][0] if waiting else inf
        event_s = min(due_s, arrival_s)
        share = link.sent_bytes(now_s, event_s) / max(1, len(left))
        left = {number: size - share for number, size in left.items()}
        if due_s <= arrival_s:
            first = min(left, key=left.__getitem__)
            through[first] = due_s
            del left[first]
        else:
            number, (_, size_bytes) = waiting.pop(0)
            left[number] = size_bytes
        now_s = event_s
    return through


@pytest.mark.parametrize("name", LINKS)
@settings(max_examples=60, deadline=None)
@given(gaps=OFFERS)
def test_against_the_reference(name: str, gaps: list[tuple[float, int]]) -> None:
    """To a nanosecond; whatever the order of equals."""
    link, now_s, offers = LINKS[name].fork(), 0.0, []
    for gap_s, size_bytes in gaps:
        now_s += gap_s
        offers.append((now_s, float(size_bytes)))
    found = {one.key: one.sent_s for one in deliveries(Sharing(link), offers)}
    assert found == pytest.approx(reference(link, offers), abs=1e-9)


@pytest.mark.parametrize("name", LINKS)
@settings(max_examples=30, deadline=None)
@given(gaps=OFFERS, ahead_s=st.sampled_from([0.0, 0.05, 2.0]), size_bytes=st.integers(0, 90_000))
def test_a_fork_and_a_look_ahead_change_nothing(
    name: str, gaps: list[tuple[float, int]], ahead_s: float, size_bytes: int
) -> None:
    """And see what comes if nothing else does."""
    sharing, now_s = Sharing(LINKS[name].fork()), 0.0
    for gap_s, size in gaps:
        now_s += gap_s
        while sharing.next_s() <= now_s:
            sharing.take()
        sharing.offer(now_s, size)
    now_s += ahead_s
    peeked, fork = sharing.peek(now_s, size_bytes), sharing.fork()
    for one in (sharing, fork):
        while one.next_s() <= now_s:
            one.take()
        one.offer(now_s, size_bytes, "mine")
    rest = [deliveries(one, []) for one in (sharing, fork)]
    assert rest[0] == rest[1]
    assert next(one[1:] for one in rest[0] if one.key == "mine") == peeked


def test_rounding_does_not_wait_for_another_opportunity() -> None:
    """Fifteen messages of 200 opportunities together end with the last of them, whoever had which part of a byte."""
    sizes = [2209, 32911, 308, 1, 12267, 65543, 15674, 65528, 65543, 1, 20020, 320, 2, 5132]
    link = Mahimahi(trace=TRACES / "lte_walk.up")
    found = deliveries(Sharing(link), [(0.0, size) for size in [*sizes, 300_000 - sum(sizes)]])
    assert found[-1].sent_s == pytest.approx(link.fluid_s(0.0, 300_000), abs=1e-9)
    assert found[-1].sent_s == pytest.approx(link.fluid_s(0.0, 299_999.99), abs=1e-7)


def test_order_is_kept_under_jitter() -> None:
    """What is sent later arrives later or at once."""
    sharing = Sharing(Constant(mbps=8.0, delay_ms=50.0, jitter_ms=30.0))
    found = deliveries(sharing, [(0.004 * k, 100 + 977 * k % 5000) for k in range(500)])
    sent, arrived = [one.sent_s for one in found], [one.arrive_s for one in found]
    assert sent == sorted(sent)
    assert arrived == sorted(arrived)
    assert all(a >= s for a, s in zip(arrived, sent, strict=True))


def test_an_outage_to_the_end() -> None:
    """Never is never; looking ahead says so."""
    sharing = Sharing(Modulated(Constant(mbps=8.0), [(1.0, inf, 0.0)]))
    sharing.offer(0.0, 2 * MB)
    sharing.offer(0.5, MB // 10)
    assert sharing.take().sent_s == pytest.approx(0.7)
    assert sharing.next_s() == inf
    assert sharing.peek(5.0, 10) == (5.0, inf, inf)
    assert sharing.peek(inf, 10) == (inf, inf, inf)


def test_a_long_busy_period_stays_exact() -> None:
    """A message always there, a hundred thousand others: each pair of them takes a millisecond."""
    sharing = Sharing(Constant(mbps=8.0))
    sharing.offer(0.0, 1e12, "always")
    for k in range(100_000):
        sharing.offer(0.001 * k, 500)
        assert abs(sharing.take().sent_s - 0.001 * (k + 1)) < 1e-9
