"""The simulator's calendar: by time, equal times in the order in which they were put in, however many there are."""

from __future__ import annotations

from random import Random

import pytest

from splitexit.sim import calendar as calendar_module
from splitexit.sim.calendar import Calendar, Event


class Numbered(Event):
    """An event that knows when it was put in, and when it was due."""

    __slots__ = ("number", "time_s")

    def __init__(self, number: int, time_s: float) -> None:
        self.number, self.time_s = number, time_s


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("many", [0, 3, 1024])
def test_order(monkeypatch: pytest.MonkeyPatch, seed: int, many: int) -> None:
    """Events that put in further ones, near and far, at edges of slots and at equal times; two thousand in all."""
    monkeypatch.setattr(calendar_module, "MANY", many)
    dice, calendar, happened = Random(seed), Calendar(), list[Numbered]()
    put = 0

    def add(now_s: float) -> None:
        nonlocal put
        gap_s = dice.choice([0.0, dice.random() / 1000, dice.randrange(8) / 256, 10 * dice.random()])
        put += 1
        calendar.put(now_s + gap_s, Numbered(put, now_s + gap_s), handlers)

    def happen(event: Numbered) -> None:
        assert calendar.env.now == event.time_s
        happened.append(event)
        for _ in range(dice.choice([0, 1, 1, 3]) if put < 2000 else 0):
            add(event.time_s)

    handlers = (happen,)
    for _ in range(50):
        add(0.0)
    calendar.run()
    assert len(happened) == put
    assert happened == sorted(happened, key=lambda event: (event.time_s, event.number))
