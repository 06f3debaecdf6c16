"""The calendar: a binary heap of events by time, those of equal time in the order in which they were put in."""

from __future__ import annotations

from typing import Any

import numpy as np

from splitexit.sim.compiled.jit import inlined
from splitexit.sim.compiled.layout import World

ROOT, ONE = np.uint64(0), np.uint64(1)


@inlined
def put(w: World, time_s: float, kind: int, who: np.uint32) -> int:
    """Adds an event and returns its count; there is room.

    What happens mostly leads to one thing more, which then takes the place of the first.
    """
    state, events = w.state[0], w.events
    count = state.count
    state.count += 1
    if state.spent:
        state.spent = 0
        at = _down(w, state.events, time_s, count)
    else:
        at = _up(w, state.events, time_s)
        state.events += ONE
    event = events[at]
    event.time_s, event.count, event.kind, event.who = time_s, count, kind, who
    return int(count)


@inlined
def drop_first(w: World) -> None:
    """Takes the first event out."""
    state, events = w.state[0], w.events
    state.spent = 0
    state.events -= ONE
    last = events[state.events]
    at = _down(w, state.events, last.time_s, last.count)
    events[at] = last


@inlined
def _up(w: World, at: np.uint64, time_s: float) -> np.uint64:
    """Makes room for a new event, from the free place `at` upward; returns where."""
    events = w.events
    while at > ROOT:
        above = (at - ONE) >> ONE
        if events[above].time_s <= time_s:  # of equal ones it is the last
            break
        events[at] = events[above]
        at = above
    return at


@inlined
def _down(w: World, size: np.uint64, time_s: float, count: int) -> np.uint64:
    """Makes room for an event among the first `size`, from the first place downward; returns where."""
    events = w.events
    at, child = ROOT, ONE
    while child < size:
        if child + ONE < size:
            child += np.uint64(_before(events[child + ONE], events[child].time_s, events[child].count))
        if not _before(events[child], time_s, count):
            break
        events[at] = events[child]
        at, child = child, child + child + ONE
    return at


@inlined
def _before(event: Any, time_s: float, count: int) -> Any:
    # Without `and` and `or` there is nothing to jump over, so no jump to be mispredicted.
    return (event.time_s < time_s) | ((event.time_s == time_s) & (event.count < count))
