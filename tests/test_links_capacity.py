"""Trace links against hand arithmetic and against slow, exact models of their own."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from splitexit.links import Fifo
from splitexit.links.constant import Constant
from splitexit.links.mahimahi import Mahimahi
from splitexit.links.trace import Trace

PRECISION_S = 1e-9


def written(folder: Path, *lines: Any) -> Path:
    """A trace file."""
    path = folder / "trace"
    path.write_text("\n".join(map(str, lines)) + "\n")
    return path


def test_constant() -> None:
    """1 MB at 8 Mbit/s: one second."""
    link = Constant(mbps=8.0, delay_ms=30.0)
    assert link.finish_s(2.5, 1_000_000) == pytest.approx(3.5, abs=PRECISION_S)
    assert link.mean_bps == 8e6
    assert link.delay_s == 0.03


# One, zero, two and one MB per second over 1, 1, 2 and 1 s (the median of the steps 1, 1, 2): 6 MB in 5 s.
FOUR_SPANS = ("0 8", "1 0", "2 16", "4 8")
MB = 1_000_000


@pytest.mark.parametrize(
    ("start_s", "size_bytes", "finish_s"),
    [
        (0.0, MB // 2, 0.5),
        (0.0, MB, 1.0),
        (0.5, 600_000, 2.05),
        (1.5, 1, 2.0000005),
        (1.0, 4 * MB, 4.0),
        (2.5, 3 * MB, 4.0),
        (4.5, MB, 5.5),
        (0.0, 6 * MB, 5.0),
        (0.0, 12 * MB, 10.0),
        (0.0, 13 * MB, 11.0),
        (0.0, 13 * MB + 1, 12.0000005),
        (5.0, MB // 4, 5.25),
        (52.0, MB, 52.5),
        (50_001.0, 2 * MB, 50_003.0),
    ],
)
def test_trace_by_hand(tmp_path: Path, start_s: float, size_bytes: int, finish_s: float) -> None:
    """Within a span, over several, over a stall, over the end and over whole laps."""
    link = Trace(trace=written(tmp_path, *FOUR_SPANS))
    assert link.finish_s(start_s, size_bytes) == pytest.approx(finish_s, abs=PRECISION_S)
    assert link.mean_bps == pytest.approx(6 * MB * 8 / 5)


@pytest.mark.parametrize(
    ("start_s", "size_bytes", "finish_s"),
    [(0.0, MB, 1.0), (0.0, 2 * MB, 3.0), (1.2, MB, 3.0), (0.25, MB, 2.25), (2.0, MB, 3.0), (1.0, 3 * MB, 7.0)],
)
def test_a_trace_that_ends_in_a_stall(tmp_path: Path, start_s: float, size_bytes: int, finish_s: float) -> None:
    """The last byte of a lap goes before the stall, not after it."""
    link = Trace(trace=written(tmp_path, "0 8", "1 0"))
    assert link.finish_s(start_s, size_bytes) == pytest.approx(finish_s, abs=PRECISION_S)


def test_forms_of_one_trace(tmp_path: Path) -> None:
    """Tabs, commas, comments, blank lines, Windows line ends, any clock, any scale: the same link."""
    plain = Trace(trace=written(tmp_path, *FOUR_SPANS))
    forms = [
        ("# seconds,Mbit/s", "0,8", "", "1, 0  # tunnel", "2\t16", "4.0 8e0"),
        ("900.5 8\r", "901.5 0\r", "902.5 16\r", "904.5 8\r"),
        ("-3 8", "-2 0", "-1 16", "1 8"),
        ("\ufeff0 8", "1 0", "2 16", "4 8"),
    ]
    for lines in forms:
        link = Trace(trace=written(tmp_path, *lines))
        for start_s in (0.0, 0.7, 4.9, 23.0):
            assert link.finish_s(start_s, 2_345_678) == pytest.approx(plain.finish_s(start_s, 2_345_678), abs=1e-9)
    half = Trace(trace=written(tmp_path, "0 4", "1 0", "2 8", "4 4"), scale=2.0)
    assert half.finish_s(0.7, 2_345_678) == plain.finish_s(0.7, 2_345_678)


def test_one_line_is_a_constant_rate(tmp_path: Path) -> None:
    """For ever."""
    link = Trace(trace=written(tmp_path, "17 8"))
    assert link.finish_s(123.4, 10 * MB) == pytest.approx(133.4, abs=PRECISION_S)


SPANS = st.lists(st.tuples(st.integers(1, 4000), st.integers(0, 3000)), min_size=2, max_size=8)
"""Milliseconds, and bytes per millisecond (kB/s)."""


def integral(steps: list[tuple[Fraction, int]], start_s: float, finish_s: float) -> Fraction:
    """Bytes that go through from start to finish, walked span by span in exact arithmetic."""
    total, edge = Fraction(0), Fraction(0)
    start, finish = Fraction(start_s), Fraction(finish_s)
    for lap in count():
        for step, rate in steps:
            after = edge + step
            total += rate * max(Fraction(0), min(finish, after) - max(start, edge))
            edge = after
        if edge >= finish:
            return total
        assert lap < 10**5
    raise AssertionError


@settings(max_examples=150, deadline=None)
@given(spans=SPANS, start_s=st.floats(0.0, 20.0), size_bytes=st.integers(1, 2 * MB))
def test_bytes_are_conserved(
    tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[int, int]], start_s: float, size_bytes: int
) -> None:
    """The integral of the rate from start to finish is the size; and a moment earlier it was less."""
    rates = [kb_s * 1000 for _, kb_s in spans]
    assume(sum(rates[:-1]) > 0)
    times_ms = [sum(step for step, _ in spans[:k]) for k in range(len(spans))]
    folder = tmp_path_factory.getbasetemp()
    link = Trace(trace=written(folder, *(f"{t / 1000} {r * 8e-6!r}" for t, r in zip(times_ms, rates, strict=True))))
    finish_s = link.finish_s(start_s, size_bytes)
    steps = sorted(step for step, _ in spans[:-1])
    middle = Fraction(steps[(len(steps) - 1) // 2] + steps[len(steps) // 2], 2)
    lengths = [*(Fraction(step, 1000) for step, _ in spans[:-1]), middle / 1000]
    exact = list(zip(lengths, rates, strict=True))
    tolerance = max(rates) * PRECISION_S + 1e-9 * size_bytes
    assert abs(integral(exact, start_s, finish_s) - size_bytes) <= tolerance
    # No stall before the end belongs to the message: it was not through a microsecond before.
    earlier_s = max(start_s, finish_s - 1e-6)
    assert integral(exact, start_s, earlier_s) < size_bytes


# Opportunities at 2, 2, 5 and 10 ms, then 12, 12, 15, 20, 22, ...
FOUR_LINES = (2, 2, 5, 10)


@pytest.mark.parametrize(
    ("messages", "finish_ms"),
    [
        ([(0, 1)], [2]),
        ([(0, 3000)], [2]),
        ([(0, 3001)], [5]),
        ([(0, 1500), (0, 1500), (0, 1500)], [2, 2, 5]),
        ([(2, 1500), (2, 1500), (2, 1500)], [2, 2, 5]),
        ([(2.5, 1500)], [5]),
        ([(6, 1), (6, 1)], [10, 12]),
        ([(10, 1500)], [10]),
        ([(10.1, 1500)], [12]),
        ([(0, 6000), (0, 6000)], [10, 20]),
        ([(0, 15_000)], [22]),
        ([(0, 1), (30, 1), (30, 1)], [2, 30, 32]),
        ([(100_000, 1500), (100_000, 1500)], [100_000, 100_002]),
    ],
)
def test_mahimahi_by_hand(tmp_path: Path, messages: list[tuple[float, int]], finish_ms: list[int]) -> None:
    """Repeated lines, loops, the end of a lap, opportunities lost and opportunities used."""
    fifo = Fifo(Mahimahi(trace=written(tmp_path, *FOUR_LINES)))
    found = [fifo.send(at_ms / 1000.0, size)[1] for at_ms, size in messages]
    assert found == pytest.approx([ms / 1000.0 for ms in finish_ms], abs=PRECISION_S)


def test_mahimahi_s_smallest_trace(tmp_path: Path) -> None:
    """A single line `1` is 12 Mbit/s (mm-link(1))."""
    link = Mahimahi(trace=written(tmp_path, 1))
    assert link.mean_bps == 12e6
    assert Fifo(link).send(0.0, 1_500_000)[1] == pytest.approx(1.0, abs=PRECISION_S)


LINES = st.lists(st.integers(0, 40), min_size=1, max_size=12).map(sorted).filter(lambda lines: lines[-1] > 0)
OFFERS = st.lists(st.tuples(st.integers(0, 60_000), st.integers(1, 20_000)), max_size=20)
"""Gaps in microseconds and sizes."""


def opportunities(lines: list[int]) -> Iterator[int]:
    """All opportunities in ms, lap after lap."""
    for lap in count():
        yield from (lap * lines[-1] + line for line in lines)


def by_the_book(lines: list[int], offers: list[tuple[int, int]]) -> list[float]:
    """Finish times in seconds, opportunity by opportunity."""
    stream, now_us, found = opportunities(lines), 0, []
    for gap_us, size_bytes in offers:
        now_us += gap_us
        for _ in range(-(-size_bytes // 1500)):
            taken = next(ms for ms in stream if ms * 1000 >= now_us)
        found.append(taken / 1000.0)
    return found


@settings(max_examples=150, deadline=None)
@given(lines=LINES, offers=OFFERS)
def test_mahimahi_by_the_book(
    tmp_path_factory: pytest.TempPathFactory, lines: list[int], offers: list[tuple[int, int]]
) -> None:
    """Any trace, any messages; through the queue, whose waiting changes nothing."""
    fifo = Fifo(Mahimahi(trace=written(tmp_path_factory.getbasetemp(), *lines)))
    now_us, found = 0, []
    for gap_us, size_bytes in offers:
        now_us += gap_us
        found.append(fifo.send(now_us / 1e6, size_bytes)[1])
    assert found == pytest.approx(by_the_book(lines, offers), abs=PRECISION_S)
