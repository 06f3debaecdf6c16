"""Slow start, idle restart and headers: against real TCP, hand arithmetic and a model of every segment."""

from __future__ import annotations

from math import ceil, inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitexit.errors import InputError
from splitexit.links import Fifo
from splitexit.links._tcp import INITIAL_SEGMENTS, SEGMENT_BYTES
from splitexit.links.constant import Constant
from splitexit.links.modulated import Modulated
from splitexit.links.presets import Lte
from splitexit.links.sharing import Sharing

KB64 = 65_536
Plan = list[tuple[float, int]]


def link(mbps: float = 100.0, delay_ms: float = 20.0, **parameters: float) -> Constant:
    """A link that carries TCP."""
    return Constant(mbps=mbps, delay_ms=delay_ms, transport="tcp", **parameters)


def uploads_ms(made: Constant, plan: Plan) -> list[float]:
    """Of messages over one connection, each so many seconds after the answer to the one before."""
    fifo, now_s, found = Fifo(made), 0.0, []
    for gap_s, size_bytes in plan:
        now_s += gap_s
        arrive_s = fifo.send(now_s, size_bytes)[2]
        found.append(1e3 * (arrive_s - now_s))
        now_s = arrive_s + made.delay_s
    return found


MEASURED: list[tuple[float, float, Plan, list[float]]] = [
    (100.0, 20.0, [(0.0, 14_480)], [21.32]),
    (100.0, 20.0, [(0.0, 14_490)], [60.49]),
    (100.0, 20.0, [(0.0, KB64), (0.0, KB64), (1.0, KB64), (3.0, KB64)], [103.32, 25.55, 103.57, 102.68]),
    (100.0, 20.0, [(0.0, 262_144), (0.0, 262_144), (0.6, 262_144)], [186.60, 43.80, 74.06]),
    (100.0, 50.0, [(0.0, 8_192), (0.0, 8_192), (0.0, KB64)], [50.81, 50.75, 254.96]),
    (10.0, 20.0, [(0.0, KB64), (0.0, KB64), (0.0, 262_144)], [121.19, 74.47, 237.69]),
    (10.0, 5.0, [(0.0, 262_144), (0.6, 262_144)], [222.69, 223.35]),
]
"""By Linux 6.18, cubic, with the predecessor of benchmarks/upload.py: Mbit/s, ms each way, gaps and sizes, ms to the last byte."""


@pytest.mark.parametrize(("mbps", "delay_ms", "plan", "measured_ms"), MEASURED)
def test_as_measured(mbps: float, delay_ms: float, plan: Plan, measured_ms: list[float]) -> None:
    """Within 5 %: fresh, warm, idle; the window from the last message, and no more of it than was used."""
    assert uploads_ms(link(mbps, delay_ms), plan) == pytest.approx(measured_ms, rel=0.05)


def test_a_fresh_window_by_hand() -> None:
    """64 KiB are 46 segments: 10, 20 and 16 of them, a round trip and a segment apart."""
    segment_ms, last_bytes = 1500 * 8 / 1e5, KB64 - 45 * SEGMENT_BYTES + 52
    fresh_ms, warm_ms = uploads_ms(link(), [(0.0, KB64), (0.0, KB64)])
    assert fresh_ms == pytest.approx(2 * (40.0 + segment_ms) + 15 * segment_ms + last_bytes * 8 / 1e5 + 20.0, abs=1e-9)
    assert warm_ms == pytest.approx(45 * segment_ms + last_bytes * 8 / 1e5 + 20.0, abs=1e-9)


@pytest.mark.parametrize(("size_bytes", "wire_bytes"), [(0, 0), (1, 53), (1448, 1500), (1449, 1553), (14_480, 15_000)])
def test_headers(size_bytes: int, wire_bytes: int) -> None:
    """52 bytes for every segment."""
    assert Fifo(link(mbps=8.0)).send(0.0, size_bytes)[1] == pytest.approx(wire_bytes / 1e6, abs=1e-12)


def segment_by_segment(size_bytes: int, mbps: float, rtt_s: float) -> float:
    """When the last bit is sent: segment i may leave when i - acknowledged < 10 + acknowledged."""
    sent_s: list[float] = []
    for number in range(ceil(size_bytes / SEGMENT_BYTES)):
        needed = ceil((number + 1 - INITIAL_SEGMENTS) / 2)
        opened_s = sent_s[needed - 1] + rtt_s if needed > 0 else 0.0
        payload = min(SEGMENT_BYTES, size_bytes - number * SEGMENT_BYTES)
        sent_s.append(max(opened_s, sent_s[-1] if sent_s else 0.0) + (payload + 52) * 8e-6 / mbps)
    return sent_s[-1]


@settings(max_examples=200, deadline=None)
@given(
    size_bytes=st.integers(1, 1_000_000),
    mbps=st.floats(0.5, 1000.0),
    delay_ms=st.floats(0.0, 200.0),
    rtt_ms=st.one_of(st.none(), st.floats(0.0, 400.0)),
)
def test_a_fresh_message_as_segment_by_segment(
    size_bytes: int, mbps: float, delay_ms: float, rtt_ms: float | None
) -> None:
    """To a nanosecond, at any rate and round trip."""
    made = Constant(mbps=mbps, delay_ms=delay_ms, transport="tcp", rtt_ms=rtt_ms)
    rtt_s = (2 * delay_ms if rtt_ms is None else rtt_ms) / 1000.0
    assert Fifo(made).send(0.0, size_bytes)[1] == pytest.approx(segment_by_segment(size_bytes, mbps, rtt_s), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(
    messages=st.lists(st.tuples(st.floats(0.0, 0.5), st.integers(1, 200_000)), min_size=1, max_size=8),
    mbps=st.sampled_from([2.0, 20.0, 200.0]),
)
def test_whole_messages_are_sent_as_their_pieces_are(messages: Plan, mbps: float) -> None:
    """The simulator sends messages, the proxy pieces: the same to a hundredth, or a few segments."""
    whole, cut, now_s = Fifo(link(mbps)), Fifo(link(mbps)), 0.0
    assert cut.piece_bytes == SEGMENT_BYTES
    for gap_s, size_bytes in messages:
        now_s += gap_s
        sent_s = whole.send(now_s, size_bytes)[1]
        for start in range(0, size_bytes, SEGMENT_BYTES):
            cut_s = cut.send(now_s, min(SEGMENT_BYTES, size_bytes - start))[1]
    assert cut_s - now_s == pytest.approx(sent_s - now_s, rel=0.01, abs=0.045)


@pytest.mark.parametrize("idle_s", [0.1, 0.239, 0.241, 0.5, 0.75, 5.0])
def test_idle_restart(idle_s: float) -> None:
    """The window is halved for every 240 ms (a round trip of 40 and 200) without sending, down to ten segments."""
    fifo = Fifo(link())
    for now_s in (0.0, 0.3, 0.4):  # the window is then 2 * 80, twice what is used
        sent_s = fifo.send(now_s, 80 * SEGMENT_BYTES)[1]
    window = max(10, 160 >> int(idle_s / 0.24))
    assert fifo.peek(sent_s + idle_s, window * SEGMENT_BYTES)[1] - sent_s - idle_s < 0.04
    assert fifo.peek(sent_s + idle_s, (window + 1) * SEGMENT_BYTES)[1] - sent_s - idle_s > 0.04


def test_a_message_waits_for_the_one_before() -> None:
    """One connection, bytes in order: the link stands still with the window."""
    fifo = Fifo(link())
    first, second = fifo.send(0.0, KB64), fifo.send(0.001, 100)
    assert second[0] == first[1] == fifo.free_s - 152 * 8e-8


def test_those_who_share_a_link_do_not_wait_for_each_other_s_window() -> None:
    """Only for each other's bytes; every sender has a window of its own."""
    fifo = Fifo(link())
    one = fifo.send(0.0, KB64, "one")
    alone_s = Fifo(link()).send(0.0, KB64)[1]
    assert one == pytest.approx((0.0, alone_s, alone_s + 0.02), abs=1e-9)
    other = fifo.send(0.0, 1448, "other")
    assert other == pytest.approx((fifo.free_s - 0.00012, fifo.free_s, fifo.free_s + 0.02), abs=1e-9)
    assert fifo.free_s == pytest.approx((KB64 + 46 * 52 + 1500) * 8e-8, abs=1e-9)
    again = fifo.peek(1e-3, 1448, "one")
    assert again[1] == pytest.approx(alone_s + 0.00012, abs=1e-9)


def test_processor_sharing_over_tcp() -> None:
    """Two uploads at half the rate each; what each waits for its window is its own affair."""
    sharing = Sharing(link(10.0))
    for sender in ("one", "other"):
        sharing.offer(0.0, KB64, sender, sender)
    peeked = sharing.peek(0.0, 0, "third")
    assert peeked == (0.0, 0.0, 0.02)
    found = [sharing.take(), sharing.take()]
    alone_s = Fifo(link(5.0)).send(0.0, KB64)[1]
    assert [one.key for one in found] == ["one", "other"]
    assert [one.sent_s for one in found] == pytest.approx([alone_s] * 2, rel=0.01)
    assert [one.arrive_s - one.sent_s for one in found] == pytest.approx([0.02] * 2)
    later_s = found[1].sent_s
    sharing.offer(later_s, KB64, None, "one")
    assert sharing.take().sent_s == pytest.approx(later_s + (KB64 + 46 * 52) * 8e-7, abs=1e-9)


def test_an_outage_holds_the_connection() -> None:
    """For its time, or for ever."""
    held = Fifo(Modulated(link(), [(0.01, 1.0, 0.0)]))
    assert held.send(0.0, 14_490)[1] == pytest.approx(1.0 + 62 * 8e-8, abs=1e-9)
    fifo = Fifo(Modulated(link(), [(0.05, inf, 0.0)]))
    assert fifo.fork().send(0.0, KB64) == fifo.send(0.0, KB64) == (0.0, inf, inf)
    assert fifo.send(0.5, 100) == fifo.send(9.0, 262_144) == (inf, inf, inf)
    shared = Fifo(Modulated(link(jitter_ms=4.0), [(0.0, inf, 0.0)]))
    assert [shared.send(1.0, KB64, sender)[1:] for sender in "aba"] == [(inf, inf)] * 3


def test_presets_carry_it_too() -> None:
    """With their own delay's round trip."""
    assert Lte(transport="tcp").rtt_s == pytest.approx(0.0199)
    assert Lte(transport="tcp", rtt_ms=35.0).rtt_s == 0.035


def test_an_unknown_transport_is_refused() -> None:
    """Where no scenario's schema has done so."""
    with pytest.raises(InputError, match="^transport 'udp': expected none or tcp$"):
        Constant(mbps=1.0, transport="udp")  # type: ignore[arg-type]
