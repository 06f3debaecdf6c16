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


KB256, MB = 262_144, 1_048_576
GROWING: Plan = [(0.0, size) for size in (1024, KB64, KB64, KB64, KB256, KB256, MB, MB)] + [(0.3, MB), (1.0, MB)]

MEASURED: list[tuple[float, float, Plan, list[float]]] = [
    (100.0, 20.0, [(0.0, 14_480)], [21.32]),
    (100.0, 20.0, [(0.0, 14_490)], [60.49]),
    (100.0, 20.0, [(0.0, KB64), (0.0, KB64), (1.0, KB64), (3.0, KB64)], [103.32, 25.55, 103.57, 102.68]),
    (100.0, 20.0, [(0.0, KB256), (0.0, KB256), (0.6, KB256)], [186.60, 43.80, 74.06]),
    (100.0, 50.0, [(0.0, 8_192), (0.0, 8_192), (0.0, KB64)], [50.81, 50.75, 254.96]),
    (10.0, 20.0, [(0.0, KB64), (0.0, KB64), (0.0, KB256)], [121.19, 74.47, 237.69]),
    (10.0, 20.0, [(0.0, KB64), (0.0, KB64), (0.3, KB64), (1.0, KB64)], [121.59, 74.45, 93.18, 123.78]),
    (10.0, 5.0, [(0.0, KB256), (0.6, KB256)], [222.69, 223.35]),
    (100.0, 20.0, GROWING, [20.36, 103.15, 25.62, 25.61, 71.64, 42.05, 108.59, 108.33, 122.51, 230.85]),
    (100.0, 50.0, GROWING, [50.22, 252.96, 55.60, 55.58, 161.66, 72.07, 195.30, 138.42, 138.62, 274.74]),
    (10.0, 20.0, GROWING, [21.03, 123.83, 74.53, 74.54, 237.80, 237.78, 890.75, 890.59, 890.42, 890.26]),
]
"""By Linux 6.18, cubic, over the TUN network: Mbit/s, ms each way, gaps and sizes, ms to the last byte."""


@pytest.mark.parametrize(("mbps", "delay_ms", "plan", "measured_ms"), MEASURED)
def test_as_measured(mbps: float, delay_ms: float, plan: Plan, measured_ms: list[float]) -> None:
    """Within 5 %: fresh, warm, idle; the window from the last message, and no more of it than was used."""
    assert uploads_ms(link(mbps, delay_ms), plan) == pytest.approx(measured_ms, rel=0.05)


def test_a_fresh_window_by_hand() -> None:
    """64 KiB are 46 segments: 10, 20 and 16 of them, a round trip and a segment apart, while each is acknowledged."""
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
    """The simulator sends messages, the proxy pieces: the same to a hundredth, or two round trips of 40 ms.

    A pause as long as the RTO costs one of them its window and the other not, where their SRTT differ in a last digit.
    """
    whole, cut, now_s = Fifo(link(mbps)), Fifo(link(mbps)), 0.0
    assert cut.piece_bytes == SEGMENT_BYTES
    for gap_s, size_bytes in messages:
        now_s += gap_s
        sent_s = whole.send(now_s, size_bytes)[1]
        for start in range(0, size_bytes, SEGMENT_BYTES):
            cut_s = cut.send(now_s, min(SEGMENT_BYTES, size_bytes - start))[1]
    assert cut_s - now_s == pytest.approx(sent_s - now_s, rel=0.01, abs=0.09)


def window(fifo: Fifo) -> int:
    """Segments that may leave now, once all are acknowledged."""
    connection = fifo.connections[None]  # type: ignore[index]
    connection._hear(inf)
    return connection._window


@pytest.mark.parametrize("timeouts", [0.5, 0.99, 1.01, 2.5, 3.2, 20.0])
def test_idle_restart(timeouts: float) -> None:
    """The window is halved for every RTO (SRTT and 200 ms) since the last segment left, down to ten segments."""
    fifo, handed_s = Fifo(link()), 0.4
    for now_s in (0.0, 0.3, handed_s):
        fifo.send(now_s, 80 * SEGMENT_BYTES)
    before = window(fifo)  # twice what is used, so that it all left when it was handed over
    assert before == 160
    srtt_s = fifo.connections[None]._srtt_s  # type: ignore[index]
    assert 0.040 < srtt_s < 0.050
    now_s = handed_s + timeouts * (srtt_s + 0.2)
    left = max(10, before >> int(timeouts))
    for segments, round_trip in ((left, False), (left + 1, True)):
        waits = fifo.peek(now_s, segments * SEGMENT_BYTES)[1] - now_s > 0.04
        assert waits is round_trip


def test_acknowledgements_are_delayed_once_the_receiver_has_answered() -> None:
    """Each for two segments then: every round trip of a window that has not grown takes a segment's time more."""
    fresh, known, segment_s = Fifo(link(10.0, 50.0)), Fifo(link(10.0, 50.0)), 1500 * 8e-7
    known.send(0.0, 100)
    fresh_s, known_s = fresh.send(1.0, KB64)[1], known.send(1.0, KB64)[1]
    assert known_s - fresh_s == pytest.approx(2 * segment_s, abs=1e-9)


def test_hystart_ends_slow_start_when_acknowledgements_fill_half_the_round_trip() -> None:
    """100 Mbit/s: one in 0.24 ms; the train of the round of 182 segments passes 20.6 ms; Linux stopped at 364."""
    fifo, now_s = Fifo(link()), 0.0
    for size_bytes in (KB64, KB64, KB256):
        now_s = fifo.send(now_s, size_bytes)[2] + 0.02
        assert fifo.connections[None]._threshold == inf  # type: ignore[index]
    grown = window(fifo)
    assert 2 * 182 > grown > 182
    now_s = fifo.send(now_s, KB256)[2] + 0.02
    assert window(fifo) == fifo.connections[None]._threshold == 2 * 182  # type: ignore[index]


def test_hystart_ends_slow_start_when_round_trips_grow() -> None:
    """10 Mbit/s: with acknowledgements every 2.4 ms there is no train, but a queue of more than an eighth of 41 ms."""
    fifo = Fifo(link(10.0))
    fifo.send(0.0, 100)
    now_s = fifo.send(1.0, MB)[2]
    before = window(fifo)
    assert 33 < before < 200  # a full path, and its queue; not the 700 segments of the message
    fifo.send(now_s + 0.02, MB)
    assert window(fifo) - before in (725 // 20, 725 // 20 + 1)  # cubic: one for 20, and what was left over


def test_below_sixteen_segments_slow_start_goes_on() -> None:
    """HYSTART_LOW_WINDOW: even where the path is full at once."""
    fifo = Fifo(link(1.0, 0.1))
    fifo.send(0.0, 10 * SEGMENT_BYTES)
    assert window(fifo) >= 16


def test_idle_time_counts_in_smoothed_round_trips() -> None:
    """A queue makes them long: at 1 Mbit/s the last of 100 segments took over a second; 0.8 s are no idle time then."""
    fifo = Fifo(link(1.0, 5.0))
    for _ in (1, 2):
        sent_s = fifo.send(fifo.free_s + 0.1, 100 * SEGMENT_BYTES)[1]
    before = window(fifo)
    assert fifo.connections[None]._srtt_s > 0.3  # type: ignore[index]
    fifo.send(sent_s + 0.1, 100)
    assert window(fifo) == before


def test_after_an_idle_time_slow_start_goes_up_to_three_quarters() -> None:
    """tcp_cwnd_restart: what was known of the path is not forgotten."""
    fifo, now_s = Fifo(link()), 0.0
    for size_bytes in (KB64, KB64, KB256, KB256):
        now_s = fifo.send(now_s, size_bytes)[2] + 0.02
    connection = fifo.connections[None]  # type: ignore[index]
    before = window(fifo)
    fifo.send(now_s + 60.0, 100)
    assert connection._window == INITIAL_SEGMENTS
    assert connection._threshold == max(2 * 182, before * 3 // 4)


def test_a_fork_goes_its_own_way() -> None:
    """HyStart's state included: what is tried on a copy leaves no trace."""
    fifo, now_s = Fifo(link()), 0.0
    for size_bytes in (1024, KB64, KB64):
        now_s = fifo.send(now_s, size_bytes)[2] + 0.02
    plain = fifo.fork()
    for _ in range(4):
        fifo.peek(now_s, MB)
        fifo.fork().send(now_s, KB256)
    for size_bytes in (KB256, KB256, MB):
        assert fifo.send(now_s, size_bytes) == plain.send(now_s, size_bytes)
        now_s = fifo.arrived_s if fifo.arrived_s > now_s else now_s + 1.0


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
