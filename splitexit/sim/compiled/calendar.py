"""The calendar: a binary heap of events by time, those of equal time in the order in which they were put in."""

from __future__ import annotations

from numba import njit

from splitexit.sim.compiled.layout import World


@njit(cache=True, nogil=True)
def put(w: World, time_s: float, kind: int, who: int) -> None:
    """Adds an event; there is room."""
    state, events = w.state[0], w.events
    count, at = state.count, state.events
    state.count += 1
    state.events += 1
    while at > 0:
        above = (at - 1) >> 1
        if events[above].time_s <= time_s:  # it was put in before
            break
        events[at] = events[above]
        at = above
    event = events[at]
    event.time_s, event.count, event.kind, event.who = time_s, count, kind, who


@njit(cache=True, nogil=True)
def remove_first(w: World) -> None:
    """Takes the first event out."""
    state, events = w.state[0], w.events
    state.events -= 1
    size = state.events
    last = events[size]
    time_s, count = last.time_s, last.count
    at, child = 0, 1
    while child < size:
        if child + 1 < size and _before(events[child + 1], events[child].time_s, events[child].count):
            child += 1
        if not _before(events[child], time_s, count):
            break
        events[at] = events[child]
        at, child = child, 2 * child + 1
    events[at] = last


@njit(cache=True, nogil=True)
def _before(event, time_s, count):  # type: ignore[no-untyped-def]
    return event.time_s < time_s or (event.time_s == time_s and event.count < count)
