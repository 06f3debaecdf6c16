"""The edge, as in splitexit.sim.server and tier: servers behind a balancer, workers behind one queue each."""

from __future__ import annotations

from numba import njit

from splitexit.sim.compiled.calendar import put
from splitexit.sim.compiled.device import DONE, REPLY, kept, leave
from splitexit.sim.compiled.layout import NONE, World

_compiled = njit(cache=True, nogil=True)


@_compiled
def arrive(w: World, t: int) -> None:
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
        _answer(w, t)
    else:
        _queue(w, s, t)


@_compiled
def _choose(w: World) -> int:
    state, count = w.state[0], len(w.servers)
    if count == 1:
        return 0
    if not state.least_loaded:
        state.turn += 1
        return int((state.turn - 1) % count)
    best, fewest = 0, _waiting(w, 0) + w.servers[0].running
    for s in range(1, count):
        present = _waiting(w, s) + w.servers[s].running
        if present < fewest:
            best, fewest = s, present
    return best


@_compiled
def _queue(w: World, s: int, t: int) -> None:
    server = w.servers[s]
    w.tasks[t].behind = NONE
    if server.head == NONE:
        server.head = t
    else:
        w.tasks[server.tail].behind = t
    server.tail = t
    server.waiting += 1


@_compiled
def _pop(w: World, s: int) -> int:
    server = w.servers[s]
    t = server.head
    server.head = w.tasks[t].behind
    server.waiting -= 1
    return int(t)


@_compiled
def _waiting(w: World, s: int) -> int:
    """How many wait; those that nobody waits for any more leave the head of the queue."""
    server, now_s = w.servers[s], w.state[0].now_s
    while server.head != NONE and w.tasks[server.head].give_up_s <= now_s:
        leave(w, _pop(w, s))
    return int(server.waiting)


@_compiled
def _start(w: World, t: int) -> None:
    """Decodes and runs; stops at the first stage boundary at or behind `give_up_s`."""
    task, now_s = w.tasks[t], w.state[0].now_s
    server, path = w.servers[task.server], w.paths[task.path]
    server.idle -= 1
    server.running += 1
    task.wait_s += now_s - task.arrive_s
    done_s = now_s
    for step in range(path.edge, path.edge_end):
        if step > path.edge and done_s >= task.give_up_s:
            break
        done_s += kept(w, t, step)
    task.reading = done_s < task.give_up_s
    task.edge_s += done_s - now_s
    put(w, done_s, DONE, t)


@_compiled
def done(w: World, t: int) -> None:
    """A worker is through with a job, and takes the next."""
    task = w.tasks[t]
    s = task.server
    server = w.servers[s]
    server.running -= 1
    server.idle += 1
    if _waiting(w, s):
        _start(w, _pop(w, s))
    if task.reading:
        _answer(w, t)
    else:
        leave(w, t)


@_compiled
def _answer(w: World, t: int) -> None:
    """A reply or a refusal takes the downlink."""
    state, link = w.state[0], w.links[w.devices[w.tasks[t].device].downlink]
    start_s = state.now_s if state.now_s > link.free_s else link.free_s
    link.free_s = start_s + state.downlink_bytes * link.byte_s
    put(w, link.free_s + link.delay_s, REPLY, t)
