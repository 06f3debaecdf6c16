"""The edge, as in splitexit.sim.server and tier: servers behind a balancer, workers behind one queue each."""

from __future__ import annotations

import numpy as np

from splitexit.sim.compiled.calendar import put
from splitexit.sim.compiled.device import leave, seconds
from splitexit.sim.compiled.jit import inlined
from splitexit.sim.compiled.kinds import DONE
from splitexit.sim.compiled.layout import NONE, World
from splitexit.sim.compiled.transport import answer

FIRST, ONE = np.uint32(0), np.uint64(1)


@inlined
def arrive(w: World, t: np.uint32) -> None:
    """A payload is here."""
    task, now_s = w.tasks[t], w.state[0].now_s
    task.arrive_s = now_s
    if task.give_up_s <= now_s:
        leave(w, t)  # refused on sight: nobody waits any more
        return
    s = _choose(w)
    task.server = s
    server = w.servers[s]
    if server.idle:
        _start(w, t)
    elif server.room != NONE and _waiting(w, s) >= server.room:
        task.shed = 1
        answer(w, t)
    else:
        _queue(w, s, t)


@inlined
def _choose(w: World) -> np.uint32:
    state, count = w.state[0], np.uint64(len(w.servers))
    if count == ONE:
        return FIRST
    if not state.least_loaded:
        turn = state.turn
        state.turn += ONE
        return np.uint32(turn % count)
    best, fewest = FIRST, w.servers[FIRST].running + np.int64(_waiting(w, FIRST))
    for number in range(1, len(w.servers)):
        s = np.uint32(number)
        present = w.servers[s].running + np.int64(_waiting(w, s))
        if present < fewest:
            best, fewest = s, present
    return best


@inlined
def _queue(w: World, s: np.uint32, t: np.uint32) -> None:
    server = w.servers[s]
    w.tasks[t].behind = NONE
    if server.head == NONE:
        server.head = t
    else:
        w.tasks[server.tail].behind = t
    server.tail = t
    server.waiting += 1


@inlined
def _pop(w: World, s: np.uint32) -> np.uint32:
    server = w.servers[s]
    t = server.head
    server.head = w.tasks[t].behind
    server.waiting -= 1
    return np.uint32(t)


@inlined
def _waiting(w: World, s: np.uint32) -> np.uint32:
    """How many wait; those that nobody waits for any more leave the head of the queue."""
    server, now_s = w.servers[s], w.state[0].now_s
    while server.head != NONE and w.tasks[server.head].give_up_s <= now_s:
        leave(w, _pop(w, s))
    return np.uint32(server.waiting)


@inlined
def _start(w: World, t: np.uint32) -> None:
    """Decodes and runs; stops at the first stage boundary at or behind `give_up_s`."""
    task, now_s = w.tasks[t], w.state[0].now_s
    server, path = w.servers[task.server], w.paths[task.path]
    server.idle -= 1
    server.running += 1
    task.wait_s += now_s - task.arrive_s
    done_s, line = now_s, w.devices[task.device].line
    for step in range(path.edge, path.edge_end):
        if step > path.edge and done_s >= task.give_up_s:
            break
        done_s += seconds(w, t, line, np.uint32(step))
    task.reading = done_s < task.give_up_s
    task.edge_s += done_s - now_s
    put(w, done_s, DONE, t)


@inlined
def done(w: World, t: np.uint32) -> None:
    """A worker is through with a job, and takes the next."""
    task = w.tasks[t]
    s = task.server
    server = w.servers[s]
    server.running -= 1
    server.idle += 1
    if _waiting(w, s):
        _start(w, _pop(w, s))
    if task.reading:
        answer(w, t)
    else:
        leave(w, t)
