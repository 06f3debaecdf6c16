"""ns.py: a station is a Port whose rate makes the packet last its service time, propagation is a Wire.

Two things are put right. A packet is stamped before the generator waits for its arrival, so `sink.waits` contain the
gap between arrivals, which is subtracted. A Port has one server, so the edge is two Ports in turn, which is the same
as two workers behind one queue where all take equally long.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import simpy
from ns.packet.dist_generator import DistPacketGenerator
from ns.packet.sink import PacketSink
from ns.port.port import Port
from ns.port.wire import Wire

from benchmarks.workload import DELAY_S, DEVICE_S, DOWN_BYTES, EDGE_S, RATE_BPS, UP_BYTES, WORKERS

NEVER_S = 1e12


class InTurn:
    """Packets go to several elements in turn."""

    def __init__(self, elements: list[Any]) -> None:
        self._next = itertools.cycle(elements)

    def put(self, packet: Any) -> None:
        """Passes it on."""
        next(self._next).put(packet)


class Answer:
    """The edge's answer is smaller than what it got."""

    def __init__(self, out: Any) -> None:
        self._out = out

    def put(self, packet: Any) -> None:
        """Passes it on as the answer."""
        packet.size = DOWN_BYTES
        self._out.put(packet)


def run(arrivals: list[float]) -> list[float]:
    """What the sink calls waits, which contain the gaps between arrivals."""
    gaps = itertools.chain(np.diff(arrivals, prepend=0.0).tolist(), itertools.repeat(NEVER_S))
    env = simpy.Environment()
    source = DistPacketGenerator(env, "device", lambda: next(gaps), lambda: UP_BYTES)
    device, up, down = Port(env, 8 * UP_BYTES / DEVICE_S), Port(env, RATE_BPS), Port(env, RATE_BPS)
    workers = [Port(env, 8 * UP_BYTES / EDGE_S) for _ in range(WORKERS)]
    there, back = (Wire(env, lambda: DELAY_S) for _ in range(2))
    sink = PacketSink(env)
    source.out, device.out, up.out, there.out = device, up, there, InTurn(workers)
    for worker in workers:
        worker.out = Answer(down)
    down.out, back.out = back, sink
    env.run(until=arrivals[-1] + 60.0)
    waits: list[float] = sink.waits[0]
    return waits


def responses(waits: list[float], arrivals: list[float]) -> list[float]:
    """Waits without the gaps."""
    found: list[float] = (np.array(waits) - np.diff(arrivals, prepend=0.0)).tolist()
    return found
