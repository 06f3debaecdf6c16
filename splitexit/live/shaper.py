"""A user-space shaper of IP packets: a process between network namespaces, with a TUN device in each.

The same Link objects as in the simulator say when each packet has gone through; it is handed on then. The clock is
virtual, so that rates do not drift: a packet handed on late delays no other. Rates count IP packets, headers included,
as `transport: tcp` does. What reaches the other side is what the kernel's own TCP sent, so windows, acknowledgements
and losses are real.

One thread waits for packets and for the next time one is due, takes all that have come, hands on all that are due.
"""

from __future__ import annotations

import fcntl
import gc
import os
import queue
import select
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any

from splitexit.errors import ProcessError
from splitexit.links import PACKET_BYTES, Fifo
from splitexit.live.clock import be_punctual
from splitexit.live.fidelity import Fidelity
from splitexit.live.netns import (
    PREFIX_BITS,
    QUIET,
    TCP,
    Spaces,
    address_of,
    configure,
    congestion_control_allowed,
    number_of,
    run,
)
from splitexit.live.processes import Child, Line, enter
from splitexit.live.ways import Ways

BUFFER_PACKETS = 1000
"""Packets that may wait for a link; what comes then is dropped. netem's default (tc-netem(8), `limit`) and the length
of a Linux interface's queue (ETHER_SETUP's tx_queue_len)."""

TAKEN_PACKETS = 64
"""Read from one device before others get their turn."""

QUEUE_PACKETS = 10_000
"""That the kernel holds for the shaper while it is not running; TUN's own 500 are fewer than a window may have."""

DEVICE = "splitexit"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h

ANSWER_S = 30.0
IDLE_S = 60.0


@dataclass(slots=True)
class Lane:
    """One direction of one link: packets that wait for it or are under way."""

    fifo: Fifo
    buffer_packets: int = BUFFER_PACKETS
    fidelity: Fidelity = field(default_factory=Fidelity)
    under_way: deque[tuple[float, float, float, bytes, int]] = field(default_factory=deque)
    _unsent: deque[float] = field(default_factory=deque)

    def offer(self, now_s: float, packet: bytes, to: int) -> None:
        """A packet for the other side; dropped where too many wait."""
        unsent = self._unsent
        while unsent and unsent[0] <= now_s:
            unsent.popleft()
        if len(unsent) >= self.buffer_packets:
            self.fidelity.dropped += 1
            return
        start_s, sent_s, arrive_s = self.fifo.send(now_s, len(packet))
        unsent.append(sent_s)
        self.under_way.append((arrive_s, start_s, sent_s, packet, to))

    @property
    def due_s(self) -> float:
        """When the next packet is to be handed on; inf where there is none."""
        return self.under_way[0][0] if self.under_way else inf

    def hand_on(self, now_s: float) -> None:
        """Those that are due by then; all, at infinity."""
        under_way, fidelity = self.under_way, self.fidelity
        while under_way and under_way[0][0] <= now_s:
            arrive_s, start_s, sent_s, packet, to = under_way.popleft()
            _write(to, packet)
            fidelity.note(start_s, sent_s, arrive_s, len(packet), now_s - arrive_s)

    def let_go(self) -> None:
        """Hands on all that is left, at once and uncounted."""
        while self.under_way:
            *_, packet, to = self.under_way.popleft()
            _write(to, packet)


def _write(to: int, packet: bytes) -> None:
    with suppress(OSError):  # nobody is behind that device any more
        os.write(to, packet)


@dataclass
class _Shape:
    """Links as they are from `origin_s` on: for every device its way up and its way down."""

    origin_s: float
    lanes: dict[str, tuple[Lane, Lane]]
    up: list[Lane]
    down: list[Lane]

    def __post_init__(self) -> None:
        self.all = [lane for both in self.lanes.values() for lane in both]


class Shaper:
    """Between the edge's TUN device and those of the devices.

    Args:
        edge, devices: file descriptors; read without blocking.
        names: of the link that each device sends over.
    """

    def __init__(self, edge: int, devices: Sequence[int], names: Sequence[str]) -> None:
        self._edge, self._devices, self._names = edge, devices, names
        self._number = {device: number for number, device in enumerate(devices)}
        self._shape: _Shape | None = None
        self._orders: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK)
        self._inputs = [edge, *devices, self._bell]

    def do(self, act: Callable[[], Any]) -> Any:
        """Has the thread that runs call a function; its result."""
        result: Future[Any] = Future()
        self._orders.put((act, result))
        os.eventfd_write(self._bell, 1)
        return result.result()

    def begin(self, ways: Ways, origin_s: float, buffer_packets: int = BUFFER_PACKETS) -> None:
        """From `origin_s` (time.monotonic()) on, packets take the time that the links say."""
        lanes = {name: (Lane(up, buffer_packets), Lane(down, buffer_packets)) for name, (up, down) in ways.items()}
        up, down = ([lanes[name][direction] for name in self._names] for direction in (0, 1))
        self._shape = _Shape(origin_s, lanes, up, down)

    def end(self) -> dict[str, dict[str, dict[str, float]]]:
        """How exact each link was; what is under way arrives now, and all that follows at once."""
        shape, self._shape = self._shape, None
        if shape is None:
            return {}
        for lane in shape.all:
            lane.let_go()
        return {
            name: {"up": up.fidelity.summary(), "down": down.fidelity.summary()}
            for name, (up, down) in shape.lanes.items()
        }

    def run(self) -> None:
        """For ever."""
        be_punctual()
        while True:
            ready = select.select(self._inputs, (), (), self._left_s())[0]
            for source in ready:
                if source == self._bell:
                    self._obey()
                else:
                    self._take(source)
            self._hand_on()

    def _left_s(self) -> float:
        """Until the next packet is due."""
        if self._shape is None:
            return IDLE_S
        due_s = min(lane.due_s for lane in self._shape.all) + self._shape.origin_s
        return max(0.0, min(due_s - time.monotonic(), IDLE_S))

    def _obey(self) -> None:
        os.eventfd_read(self._bell)
        while not self._orders.empty():
            act, result = self._orders.get()
            try:
                result.set_result(act())
            except Exception as error:
                result.set_exception(error)

    def _take(self, source: int) -> None:
        """All that has come from one device."""
        for _ in range(TAKEN_PACKETS):
            try:
                packet = os.read(source, PACKET_BYTES)
            except OSError:  # nothing is left
                return
            if packet and packet[0] >> 4 == 4:  # IPv4; empty where the device goes away
                self._pass_on(source, packet)

    def _pass_on(self, source: int, packet: bytes) -> None:
        upward = source != self._edge
        number = self._number[source] if upward else number_of(packet[16:20])
        if not 0 <= number < len(self._devices):
            return
        to, shape = self._edge if upward else self._devices[number], self._shape
        now_s = 0.0 if shape is None else time.monotonic() - shape.origin_s
        if shape is None or now_s < 0.0:
            _write(to, packet)
        else:
            (shape.up if upward else shape.down)[number].offer(now_s, packet, to)

    def _hand_on(self) -> None:
        if self._shape is not None:
            for lane in self._shape.all:
                if lane.under_way:
                    lane.hand_on(time.monotonic() - self._shape.origin_s)


def shape(line: Line, spaces: Sequence[str], names: Sequence[str]) -> None:
    """The process: TUN devices in the namespaces (the edge's first), then the shaper until the parent is gone."""
    with congestion_control_allowed():
        edge, *devices = [open_tun(name, number) for number, name in enumerate(spaces, -1)]
    shaper = Shaper(edge, devices, names)
    hurry()
    gc.disable()  # nothing here makes cycles; a collector of them would only stop all links now and then
    threading.Thread(target=_run_or_end, args=(shaper, line), daemon=True).start()
    line.tell("up")
    while True:
        match line.next("begin", "end"):
            case "begin", ways, origin_s, buffer_packets:
                shaper.do(partial(shaper.begin, ways, origin_s, buffer_packets))
                line.tell("begun")
            case _:
                line.tell("ended", shaper.do(shaper.end))


def _run_or_end(shaper: Shaper, line: Line) -> None:
    """No packet would move any more without that thread, so that its end is that of the process."""
    try:
        shaper.run()
    except Exception as error:
        line.tell("failed", f"internal error: {type(error).__name__}: {error}", ProcessError.exit_code)
        os._exit(1)


def hurry() -> None:
    """Asks that packets due come before whatever else runs (SCHED_RR); without the privilege nothing changes."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def open_tun(space: str, number: int) -> int:
    """A TUN device in a namespace, up, with the address of that device (-1: the edge); its file descriptor."""
    enter(space)
    configure(QUIET | TCP)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH14s", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI, b""))
    commands = (
        f"addr add {address_of(number)}/{PREFIX_BITS} dev {DEVICE}",
        f"link set {DEVICE} mtu {PACKET_BYTES} txqueuelen {QUEUE_PACKETS} up",
        "link set lo up",
    )
    run("ip", "-batch", "-", told="\n".join(commands) + "\n")
    return tun


class Tun:
    """Namespaces, the shaper between them, and what it is told.

    Args:
        names: of the link that each device sends over.

    spaces  the namespaces; in that of the edge it has the address `EDGE`
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.spaces = Spaces(len(names))
        self._child: Child | None = None
        try:
            self._child = Child("link", shape, self.spaces.all, tuple(names))
            self._child.expect("up")
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Of the shaper."""
        return 0 if self._child is None else self._child.pid

    def begin(self, ways: Ways, origin_s: float, buffer_packets: int = BUFFER_PACKETS) -> None:
        """From `origin_s` on the links are those; raises ProcessError where the shaper has ended."""
        assert self._child is not None
        bare = {name: (Fifo(up.link.bare()), Fifo(down.link.bare())) for name, (up, down) in ways.items()}
        self._child.tell("begin", bare, origin_s, buffer_packets)
        self._child.expect("begun", ANSWER_S)

    def end(self) -> Mapping[str, Any]:
        """How exact the links were, by name and direction; raises ProcessError where the shaper has ended."""
        assert self._child is not None
        self._child.tell("end")
        found: Mapping[str, Any]
        (found,) = self._child.expect("ended", ANSWER_S)
        return found

    def close(self) -> None:
        """Ends the shaper and removes the namespaces; may be called twice."""
        if self._child is not None:
            self._child.close()
        self.spaces.close()
