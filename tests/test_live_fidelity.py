"""What a link says of how exact it was, against hand arithmetic."""

from __future__ import annotations

import math

import pytest

from splitexit.live.fidelity import Fidelity


def test_nothing_was_sent() -> None:
    found = Fidelity().summary()
    assert (found["bytes"], found["dropped"], found["added_delay_ms_max"]) == (0, 0, 0.0)
    assert math.isnan(found["rate_error_percent"])


def test_delays_and_bytes() -> None:
    fidelity = Fidelity()
    for number in range(101):
        fidelity.note(number, number + 0.5, number + 1.0, 100, 1e-3 * number)
    found = fidelity.summary()
    assert found["bytes"] == 10_100
    assert found["added_delay_ms_p50"] == pytest.approx(50.0)
    assert found["added_delay_ms_p99"] == pytest.approx(99.0)
    assert found["added_delay_ms_max"] == pytest.approx(100.0)


def test_the_rate_of_a_busy_stretch() -> None:
    """A tenth of a second by the clock that took 1 ms more: 1 % too slow."""
    fidelity = Fidelity()
    for number in range(11):
        at_s = 0.01 * number
        fidelity.note(at_s, at_s + 0.01, at_s + 0.02, 1500, 1e-4 * number)
    assert fidelity.summary()["rate_error_percent"] == pytest.approx(100 * (0.1 / 0.101 - 1))


def busy(fidelity: Fidelity, first_s: float, count: int) -> None:
    """Packets of 10 ms that follow each other without a gap, handed on when due."""
    sent_s = first_s
    for _ in range(count):
        start_s, sent_s = sent_s, sent_s + 0.01
        fidelity.note(start_s, sent_s, sent_s + 0.01, 1500, 0.0)


def test_a_gap_ends_a_stretch_and_short_ones_do_not_count() -> None:
    """Idle time is no transmission; a stretch of 20 ms is too short to say anything."""
    fidelity = Fidelity()
    for first_s, count in ((0.0, 11), (5.0, 3), (9.0, 7)):
        busy(fidelity, first_s, count)
    fidelity.summary()
    assert fidelity.ideal_s == pytest.approx(0.1 + 0.06)
    assert fidelity.real_s == pytest.approx(fidelity.ideal_s)


def test_a_summary_may_be_asked_for_twice() -> None:
    fidelity = Fidelity()
    busy(fidelity, 0.0, 11)
    assert fidelity.summary() == fidelity.summary()
    assert fidelity.ideal_s == pytest.approx(0.1)
