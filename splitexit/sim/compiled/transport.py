"""The way to the edge and back, and the device's patience, as in splitexit.sim.transport."""

from __future__ import annotations

import numpy as np
from numba import njit

from splitexit.sim.compiled.calendar import put
from splitexit.sim.compiled.device import finish, heard, leave, release, seconds, settle
from splitexit.sim.compiled.kinds import ALARM, ARRIVE, ON_ITS_WAY, REPLY
from splitexit.sim.compiled.layout import GIVEN_UP, NONE, REPLIED, World

_compiled = njit(nogil=True, _nrt=False, forceinline=True)


@_compiled
def computed(w: World, t: np.uint32) -> None:
    """The CPU has done what it can for this task: it is answered, or its payload leaves."""
    task = w.tasks[t]
    if task.event != w.state[0].event:
        return  # it has made way for a fallback
    d, now_s = task.device, task.clock_s
    device = w.devices[d]
    device.ahead = NONE
    if task.computing:
        finish(w, t)
    else:
        _send(w, t)
        if not device.pipeline:
            return
    release(w, d, now_s)


@_compiled
def _send(w: World, t: np.uint32) -> None:
    task = w.tasks[t]
    task.sent_s = w.state[0].now_s
    task.give_up_s = task.sent_s + task.timeout_s
    task.awaited = 1
    task.uses |= ON_ITS_WAY
    link = w.links[w.devices[task.device].uplink]
    start_s = task.sent_s if task.sent_s > link.free_s else link.free_s
    sent_s = start_s + w.journeys[task.journey].size_bytes * link.byte_s
    link.free_s = sent_s
    task.airtime_s = sent_s - start_s
    arrive_s = sent_s + link.delay_s + seconds(w, t, w.devices[task.device].line, w.paths[task.path].rpc)
    if arrive_s >= task.give_up_s:
        watch(w, t)
    put(w, arrive_s, ARRIVE, t)


@_compiled
def answer(w: World, t: np.uint32) -> None:
    """A reply or a refusal takes the downlink.

    Where its arrival does no more than end the request, it need not be waited for.
    """
    state, task = w.state[0], w.tasks[t]
    device = w.devices[task.device]
    link = w.links[device.downlink]
    start_s = state.now_s if state.now_s > link.free_s else link.free_s
    sent_s = start_s + state.downlink_bytes * link.byte_s
    link.free_s = sent_s
    arrive_s = sent_s + link.delay_s
    if arrive_s >= task.give_up_s:
        watch(w, t)
    elif not device.free or not task.reading:
        put(w, arrive_s, REPLY, t)
        return
    elif task.awaited:
        forget(w, t)
        task.clock_s = arrive_s
        settle(w, t, REPLIED, arrive_s)
        finish(w, t)
    leave(w, t)


@_compiled
def reply(w: World, t: np.uint32) -> None:
    """A reply or a refusal arrives."""
    task, now_s = w.tasks[t], w.state[0].now_s
    leave(w, t)
    forget(w, t)
    heard(w, t, REPLIED if task.reading else GIVEN_UP)


@_compiled
def watch(w: World, t: np.uint32) -> None:
    """Puts it among those that may have to be given up, in order of (give_up_s, number).

    That is what waits at the edge and whatever is known to come back too late; most requests never get there.
    """
    task = w.tasks[t]
    if task.watched or not task.awaited:
        return
    task.watched = 1
    device = w.devices[task.device]
    sooner = device.due_last
    while sooner != NONE and _precedes(task, w.tasks[sooner]):
        sooner = w.tasks[sooner].sooner
    later = device.due if sooner == NONE else w.tasks[sooner].later
    task.sooner, task.later = sooner, later
    if sooner == NONE:
        device.due = t
    else:
        w.tasks[sooner].later = t
    if later == NONE:
        device.due_last = t
    else:
        w.tasks[later].sooner = t
    if task.give_up_s < device.alarm_s:
        _set_alarm(w, task.device, task.give_up_s)


@_compiled
def _precedes(task, other):  # type: ignore[no-untyped-def]
    return task.give_up_s < other.give_up_s or (task.give_up_s == other.give_up_s and task.number < other.number)


@_compiled
def forget(w: World, t: np.uint32) -> None:
    """It is awaited no more."""
    task = w.tasks[t]
    device = w.devices[task.device]
    task.awaited = 0
    if not task.watched:
        return
    task.watched = 0
    if task.sooner == NONE:
        device.due = task.later
    else:
        w.tasks[task.sooner].later = task.later
    if task.later == NONE:
        device.due_last = task.sooner
    else:
        w.tasks[task.later].sooner = task.sooner


@_compiled
def _set_alarm(w: World, d: np.uint32, time_s: float) -> None:
    w.devices[d].alarm_s = time_s
    if time_s < np.inf:
        put(w, time_s, ALARM, d)


@_compiled
def alarm(w: World, d: np.uint32) -> None:
    """Time is up for the first of those awaited, unless an earlier alarm took this one's place."""
    device, now_s = w.devices[d], w.state[0].now_s
    if now_s < device.alarm_s:
        return
    late = device.due
    after = late
    while after != NONE and w.tasks[after].give_up_s <= now_s:
        after = w.tasks[after].later
    _set_alarm(w, d, np.inf if after == NONE else w.tasks[after].give_up_s)
    while late != after:
        t = late
        late = w.tasks[late].later
        forget(w, t)
        w.tasks[t].shed = 0  # if it was, the device has not heard of it
        heard(w, t, GIVEN_UP)
