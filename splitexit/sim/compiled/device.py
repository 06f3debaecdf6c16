"""A device, as in splitexit.sim.device: one CPU, first come first served, and its patience."""

from __future__ import annotations

import numpy as np
from numba import njit

from splitexit.sim.compiled.calendar import put
from splitexit.sim.compiled.layout import ANSWERED, GIVEN_UP, NONE, REPLIED, UNSENT, World

WAKE, COMPUTED, ARRIVE, DONE, REPLY, ALARM = range(6)
ROW_TO_COME, ON_ITS_WAY = 1, 2

_compiled = njit(cache=True, nogil=True)


@_compiled
def take_next(w: World, d: int) -> None:
    """The CPU is free: it resumes a task, begins the next request, or sleeps until one arrives."""
    device = w.devices[d]
    if device.resumed != NONE:
        _resume(w, d)
        return
    if device.next >= device.total:
        return
    if device.closed:
        if np.isnan(device.loop_s):
            return
        arrival_s = device.loop_s
    else:
        arrival_s = w.arrival_s[device.place + device.next - device.base]
    if arrival_s <= w.state[0].now_s:
        _begin(w, d, arrival_s)
    elif not device.waking:
        device.waking = 1
        put(w, arrival_s, WAKE, d)


@_compiled
def _begin(w: World, d: int, arrival_s: float) -> None:
    device, state = w.devices[d], w.state[0]
    t = state.free_task
    task = w.tasks[t]
    state.free_task = task.next
    state.tasks += 1
    line = device.place + device.next - device.base
    task.number, task.device = device.next, d
    device.next += 1
    device.loop_s = np.nan
    task.arrival_s, task.due_s = arrival_s, arrival_s + device.deadline_s
    task.start_s = task.clock_s = arrival_s if arrival_s > device.free_s else device.free_s
    task.compute_s = task.encode_s = task.network_s = task.airtime_s = task.wait_s = task.edge_s = 0.0
    task.awaited = task.reading = task.shed = 0
    task.uses = ROW_TO_COME
    task.journey = w.journey[line]
    task.path = w.journeys[task.journey].path
    device.busy = 1
    _work(w, t, w.state[0].groups + line if device.line == NONE else device.line)
    put(w, task.clock_s, COMPUTED, t)


@_compiled
def _work(w: World, t: int, line: int) -> None:
    """Everything up to the send, or to the end where nothing is sent."""
    task = w.tasks[t]
    path = w.paths[task.path]
    for step in range(path.first, path.rpc if path.encode == NONE else path.encode):
        seconds = w.seconds[line, w.steps[step]]
        task.clock_s += seconds
        task.compute_s += seconds
    task.computing, task.outcome = 1, ANSWERED
    if path.encode == NONE:
        return
    task.encode_s = w.seconds[line, w.steps[path.encode]]
    task.clock_s += task.encode_s
    if w.devices[task.device].line == NONE:
        w.kept[t] = w.seconds[line]
    timeout_s = task.due_s - task.clock_s
    if path.alone:
        timeout_s -= path.fallback_s
    task.timeout_s = path.timeout_s if path.timeout_s < timeout_s else timeout_s
    if task.timeout_s > 0.0:
        task.computing = 0
        return
    task.outcome = UNSENT
    _fall_back(w, t)


@_compiled
def _fall_back(w: World, t: int) -> None:
    """On to the next exit, where there is no reading yet."""
    task = w.tasks[t]
    path = w.paths[task.path]
    if path.fallback != NONE:
        seconds = kept(w, t, path.fallback)
        task.clock_s += seconds
        task.compute_s += seconds


@_compiled
def kept(w: World, t: int, step: int) -> float:
    """Seconds of this step for a task that has been sent."""
    line = w.devices[w.tasks[t].device].line
    return float(w.kept[t, w.steps[step]] if line == NONE else w.seconds[line, w.steps[step]])


@_compiled
def _resume(w: World, d: int) -> None:
    device = w.devices[d]
    t = device.resumed
    task = w.tasks[t]
    device.resumed = task.next
    if task.next == NONE:
        device.resumed_last = NONE
    task.clock_s = max(task.clock_s, device.free_s)
    task.computing = 1
    device.busy = 1
    _fall_back(w, t)
    put(w, task.clock_s, COMPUTED, t)


@_compiled
def wake(w: World, d: int) -> None:
    """A request arrives."""
    device = w.devices[d]
    device.waking = 0
    if not device.busy:
        take_next(w, d)


@_compiled
def computed(w: World, t: int) -> None:
    """The CPU has done what it can for this task: it is answered, or its payload leaves."""
    task = w.tasks[t]
    device, now_s = w.devices[task.device], task.clock_s
    d = task.device
    if task.computing:
        _finish(w, t)
    else:
        _send(w, t)
        if not device.pipeline:
            return
    device.free_s, device.busy = now_s, 0
    take_next(w, d)


@_compiled
def _send(w: World, t: int) -> None:
    task = w.tasks[t]
    device = w.devices[task.device]
    task.sent_s = w.state[0].now_s
    task.give_up_s = task.sent_s + task.timeout_s
    task.awaited = 1
    task.uses |= ON_ITS_WAY
    _expect(w, t)
    link = w.links[device.uplink]
    start_s = task.sent_s if task.sent_s > link.free_s else link.free_s
    link.free_s = start_s + w.journeys[task.journey].size_bytes * link.byte_s
    task.airtime_s = link.free_s - start_s
    put(w, link.free_s + link.delay_s + kept(w, t, w.paths[task.path].rpc), ARRIVE, t)


@_compiled
def _expect(w: World, t: int) -> None:
    """Puts it among those awaited, in order of (give_up_s, number)."""
    task = w.tasks[t]
    device = w.devices[task.device]
    sooner = device.due_last
    while sooner != NONE and w.tasks[sooner].give_up_s > task.give_up_s:
        sooner = w.tasks[sooner].sooner
    while sooner != NONE and w.tasks[sooner].give_up_s == task.give_up_s and w.tasks[sooner].number > task.number:
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
def _forget(w: World, t: int) -> None:
    """It is awaited no more."""
    task = w.tasks[t]
    device = w.devices[task.device]
    task.awaited = 0
    if task.sooner == NONE:
        device.due = task.later
    else:
        w.tasks[task.sooner].later = task.later
    if task.later == NONE:
        device.due_last = task.sooner
    else:
        w.tasks[task.later].sooner = task.sooner


@_compiled
def _set_alarm(w: World, d: int, time_s: float) -> None:
    w.devices[d].alarm_s = time_s
    if time_s < np.inf:
        put(w, time_s, ALARM, d)


@_compiled
def alarm(w: World, d: int) -> None:
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
        t, late = late, w.tasks[late].later
        _forget(w, t)
        w.tasks[t].shed = 0  # if it was, the device has not heard of it
        _heard(w, t, GIVEN_UP)


@_compiled
def reply(w: World, t: int) -> None:
    """A reply or a refusal arrives."""
    task, now_s = w.tasks[t], w.state[0].now_s
    if not task.awaited or now_s >= task.give_up_s:
        leave(w, t)
        return
    _forget(w, t)
    leave(w, t)
    _heard(w, t, REPLIED if task.reading else GIVEN_UP)


@_compiled
def _heard(w: World, t: int, outcome: int) -> None:
    """The wait for the edge is over: the request ends, or needs the CPU for its fallback."""
    task = w.tasks[t]
    d, now_s = task.device, w.state[0].now_s
    device = w.devices[d]
    task.clock_s, task.outcome = now_s, outcome
    task.network_s = now_s - task.sent_s
    if outcome == REPLIED:
        task.network_s = task.network_s - task.wait_s - task.edge_s
    else:
        task.wait_s = task.edge_s = 0.0
    if outcome == GIVEN_UP and w.paths[task.path].fallback != NONE:
        task.next = NONE
        if device.resumed == NONE:
            device.resumed = t
        else:
            w.tasks[device.resumed_last].next = t
        device.resumed_last = t
    else:
        _finish(w, t)
    if not device.pipeline:
        device.free_s, device.busy = now_s, 0
        take_next(w, d)
    elif not device.busy:
        take_next(w, d)


@_compiled
def _finish(w: World, t: int) -> None:
    """Writes the row."""
    task, state = w.tasks[t], w.state[0]
    device = w.devices[task.device]
    if device.closed:
        device.loop_s = task.clock_s + device.think_s
    row = w.rows[state.rows]
    state.rows += 1
    row.number, row.device, row.journey, row.outcome = task.number, task.device, task.journey, task.outcome
    row.arrival_s, row.start_s, row.done_s = task.arrival_s, task.start_s, task.clock_s
    row.compute_s, row.encode_s, row.network_s = task.compute_s, task.encode_s, task.network_s
    row.airtime_s, row.wait_s, row.edge_s = task.airtime_s, task.wait_s, task.edge_s
    row.met, row.shed = task.clock_s <= task.due_s, task.shed
    _release(w, t, ROW_TO_COME)


@_compiled
def leave(w: World, t: int) -> None:
    """It has left the links and the edge."""
    _release(w, t, ON_ITS_WAY)


@_compiled
def _release(w: World, t: int, use: int) -> None:
    task = w.tasks[t]
    task.uses &= ~use
    if not task.uses:
        task.next = w.state[0].free_task
        w.state[0].free_task = t
        w.state[0].tasks -= 1
