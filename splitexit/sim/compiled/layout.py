"""What the compiled engine keeps in memory: one array of records per kind of thing, all numbers.

Fields mean what they mean in the SimPy engine (splitexit.sim), which this one repeats event by event.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

NONE = -1
"""No task, no server, no limit."""

ANSWERED, REPLIED, GIVEN_UP, UNSENT = range(4)
"""How a request ends: on the device, with the edge's reply, without it, or too late to be sent at all."""


def _record(**fields: str) -> np.dtype[Any]:
    return np.dtype(list(fields.items()), align=True)


EVENT = _record(time_s="f8", count="i8", kind="i4", who="i4")

STATE = _record(
    now_s="f8",
    count="i8",  # events put in so far
    events="i8",  # in the calendar
    free_task="i8",  # head of the list of unused tasks
    tasks="i8",  # in use
    rows="i8",  # in the output
    device="i8",  # that needs more requests
    turn="i8",  # of the balancer
    groups="i8",
    downlink_bytes="i8",
    least_loaded="i1",
)

TASK = _record(
    arrival_s="f8",
    start_s="f8",
    due_s="f8",
    clock_s="f8",
    compute_s="f8",
    encode_s="f8",
    timeout_s="f8",
    sent_s="f8",
    give_up_s="f8",
    network_s="f8",
    airtime_s="f8",
    arrive_s="f8",
    wait_s="f8",
    edge_s="f8",
    number="i8",
    device="i4",
    journey="i4",
    path="i4",
    server="i4",
    next="i4",  # in the queue of resumed tasks, or among unused ones
    behind="i4",  # in the queue of a server
    sooner="i4",  # neighbours among those that their device waits for
    later="i4",
    outcome="i1",
    computing="i1",  # to the end of the request, not just to a send
    awaited="i1",
    reading="i1",
    shed="i1",
    uses="i1",  # 1: its row is to come, 2: it is on its way or at the edge
)

DEVICE = _record(
    free_s="f8",
    loop_s="f8",  # closed loop: when the next request arrives; NaN while it cannot
    think_s="f8",
    deadline_s="f8",
    alarm_s="f8",
    next="i8",
    loaded="i8",  # requests that are in memory, or were
    total="i8",
    base="i8",  # the first request in memory
    place="i8",  # where it is in memory
    line="i8",  # of `seconds`; NONE where every request has a line of its own
    uplink="i4",
    downlink="i4",
    resumed="i4",  # head and tail of the queue of resumed tasks
    resumed_last="i4",
    due="i4",  # whom it waits for, the first to give up at the head
    due_last="i4",
    busy="i1",
    waking="i1",
    pipeline="i1",
    closed="i1",
)

LINK = _record(free_s="f8", byte_s="f8", delay_s="f8")

SERVER = _record(idle="i4", running="i4", waiting="i4", head="i4", tail="i4", room="i4")

PATH = _record(
    fallback_s="f8",
    timeout_s="f8",
    first="i4",  # columns of the steps on the device before it sends or answers
    encode="i4",  # column; NONE where it does not send
    rpc="i4",
    edge="i4",  # columns on the edge, the decoding first
    edge_end="i4",
    fallback="i4",  # column; NONE where a reading is there
    end="i4",
    alone="i1",  # without a reading when it sends
)

JOURNEY = _record(path="i4", size_bytes="i4")

ROW = _record(
    arrival_s="f8",
    start_s="f8",
    compute_s="f8",
    encode_s="f8",
    network_s="f8",
    airtime_s="f8",
    wait_s="f8",
    edge_s="f8",
    done_s="f8",
    number="i8",
    device="i4",
    journey="i4",
    outcome="i1",
    met="i1",
    shed="i1",
)


class World(NamedTuple):
    """All of it.

    steps     columns of `seconds`, path after path
    arrival_s, journey   of the requests in memory, one stretch per device
    seconds   what every step takes, (lines, columns): a line per group, then one per request in memory
    kept      the lines of tasks that were sent, (tasks, columns)
    """

    state: Array
    events: Array
    tasks: Array
    devices: Array
    links: Array
    servers: Array
    paths: Array
    steps: Array
    journeys: Array
    arrival_s: Array
    journey: Array
    seconds: Array
    kept: Array
    rows: Array
