"""The way to the edge and back, and the device's patience, as in splitexit.sim.transport."""

from __future__ import annotations

from typing import Any

import numpy as np

from splitexit.sim.compiled.calendar import put, put_alarm
from splitexit.sim.compiled.device import finish, heard, leave, let_go, release, seconds, settle
from splitexit.sim.compiled.jit import inlined
from splitexit.sim.compiled.kinds import ARRIVE, AWAITED, ON_ITS_WAY, REPLY, ROW_TO_COME
from splitexit.sim.compiled.layout import GIVEN_UP, NONE, REPLIED, World


@inlined
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


@inlined
def _send(w: World, t: np.uint32) -> None:
    task = w.tasks[t]
    device, now_s = w.devices[task.device], w.state[0].now_s
    task.sent_s, task.answered_s = now_s, np.inf
    task.give_up_s = now_s + task.timeout_s
    task.uses = ROW_TO_COME | ON_ITS_WAY | AWAITED
    _expect(w, t)
    link = w.links[device.uplink]
    start_s = now_s if now_s > link.free_s else link.free_s
    sent_s = start_s + w.journeys[task.journey].size_bytes * link.byte_s
    link.free_s = sent_s
    task.airtime_s = sent_s - start_s
    put(w, sent_s + link.delay_s + seconds(w, t, device.line, w.paths[task.path].rpc), ARRIVE, t)


@inlined
def answer(w: World, t: np.uint32) -> None:
    """A reply or a refusal takes the downlink.

    Where its arrival does no more than end the request, that need not wait for it.
    """
    state, task = w.state[0], w.tasks[t]
    device = w.devices[task.device]
    link = w.links[device.downlink]
    start_s = state.now_s if state.now_s > link.free_s else link.free_s
    sent_s = start_s + state.downlink_bytes * link.byte_s
    link.free_s = sent_s
    arrive_s = sent_s + link.delay_s
    if arrive_s < task.give_up_s and not (device.free and task.reading):
        put(w, arrive_s, REPLY, t)
        return
    if arrive_s < task.give_up_s:
        task.clock_s = task.answered_s = arrive_s
        settle(w, t, REPLIED, arrive_s - task.sent_s)
        finish(w, t)
    leave(w, t)


@inlined
def reply(w: World, t: np.uint32) -> None:
    """A reply or a refusal arrives in time."""
    task, now_s = w.tasks[t], w.state[0].now_s
    task.answered_s = now_s
    heard(w, t, REPLIED if task.reading else GIVEN_UP, now_s - task.sent_s)
    leave(w, t)


@inlined
def _expect(w: World, t: np.uint32) -> None:
    """Puts it among those that its device waits for, in order of (give_up_s, number)."""
    task = w.tasks[t]
    device, now_s = w.devices[task.device], w.state[0].now_s
    _forget_answered(w, task.device, now_s)
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


@inlined
def _forget_answered(w: World, d: np.uint32, now_s: float) -> None:
    """Those at the head whose reply has come since."""
    device = w.devices[d]
    t = device.due
    while t != NONE and w.tasks[t].answered_s <= now_s:
        later = w.tasks[t].later
        let_go(w, t, AWAITED)
        t = later
    _begin_with(w, d, t)


@inlined
def _begin_with(w: World, d: np.uint32, t: np.uint32) -> None:
    """Makes it the first of those awaited."""
    w.devices[d].due = t
    if t == NONE:
        w.devices[d].due_last = NONE
    else:
        w.tasks[t].sooner = NONE


@inlined
def _precedes(task: Any, other: Any) -> Any:
    return task.give_up_s < other.give_up_s or (task.give_up_s == other.give_up_s and task.number < other.number)


@inlined
def _set_alarm(w: World, d: np.uint32, time_s: float) -> None:
    w.devices[d].alarm_s = time_s
    if time_s < np.inf:
        put_alarm(w, time_s, d)


@inlined
def alarm(w: World, d: np.uint32) -> None:
    """Time is up for the first of those awaited, unless an earlier alarm took this one's place."""
    device, now_s = w.devices[d], w.state[0].now_s
    if now_s < device.alarm_s:
        return
    late = device.due
    after = late
    while after != NONE and (w.tasks[after].give_up_s <= now_s or w.tasks[after].answered_s <= now_s):
        after = w.tasks[after].later
    _begin_with(w, d, after)
    _set_alarm(w, d, np.inf if after == NONE else w.tasks[after].give_up_s)
    while late != after:
        t = late
        task = w.tasks[t]
        late = task.later
        if task.answered_s > now_s:
            task.shed = 0  # if it was, the device has not heard of it
            heard(w, t, GIVEN_UP, task.timeout_s)
        let_go(w, t, AWAITED)
