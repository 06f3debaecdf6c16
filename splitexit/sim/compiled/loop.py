"""The event loop. It stops where numpy must supply something, and goes on from there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from splitexit.sim.compiled.calendar import drop_first
from splitexit.sim.compiled.device import take_next
from splitexit.sim.compiled.device import wake as woken
from splitexit.sim.compiled.jit import SOURCES, entry, inlined
from splitexit.sim.compiled.kinds import ALARM, ARRIVE, COMPUTED, DONE, REPLY, WAKE
from splitexit.sim.compiled.layout import World
from splitexit.sim.compiled.server import arrive, done
from splitexit.sim.compiled.transport import alarm, computed, reply

FINISHED, ROWS_FULL, REQUESTS_NEEDED, TASKS_FULL, EVENTS_FULL = range(5)
"""Why it stopped: nothing is left; the output is full; `state.device` needs requests; no more tasks; no more events."""

FIRST = np.uint64(0)


@inlined
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


@inlined
def _device_lacks(w: World, kind: int, who: np.uint32) -> bool:
    """Whether the device that something happens to may ask for a request that is not in memory."""
    d = who if kind in (WAKE, ALARM) else w.tasks[who].device
    device = w.devices[d]
    w.state[0].device = d
    return bool(device.next >= device.loaded and device.next < device.total)


@inlined
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


def _build(sources: int) -> tuple[Callable[[World], None], Callable[[World], int]]:
    """The two entries (see splitexit.sim.compiled.jit.entry for why they are built)."""

    @entry
    def begin(w: World) -> None:
        for d in range(len(w.devices) if sources else 0):
            take_next(w, np.uint32(d))

    @entry
    def run(w: World) -> int:
        state, first = w.state[0], w.events[FIRST]
        stop = FINISHED if sources else ROWS_FULL
        while state.events and not stop:
            stop = _lacking(w)
            if stop:
                break
            kind, who = first.kind, first.who
            if kind != ARRIVE and kind != DONE and _device_lacks(w, kind, who):
                stop = REQUESTS_NEEDED
                break
            state.now_s, state.event = first.time_s, first.count
            state.spent = 1
            _happen(w, kind, who)
            if state.spent:
                drop_first(w)
        return stop

    return begin, run


begin, run = _build(SOURCES)
"""begin(world): every device looks for its first request. run(world): works through the calendar; why it stopped."""
