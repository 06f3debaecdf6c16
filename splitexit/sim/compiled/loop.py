"""The event loop. It stops where numpy must supply something, and goes on from there."""

from __future__ import annotations

import numpy as np
from numba import njit

from splitexit.sim.compiled.calendar import drop_first
from splitexit.sim.compiled.device import take_next
from splitexit.sim.compiled.device import wake as woken
from splitexit.sim.compiled.kinds import ALARM, ARRIVE, COMPUTED, DONE, REPLY, WAKE
from splitexit.sim.compiled.layout import World
from splitexit.sim.compiled.server import arrive, done
from splitexit.sim.compiled.transport import alarm, computed, reply

FINISHED, ROWS_FULL, REQUESTS_NEEDED, TASKS_FULL, EVENTS_FULL = range(5)
"""Why it stopped: nothing is left; the output is full; `state.device` needs requests; no more tasks; no more events."""

_compiled = njit(cache=True, nogil=True, _nrt=False)
_inlined = njit(nogil=True, _nrt=False, forceinline=True)
FIRST = np.uint64(0)


@_compiled
def begin(w: World) -> None:
    """Every device looks for its first request."""
    for d in range(len(w.devices)):
        take_next(w, np.uint32(d))


@_compiled
def run(w: World) -> int:
    """Works through the calendar; returns why it stopped."""
    state, first = w.state[0], w.events[FIRST]
    while state.events:
        stop = _lacking(w)
        if stop:
            return stop
        kind, who = first.kind, first.who
        if kind != ARRIVE and kind != DONE:
            d = who if kind in (WAKE, ALARM) else w.tasks[who].device
            device = w.devices[d]
            if device.next >= device.loaded and device.next < device.total:
                state.device = d
                return REQUESTS_NEEDED
        state.now_s, state.event = first.time_s, first.count
        state.spent = 1
        _happen(w, kind, who)
        if state.spent:
            drop_first(w)
    return FINISHED


@_inlined
def _lacking(w: World) -> int:
    """What there may be too little room for."""
    state = w.state[0]
    tasks = np.int64(state.tasks)
    if np.int64(state.rows) + tasks >= len(w.rows):
        return ROWS_FULL
    if tasks + 2 > len(w.tasks):
        return TASKS_FULL
    if np.int64(state.events) + tasks + 4 > len(w.events):
        return EVENTS_FULL
    return FINISHED


@_inlined
def _happen(w: World, kind: int, who: np.uint32) -> None:
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
