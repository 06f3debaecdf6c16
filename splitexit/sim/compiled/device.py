"""A device, as in splitexit.sim.device: one CPU, first come first served."""

from __future__ import annotations

import numpy as np

from splitexit.sim.compiled.calendar import put
from splitexit.sim.compiled.jit import inlined
from splitexit.sim.compiled.kinds import COMPUTED, ON_ITS_WAY, ROW_TO_COME, WAKE
from splitexit.sim.compiled.layout import ANSWERED, NONE, REPLIED, UNSENT, World

ONE = np.uint64(1)


@inlined
def take_next(w: World, d: np.uint32) -> None:
    """The CPU is free: it resumes a task, begins the next request, or sleeps until one arrives.

    Where nothing can come between, it does not sleep but begins at the time of the arrival to come.
    """
    device = w.devices[d]
    if device.resumed != NONE:
        _resume(w, d)
    elif device.parked != NONE:
        _go_on(w, d)
    elif device.next < device.total:
        arrival_s = device.loop_s if device.closed else w.arrival_s[device.place + device.next - device.base]
        if arrival_s <= w.state[0].now_s or device.free:
            _compute(w, _begin(w, d, arrival_s))
        elif not device.waking and not np.isnan(arrival_s):
            device.waking = 1
            put(w, arrival_s, WAKE, d)


@inlined
def _go_on(w: World, d: np.uint32) -> None:
    """To the task that made way for a fallback; if it still has not arrived, what stood in the calendar holds again."""
    device = w.devices[d]
    t = device.parked
    device.parked = NONE
    if device.free_s < w.tasks[t].arrival_s:
        w.tasks[t].event = ~w.tasks[t].event
        device.ahead, device.busy = t, 1
    else:
        _compute(w, t)


@inlined
def _begin(w: World, d: np.uint32, arrival_s: float) -> np.uint32:
    """A task for the next request."""
    device, state = w.devices[d], w.state[0]
    t = state.free_task
    task = w.tasks[t]
    state.free_task = task.next
    state.tasks += 1
    line = device.place + device.next - device.base
    task.number, task.device = device.next, d
    device.next += ONE
    if device.next == device.loaded and device.next < device.total:
        state.lacking, state.device = 1, d
    device.loop_s = np.nan
    task.arrival_s, task.due_s = arrival_s, arrival_s + device.deadline_s
    task.reading = task.shed = 0
    task.uses = ROW_TO_COME
    task.journey = w.journey[line]
    task.path = w.journeys[task.journey].path
    if device.line == NONE:
        for column in range(w.seconds.shape[1]):
            w.kept[t, column] = w.seconds[state.groups + line, column]
    return np.uint32(t)


@inlined
def seconds(w: World, t: np.uint32, line: np.uint32, step: np.uint32) -> float:
    """What this step takes for this task; `line` is its device's."""
    column = w.steps[step]
    return float(w.kept[t, column] if line == NONE else w.seconds[line, column])


@inlined
def _compute(w: World, t: np.uint32) -> None:
    """Everything up to the send, or to the end where nothing is sent."""
    task = w.tasks[t]
    device, path = w.devices[task.device], w.paths[task.path]
    task.start_s = task.clock_s = task.arrival_s if task.arrival_s > device.free_s else device.free_s
    task.encode_s = task.network_s = task.airtime_s = task.wait_s = task.edge_s = 0.0
    device.busy = 1
    device.ahead = t if task.arrival_s > w.state[0].now_s else NONE
    _run(w, t)
    task.computing, task.outcome = 1, ANSWERED
    if path.encode != NONE:
        _encode(w, t)
    task.event = put(w, task.clock_s, COMPUTED, t)


@inlined
def _run(w: World, t: np.uint32) -> None:
    """The steps that only compute."""
    task = w.tasks[t]
    path, line = w.paths[task.path], w.devices[task.device].line
    clock_s, compute_s = task.clock_s, 0.0
    for step in range(path.first, path.computed):
        lasts_s = seconds(w, t, line, np.uint32(step))
        clock_s += lasts_s
        compute_s += lasts_s
    task.clock_s, task.compute_s = clock_s, compute_s


@inlined
def _encode(w: World, t: np.uint32) -> None:
    task = w.tasks[t]
    path = w.paths[task.path]
    task.encode_s = seconds(w, t, w.devices[task.device].line, path.encode)
    task.clock_s += task.encode_s
    timeout_s = task.due_s - task.clock_s
    if path.alone:
        timeout_s -= path.fallback_s
    task.timeout_s = path.timeout_s if path.timeout_s < timeout_s else timeout_s
    if task.timeout_s > 0.0:
        task.computing = 0
    else:
        task.outcome = UNSENT
        _fall_back(w, t)


@inlined
def _fall_back(w: World, t: np.uint32) -> None:
    """On to the next exit, where there is no reading yet."""
    task = w.tasks[t]
    step = w.paths[task.path].fallback
    if step != NONE:
        lasts_s = seconds(w, t, w.devices[task.device].line, step)
        task.clock_s += lasts_s
        task.compute_s += lasts_s


@inlined
def _resume(w: World, d: np.uint32) -> None:
    device = w.devices[d]
    t = device.resumed
    task = w.tasks[t]
    device.resumed = task.next
    task.clock_s = max(task.clock_s, device.free_s)
    task.computing = 1
    device.busy = 1
    _fall_back(w, t)
    task.event = put(w, task.clock_s, COMPUTED, t)


@inlined
def wake(w: World, d: np.uint32) -> None:
    """A request arrives."""
    device = w.devices[d]
    device.waking = 0
    if not device.busy:
        take_next(w, d)


@inlined
def release(w: World, d: np.uint32, now_s: float) -> None:
    """The CPU has nothing more to do for the task that it was busy with."""
    device = w.devices[d]
    device.free_s, device.busy = now_s, 0
    take_next(w, d)


@inlined
def heard(w: World, t: np.uint32, outcome: int, waited_s: float) -> None:
    """The wait for the edge is over: the request ends, or needs the CPU for its fallback."""
    task, now_s = w.tasks[t], w.state[0].now_s
    device = w.devices[task.device]
    d = task.device
    task.clock_s = now_s
    if settle(w, t, outcome, waited_s):
        finish(w, t)
    else:
        _queue(w, t)
    if not device.pipeline:
        release(w, d, now_s)
    elif not device.busy:
        take_next(w, d)


@inlined
def settle(w: World, t: np.uint32, outcome: int, waited_s: float) -> bool:
    """Notes how the wait ended; returns whether the request has ended, too."""
    task = w.tasks[t]
    task.outcome = outcome
    task.network_s = waited_s
    if outcome == REPLIED:
        task.network_s = task.network_s - task.wait_s - task.edge_s
        return True
    task.wait_s = task.edge_s = 0.0
    return bool(w.paths[task.path].fallback == NONE)


@inlined
def _queue(w: World, t: np.uint32) -> None:
    """Puts a task among those to be resumed; one that was begun ahead of its arrival makes way."""
    task, now_s = w.tasks[t], w.state[0].now_s
    device = w.devices[task.device]
    task.next = NONE
    if device.resumed == NONE:
        device.resumed = t
    else:
        w.tasks[device.resumed_last].next = t
    device.resumed_last = t
    ahead = device.ahead
    if ahead != NONE and w.tasks[ahead].arrival_s > now_s:
        w.tasks[ahead].event = ~w.tasks[ahead].event  # what stands in the calendar for it means nothing now
        device.parked, device.ahead, device.busy = ahead, NONE, 0


@inlined
def finish(w: World, t: np.uint32) -> None:
    """Writes the row."""
    task, state = w.tasks[t], w.state[0]
    device = w.devices[task.device]
    if device.closed:
        device.loop_s = task.clock_s + device.think_s
    row = w.rows[state.rows]
    state.rows += ONE
    row.number, row.device, row.journey, row.outcome = task.number, task.device, task.journey, task.outcome
    row.arrival_s, row.start_s, row.done_s = task.arrival_s, task.start_s, task.clock_s
    row.compute_s, row.encode_s, row.network_s = task.compute_s, task.encode_s, task.network_s
    row.airtime_s, row.wait_s, row.edge_s = task.airtime_s, task.wait_s, task.edge_s
    row.met, row.shed = task.clock_s <= task.due_s, task.shed
    let_go(w, t, ROW_TO_COME)


@inlined
def leave(w: World, t: np.uint32) -> None:
    """It has left the links and the edge."""
    let_go(w, t, ON_ITS_WAY)


@inlined
def let_go(w: World, t: np.uint32, use: int) -> None:
    """It is not needed for this any more."""
    task, state = w.tasks[t], w.state[0]
    task.uses &= ~use
    if not task.uses:
        task.next = state.free_task
        state.free_task = t
        state.tasks -= 1
