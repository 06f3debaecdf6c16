"""The calendar: events by time, those of equal time in the order in which they were put in.

Two binary heaps. Alarms stand in one of their own: few of them ever ring, and they would be in the way of the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from splitexit.sim.compiled.jit import inlined
from splitexit.sim.compiled.layout import Array, World

ROOT, ONE = np.uint64(0), np.uint64(1)


@inlined
def put(w: World, time_s: float, kind: int, who: np.uint32) -> int:
    """Adds an event and returns its count; there is room.

    What happens mostly leads to one thing more, which then takes the place of the first.
    """
    state = w.state[0]
    count = state.count
    state.count += 1
    if state.spent:
        state.spent = 0
        at = _down(w.events, state.events, time_s, count)
    else:
        at = _up(w.events, state.events, time_s)
        state.events += ONE
    event = w.events[at]
    event.time_s, event.count, event.kind, event.who = time_s, count, kind, who
    return int(count)


@inlined
def drop_first(w: World) -> None:
    """Takes the first event out."""
    state = w.state[0]
    state.spent = 0
    state.events -= ONE
    _close_up(w.events, state.events)


@inlined
def put_alarm(w: World, time_s: float, d: np.uint32) -> None:
    """Adds an alarm of a device; there is room."""
    state = w.state[0]
    at = _up(w.alarms, state.alarms, time_s)
    alarm = w.alarms[at]
    alarm.time_s, alarm.count, alarm.who = time_s, state.count, d
    state.count += 1
    state.alarms += ONE


@inlined
def drop_alarm(w: World) -> None:
    """Takes the first alarm out."""
    state = w.state[0]
    state.alarms -= ONE
    _close_up(w.alarms, state.alarms)


@inlined
def alarm_is_next(w: World) -> bool:
    """Whether the first alarm comes before the first event."""
    first, alarm = w.events[ROOT], w.alarms[ROOT]
    return bool(w.state[0].alarms and (not w.state[0].events or _before(alarm, first.time_s, first.count)))


@inlined
def _close_up(heap: Array, size: np.uint64) -> None:
    """Puts the last one into the first place, which is free."""
    last = heap[size]
    at = _down(heap, size, last.time_s, last.count)
    heap[at] = last


@inlined
def _up(heap: Array, at: np.uint64, time_s: float) -> np.uint64:
    """Makes room for a new event, from the free place `at` upward; returns where."""
    while at > ROOT:
        above = (at - ONE) >> ONE
        if heap[above].time_s <= time_s:  # of equal ones it is the last
            break
        heap[at] = heap[above]
        at = above
    return at


@inlined
def _down(heap: Array, size: np.uint64, time_s: float, count: int) -> np.uint64:
    """Makes room for an event among the first `size`, from the first place downward; returns where."""
    at, child = ROOT, ONE
    while child < size:
        if child + ONE < size:
            child += np.uint64(_before(heap[child + ONE], heap[child].time_s, heap[child].count))
        if not _before(heap[child], time_s, count):
            break
        heap[at] = heap[child]
        at, child = child, child + child + ONE
    return at


@inlined
def _before(event: Any, time_s: float, count: int) -> Any:
    # Without `and` and `or` there is nothing to jump over, so no jump to be mispredicted.
    return (event.time_s < time_s) | ((event.time_s == time_s) & (event.count < count))
