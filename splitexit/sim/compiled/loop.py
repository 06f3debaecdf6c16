"""The event loop. It stops where numpy must supply something, and goes on from there."""

from __future__ import annotations

from numba import njit

from splitexit.sim.compiled.calendar import remove_first
from splitexit.sim.compiled.device import ALARM, ARRIVE, COMPUTED, DONE, REPLY, WAKE, alarm, computed, reply, take_next
from splitexit.sim.compiled.device import wake as woken
from splitexit.sim.compiled.layout import World
from splitexit.sim.compiled.server import arrive, done

FINISHED, ROWS_FULL, REQUESTS_NEEDED, TASKS_FULL, EVENTS_FULL = range(5)
"""Why it stopped: nothing is left; the output is full; `state.device` needs requests; no more tasks; no more events."""

_compiled = njit(cache=True, nogil=True)


@_compiled
def begin(w: World) -> None:
    """Every device looks for its first request."""
    for d in range(len(w.devices)):
        take_next(w, d)


@_compiled
def run(w: World) -> int:
    """Works through the calendar; returns why it stopped."""
    state, events = w.state[0], w.events
    while state.events:
        if state.rows + state.tasks >= len(w.rows):
            return ROWS_FULL
        if state.tasks + 2 > len(w.tasks):
            return TASKS_FULL
        if state.events + state.tasks + 4 > len(events):
            return EVENTS_FULL
        kind, who = events[0].kind, events[0].who
        if kind != ARRIVE and kind != DONE:
            d = who if kind in (WAKE, ALARM) else w.tasks[who].device
            device = w.devices[d]
            if device.next >= device.loaded and device.next < device.total:
                state.device = d
                return REQUESTS_NEEDED
        state.now_s = events[0].time_s
        remove_first(w)
        _happen(w, kind, who)
    return FINISHED


@_compiled
def _happen(w: World, kind: int, who: int) -> None:
    if kind == WAKE:
        woken(w, who)
    elif kind == COMPUTED:
        computed(w, who)
    elif kind == ARRIVE:
        arrive(w, who)
    elif kind == DONE:
        done(w, who)
    elif kind == REPLY:
        reply(w, who)
    else:
        alarm(w, who)
