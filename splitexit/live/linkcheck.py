"""How exact emulated links are on this machine: rate and added delay of each direction, measured from outside.

Two processes at the ends of the links stamp what they send and receive on the clock that they share. The stamps are
held against the same link on paper, fed with the times at which was sent. What the kernel and the two processes take
is thus in the added delay.
"""

from __future__ import annotations

import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np

from splitexit.errors import ProcessError, UnknownNameError, UsageError
from splitexit.links import PACKET_BYTES, Fifo
from splitexit.live.address import Address
from splitexit.live.clock import be_punctual, sleep_until
from splitexit.live.link import LinkProxy
from splitexit.live.netns import EDGE, address_of
from splitexit.live.processes import Child, Line, enter
from splitexit.live.shaper import BUFFER_PACKETS, Tun
from splitexit.live.tbf import TbfNetwork, Veths, misfit, require_delay
from splitexit.live.tun import TunNetwork

RATE_PERCENT, DELAY_MS = 1.0, 1.0
"""What an emulated link is to keep to: its rate within so much, the median of the added delay within that."""

PROBES, PROBE_BYTES, PROBE_GAP_S = 200, 200, 0.004
TRAIN_S = 1.0
"""How long a train of full packets keeps the link busy, if it fits into the link's buffer."""

LOOPBACK, PORT, WAY = Address("127.0.0.1", 0), 9009, "link"
HEADER_BYTES = 28
"""Of IPv4 (20) and UDP (8)."""

PATIENCE_S = 2.0
"""For what is lost, after the last that came."""

Stamps = dict[int, float]
"""time.monotonic() by the number of a message."""


class Ends(ABC):
    """A pair of links between two processes.

    layer         what the rate counts; header_bytes  of it, beside the content of a message
    """

    layer: str
    header_bytes: int

    @abstractmethod
    def start(self, stack: ExitStack) -> tuple[Child, Child]:
        """The processes at the near end and at the far end, ready."""

    @abstractmethod
    def begin(self, up: Fifo, down: Fifo, origin_s: float) -> None:
        """From then on the links are those."""


class _Proxied(Ends):
    """Through a TCP proxy."""

    layer, header_bytes = "TCP payload", 0

    def start(self, stack: ExitStack) -> tuple[Child, Child]:
        far = _child("far end", stack, None)
        far.tell("listen", LOOPBACK)
        (address,) = far.expect("listening")
        self._proxy = stack.enter_context(LinkProxy(LOOPBACK, address))
        near = _child("near end", stack, None)
        near.tell("connect", self._proxy.address)
        for child in (near, far):
            child.expect("connected")
        return near, far

    def begin(self, up: Fifo, down: Fifo, origin_s: float) -> None:
        self._proxy.begin(up, down, origin_s)


class _Namespaced(Ends):
    """Over IP, between namespaces."""

    layer, header_bytes = "IP", HEADER_BYTES

    @abstractmethod
    def open(self) -> Tun | Veths:
        """The namespaces and what is between them."""

    def start(self, stack: ExitStack) -> tuple[Child, Child]:
        self.network = self.open()
        stack.callback(self.network.close)
        spaces = self.network.spaces
        near, far = _child("near end", stack, spaces.devices[0]), _child("far end", stack, spaces.edge)
        near.tell("bind", Address(str(address_of(0)), PORT), Address(str(EDGE), PORT))
        far.tell("bind", Address(str(EDGE), PORT), Address(str(address_of(0)), PORT))
        for child in (near, far):
            child.expect("connected")
        return near, far


class _Tunnelled(_Namespaced):
    def open(self) -> Tun:
        TunNetwork.require()
        return Tun([WAY])

    def begin(self, up: Fifo, down: Fifo, origin_s: float) -> None:
        assert isinstance(self.network, Tun)
        self.network.begin({WAY: (up, down)}, origin_s)


class _Bucketed(_Namespaced):
    def open(self) -> Veths:
        TbfNetwork.require()
        return Veths([WAY])

    def begin(self, up: Fifo, down: Fifo, origin_s: float) -> None:
        assert isinstance(self.network, Veths)
        for fifo in (up, down):
            if what := misfit(fifo.link):
                raise UsageError(f"--network tbf: {what}; take --network tun")
            if fifo.link.delay_s:
                require_delay()
        self.network.begin({WAY: (up, down)})


KINDS: Mapping[str, Callable[[], Ends]] = {"proxy": _Proxied, "tun": _Tunnelled, "tbf": _Bucketed}


def _child(name: str, stack: ExitStack, space: str | None) -> Child:
    child = Child(name, probe, space)
    stack.callback(child.close)
    return child


@contextmanager
def opened(network: str) -> Iterator[Callable[[Fifo, Fifo], dict[str, Any]]]:
    """Ends of a link of that kind, and a function that measures: links up and down -> what `measure` says.

    Raises UsageError where this machine cannot have such a network, UnknownNameError where nobody knows it.
    """
    if network not in KINDS:
        raise UnknownNameError("network", network, KINDS)
    with ExitStack() as stack:
        ends = KINDS[network]()
        near, far = ends.start(stack)
        yield lambda up, down: measure(ends, near, far, up, down)


def measure(ends: Ends, near: Child, far: Child, up: Fifo, down: Fifo) -> dict[str, Any]:
    """For each direction the error of the rate in percent, and the added delay in ms (median and 99th percentile).

    The rate is that of a train of full packets, the delay that of small messages on their own; `layer` says what the
    rate counts. Raises ProcessError where nothing arrives.
    """
    paper = [Fifo(fifo.link.bare().fork()) for fifo in (up, down)]
    origin_s = time.monotonic() + 0.05
    ends.begin(up, down, origin_s)
    sleep_until(origin_s)
    found: dict[str, Any] = {"layer": ends.layer}
    for direction, fifo, sender, receiver in (("up", paper[0], near, far), ("down", paper[1], far, near)):
        gap_s = PROBE_GAP_S + 8 * PROBE_BYTES / fifo.link.mean_bps
        small = _send(sender, receiver, PROBES, PROBE_BYTES, gap_s)
        late_ms = 1e3 * np.array(_late_s(fifo, *small, PROBE_BYTES + ends.header_bytes, origin_s))
        count = int(np.clip(fifo.link.mean_bps * TRAIN_S / 8 / PACKET_BYTES, 20, BUFFER_PACKETS * 9 // 10))
        full = _send(sender, receiver, count, PACKET_BYTES - ends.header_bytes, 0.0)
        found[direction] = {
            "rate_error_percent": _rate_error_percent(fifo, *full, origin_s),
            "added_delay_ms_p50": float(np.percentile(late_ms, 50)),
            "added_delay_ms_p99": float(np.percentile(late_ms, 99)),
            "lost": PROBES + count - len(small[1]) - len(full[1]),
        }
    return found


def kept(found: Mapping[str, Any]) -> bool:
    """Whether both directions kept to what is expected of them, and lost nothing."""
    return all(
        abs(found[direction]["rate_error_percent"]) <= RATE_PERCENT
        and abs(found[direction]["added_delay_ms_p50"]) <= DELAY_MS
        and not found[direction]["lost"]
        for direction in ("up", "down")
    )


def _send(sender: Child, receiver: Child, count: int, size_bytes: int, gap_s: float) -> tuple[Stamps, Stamps]:
    """When messages left, and when those arrived that did."""
    receiver.tell("receive", count, size_bytes)
    receiver.expect("receiving")
    sender.tell("send", count, size_bytes, gap_s)
    (left,) = sender.expect("sent")
    (came,) = receiver.expect("came")
    if len(came) < count // 2:
        raise ProcessError(f"{len(came)} of {count} messages came through the link")
    return left, came


def _late_s(fifo: Fifo, left: Stamps, came: Stamps, size_bytes: int, origin_s: float) -> list[float]:
    """By how much each was later than on paper."""
    due_s = {number: fifo.send(stamp_s - origin_s, size_bytes)[2] for number, stamp_s in left.items()}
    return [stamp_s - origin_s - due_s[number] for number, stamp_s in came.items()]


def _rate_error_percent(fifo: Fifo, left: Stamps, came: Stamps, origin_s: float) -> float:
    """Of a train: by how much less of its time on paper passes between its first and its last quarter.

    Each quarter counts by the message that was least late, because other work on the machine only ever adds. What a
    token bucket lets go at once is over by then.
    """
    due_s = {number: fifo.send(stamp_s - origin_s, PACKET_BYTES)[2] for number, stamp_s in left.items()}
    late_s = [(came[number] - origin_s - due_s[number], due_s[number]) for number in sorted(came)]
    quarter = max(1, len(late_s) // 4)
    (first_s, from_s), (last_s, to_s) = min(late_s[:quarter]), min(late_s[-quarter:])
    return 100.0 * ((to_s - from_s) / (to_s - from_s + last_s - first_s) - 1.0)


def probe(line: Line, space: str | None) -> None:
    """The process at one end of the links."""
    enter(space)
    be_punctual()
    with _meet(line) as link:
        line.tell("connected")
        while True:
            match line.next("send", "receive"):
                case "send", count, size_bytes, gap_s:
                    line.tell("sent", _sent(link, count, size_bytes, gap_s))
                case _, count, size_bytes:
                    line.tell("receiving")
                    line.tell("came", _came(link, count, size_bytes))


def _meet(line: Line) -> socket.socket:
    """A socket to the other end."""
    match line.next("bind", "listen", "connect"):
        case "bind", here, there:
            link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * BUFFER_PACKETS * PACKET_BYTES)
            link.bind((here.host, here.port))
            link.connect((there.host, there.port))
            return link
        case "listen", here:
            with here.listener("--listen") as listener:
                line.tell("listening", Address(here.host, listener.getsockname()[1]))
                link = listener.accept()[0]
        case _, there:
            link = socket.create_connection((there.host, there.port))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def _sent(link: socket.socket, count: int, size_bytes: int, gap_s: float) -> Stamps:
    left, next_s = Stamps(), time.monotonic()
    for number in range(count):
        sleep_until(next_s)
        left[number] = time.monotonic()
        link.sendall(struct.pack("!I", number).ljust(size_bytes, b"\0"))
        next_s = left[number] + gap_s
    return left


def _came(link: socket.socket, count: int, size_bytes: int) -> Stamps:
    """Until all are there, or none has come for a while."""
    came, content = Stamps(), bytearray()
    link.settimeout(None)
    with suppress(TimeoutError):
        while len(came) < count:
            content += link.recv(size_bytes - len(content))
            if len(content) == size_bytes:
                came[struct.unpack_from("!I", content)[0]] = time.monotonic()
                content.clear()
            link.settimeout(PATIENCE_S)
    return came
