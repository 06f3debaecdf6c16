"""The event loop. It stops where numpy must supply something, and goes on from there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from splitexit.sim.compiled.calendar import alarm_is_next, drop_alarm, drop_first
from splitexit.sim.compiled.device import take_next
from splitexit.sim.compiled.device import wake as woken
from splitexit.sim.compiled.jit import SOURCES, entry, inlined
from splitexit.sim.compiled.kinds import ARRIVE, COMPUTED, DONE, REPLY
from splitexit.sim.compiled.layout import World
from splitexit.sim.compiled.server import arrive, done
from splitexit.sim.compiled.transport import alarm, computed, reply

FINISHED, ROWS_FULL, REQUESTS_NEEDED, TASKS_FULL, EVENTS_FULL = range(5)
"""Why it stopped: nothing is left; the output is full; `state.device` needs requests; no more tasks; no more events."""

FIRST = np.uint64(0)
PUT = 4
"""More events than one leads to."""


@inlined
def _lacking(w: World) -> int:
    """What there is too little room for."""
    state = w.state[0]
    if state.lacking:
        return REQUESTS_NEEDED
    if np.int64(state.rows) + state.tasks >= len(w.rows):
        return ROWS_FULL
    if state.tasks + 1 >= len(w.tasks):
        return TASKS_FULL
    if np.int64(max(state.events, state.alarms)) + PUT >= len(w.events):
        return EVENTS_FULL
    return FINISHED


@inlined
def _room(w: World) -> int:
    """How many things can happen before something might be lacking.

    Of each come at most one task more, one row more than tasks that end, and PUT events.
    """
    state = w.state[0]
    rows = len(w.rows) - np.int64(state.rows) - state.tasks
    tasks = len(w.tasks) - state.tasks - 1
    events = (len(w.events) - np.int64(max(state.events, state.alarms))) // PUT
    return int(min(rows, tasks, events))


@inlined
def _happen(w: World, kind: int, who: np.uint32) -> None:
    if kind == COMPUTED:
        computed(w, who)
    elif kind == ARRIVE:
        arrive(w, who)
    elif kind == DONE:
        done(w, who)
    elif kind == REPLY:
        reply(w, who)
    else:
        woken(w, who)


@inlined
def _ring(w: World) -> None:
    """The first alarm."""
    state, first = w.state[0], w.alarms[FIRST]
    state.now_s, state.event, d = first.time_s, first.count, first.who
    drop_alarm(w)
    alarm(w, d)


def _build(sources: int) -> tuple[Callable[[World], None], Callable[[World], int]]:
    """The two entries (see splitexit.sim.compiled.jit.entry for why they are built)."""

    @entry
    def begin(w: World) -> None:
        for d in range(len(w.devices) if sources else 0):
            take_next(w, np.uint32(d))

    @entry
    def run(w: World) -> int:
        state, first, stop = w.state[0], w.events[FIRST], FINISHED if sources else ROWS_FULL
        while (state.events or state.alarms) and not stop:
            stop = _lacking(w)
            room = 0 if stop else _room(w)
            while room and not state.lacking:
                room -= 1
                if alarm_is_next(w):
                    _ring(w)
                    continue
                if not state.events:
                    break
                state.now_s, state.event, state.spent = first.time_s, first.count, 1
                _happen(w, first.kind, first.who)
                if state.spent:
                    drop_first(w)
        return stop

    return begin, run


begin, run = _build(SOURCES)
"""begin(world): every device looks for its first request. run(world): works through the calendar; why it stopped."""
