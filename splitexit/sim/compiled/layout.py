"""What the compiled engine keeps in memory: one array of records per kind of thing, all numbers.

Fields mean what they mean in the SimPy engine (splitexit.sim), which this one repeats event by event. Whatever is an
index has no sign: numba then leaves out the code for negative ones, a third of a run.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

NONE = np.uint32(0xFFFFFFFF)
"""No task, no server, no limit."""

ANSWERED, REPLIED, GIVEN_UP, UNSENT = range(4)
"""How a request ends: on the device, with the edge's reply, without it, or too late to be sent at all."""


def record(**fields: str) -> np.dtype[Any]:
    """A record with fields of these types, as long as a power of two: to find one by its number is a shift then."""
    packed = np.dtype(list(fields.items()), align=True)
    assert packed.fields is not None
    return np.dtype(
        {
            "names": list(fields),
            "formats": list(fields.values()),
            "offsets": [packed.fields[name][1] for name in fields],
            "itemsize": 1 << (packed.itemsize - 1).bit_length(),
        },
        align=True,
    )


EVENT = record(time_s="f8", count="i8", kind="i4", who="u4")

STATE = record(
    now_s="f8",
    event="i8",  # count of the present one
    count="i8",  # events put in so far
    events="u8",  # in the calendar
    alarms="u8",
    tasks="i8",  # in use
    rows="u8",  # in the output
    groups="u8",
    turn="u8",  # of the balancer
    downlink_bytes="i8",
    free_task="u4",  # head of the list of unused tasks
    device="u4",
    lacking="i1",  # `device` has begun the last of its requests that are in memory, and has more
    least_loaded="i1",
    spent="i1",  # the first event has happened and is still there
)

TASK = record(
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
    answered_s="f8",  # when its reply arrives; infinite before that is known
    wait_s="f8",
    edge_s="f8",
    number="i8",
    event="i8",  # count of the event at which the CPU is done with it
    device="u4",
    journey="u4",
    path="u4",
    server="u4",
    next="u4",  # in the queue of resumed tasks, or among unused ones
    behind="u4",  # in the queue of a server
    sooner="u4",  # neighbours among those that their device waits for
    later="u4",
    outcome="i1",
    computing="i1",  # to the end of the request, not just to a send
    reading="i1",
    shed="i1",
    uses="i1",  # what it is needed for (splitexit.sim.compiled.kinds)
)

DEVICE = record(
    free_s="f8",
    loop_s="f8",  # closed loop: when the next request arrives; NaN while it cannot
    think_s="f8",
    deadline_s="f8",
    alarm_s="f8",
    next="u8",
    loaded="u8",  # requests that are in memory, or were
    total="u8",
    base="u8",  # the first request in memory
    place="u8",  # where it is in memory
    line="u4",  # of `seconds`; NONE where every request has a line of its own
    uplink="u4",
    downlink="u4",
    ahead="u4",  # the task that it will begin when it arrives
    parked="u4",  # the same, when a resumed one came between
    resumed="u4",  # head and tail of the queue of resumed tasks
    resumed_last="u4",
    due="u4",  # whom it waits for, the first to give up at the head
    due_last="u4",
    busy="i1",
    waking="i1",
    pipeline="i1",
    closed="i1",
    free="i1",  # open arrivals and pipelining: nothing but a fallback comes between it and its next request
)

LINK = record(free_s="f8", byte_s="f8", delay_s="f8")

SERVER = record(idle="i4", running="i4", waiting="u4", room="u4", head="u4", tail="u4")

PATH = record(
    fallback_s="f8",
    timeout_s="f8",
    first="u4",  # columns of the steps on the device before it sends or answers
    computed="u4",  # where they end
    encode="u4",  # column; NONE where it does not send
    rpc="u4",
    edge="u4",  # columns on the edge, the decoding first
    edge_end="u4",
    fallback="u4",  # column; NONE where a reading is there
    alone="i1",  # without a reading when it sends
)

JOURNEY = record(path="u4", size_bytes="i4")

ROW = record(
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
    device="u4",
    journey="u4",
    outcome="i1",
    met="i1",
    shed="i1",
)


class World(NamedTuple):
    """All of it.

    steps     columns of `seconds`, path after path
    arrival_s, journey   of the requests in memory, one stretch per device
    seconds   what every step takes, (lines, columns): a line per group, then one per request in memory
    kept      the lines of tasks in use, (tasks, columns), where they vary
    """

    state: Array
    events: Array
    alarms: Array
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
