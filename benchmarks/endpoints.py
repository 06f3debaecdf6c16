"""The two ends of benchmarks/upload.py: an edge that takes uploads, devices that make them, the TUN network between."""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import ceil, inf
from threading import Thread
from typing import Any

from splitexit.links import Fifo
from splitexit.links.constant import Constant
from splitexit.live.address import Address
from splitexit.live.link import LinkProxy
from splitexit.live.netns import EDGE
from splitexit.live.processes import Child, Line, enter
from splitexit.live.shaper import Tun
from splitexit.live.tuning import CLIENT, SERVER, tune_process

KB = 1024
LOOPBACK = Address("127.0.0.1", 0)
CALL = "/upload/Take"
LARGEST_BYTES, LONGEST_S = 64 * KB * KB, 600.0

PAUSES_S = (0.0, 0.005, 0.02, 0.1)
"""Before calls that are timed on an unshaped network: one finds its processes awake after another, asleep later."""

FIRST = inf
"""Stands for the pause before a connection's first call, which costs more."""

DATA_BYTES, FRAME_BYTES, PREFIX_BYTES = 16_384, 9, 5
"""HTTP/2 cuts a message into frames of at most so many bytes (RFC 9113, SETTINGS_MAX_FRAME_SIZE), each with a head;
gRPC puts five bytes before a message."""


@dataclass(frozen=True)
class Message:
    """Of a connection's plan: what state it meets, seconds since the last answer, and bytes."""

    state: str
    gap_s: float
    size_bytes: int


Plan = list[Message]


def read(connection: socket.socket, size_bytes: int) -> bytes:
    """That many bytes, or none at the end of the connection."""
    content = bytearray()
    while len(content) < size_bytes:
        if not (part := connection.recv(min(size_bytes - len(content), 1 << 18))):
            return b""
        content += part
    return bytes(content)


def serve_grpc(address: Address) -> tuple[Any, int]:
    """A server that answers every call with the time its handler started, and its port."""
    import grpc

    def take(body: bytes, context: Any) -> bytes:
        return struct.pack("!d", time.monotonic())

    handlers: dict[str, Any] = {CALL.rpartition("/")[2]: grpc.unary_unary_rpc_method_handler(take)}
    limit = ("grpc.max_receive_message_length", LARGEST_BYTES)
    server = grpc.server(ThreadPoolExecutor(32), options=(*SERVER, limit))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(CALL.split("/")[1], handlers),))
    port = server.add_insecure_port(str(address))
    server.start()
    return server, port


def serve(line: Line, space: str | None, host: str) -> None:
    """At the edge: answers every message with the time of its last byte, over sockets and over gRPC."""
    tune_process()
    enter(space)
    _server, port = serve_grpc(Address(host, 0))
    with socket.create_server((host, 0)) as listener:
        line.tell("listening", {"raw": Address(host, listener.getsockname()[1]), "grpc": Address(host, port)})
        while True:
            Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


def answer(connection: socket.socket) -> None:
    """One connection of the raw server."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        while header := read(connection, 8):
            read(connection, struct.unpack("!Q", header)[0] - 8)
            connection.sendall(struct.pack("!d", time.monotonic()))


def upload_raw(plan: Plan, to: Address) -> Iterator[float]:
    """Seconds per message of one connection, over a socket."""
    with socket.create_connection((to.host, to.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        time.sleep(0.3)
        for message in plan:
            time.sleep(message.gap_s)
            content = struct.pack("!Q", message.size_bytes) + bytes(message.size_bytes - 8)
            start_s = time.monotonic()
            connection.sendall(content)
            yield float(struct.unpack("!d", read(connection, 8))[0]) - start_s


def upload_by_grpc(plan: Plan, to: Address) -> Iterator[float]:
    """The same as unary calls."""
    with connected(to) as call:
        time.sleep(0.3)
        for message in plan:
            time.sleep(message.gap_s)
            content = bytes(message.size_bytes)
            start_s = time.monotonic()
            yield float(struct.unpack("!d", call(content, timeout=LONGEST_S))[0]) - start_s


@contextmanager
def connected(address: Address) -> Iterator[Any]:
    """A call on a channel with the options of the live client, once it is ready."""
    import grpc

    with grpc.insecure_channel(str(address), options=CLIENT) as channel:
        grpc.channel_ready_future(channel).result(LONGEST_S)
        yield channel.unary_unary(CALL)


def header_bytes() -> tuple[int, int]:
    """Bytes of HTTP/2 headers with a connection's first call, and with later ones, which name what was said before."""
    calls = 20
    wide = (Fifo(Constant(mbps=1e6)), Fifo(Constant(mbps=1e6)))
    server, port = serve_grpc(LOOPBACK)
    with LinkProxy(LOOPBACK, Address(LOOPBACK.host, port), *wide) as proxy, connected(proxy.address) as call:
        sent = []
        for number in range(calls + 1):
            time.sleep(0.05)
            sent.append(int(proxy.summary()["up"]["bytes"]))
            if number < calls:
                call(bytes(KB), timeout=LONGEST_S)
    server.stop(0.0)
    known_bytes = KB + PREFIX_BYTES + FRAME_BYTES
    return sent[1] - sent[0] - known_bytes, ceil((sent[-1] - sent[1]) / (calls - 1)) - known_bytes


def send(line: Line, space: str | None) -> None:
    """A device: makes the uploads that it is told, in rounds; the least of each message's times."""
    tune_process()
    enter(space)
    line.tell("there")
    while True:
        _, what, way, rounds, to = line.next("upload")
        upload = upload_raw if way == "raw" else upload_by_grpc
        found = [[list(upload(plan, to)) for plan in what] for _ in range(rounds)]
        line.tell("took", [[min(times) for times in zip(*of, strict=True)] for of in zip(*found, strict=True)])


@dataclass(frozen=True)
class Bench:
    """The processes: a network of some devices, and where the edge listens, by way."""

    network: Tun
    devices: list[Child]
    to: dict[str, Address]

    @classmethod
    @contextmanager
    def open(cls, count: int) -> Iterator[Bench]:
        """Everything is up inside, and gone afterwards."""
        with ExitStack() as stack:
            network = Tun([str(number) for number in range(count)])
            stack.callback(network.close)
            edge = started(stack, "edge", serve, network.spaces.edge, str(EDGE))
            devices = [started(stack, f"device {n}", send, space) for n, space in enumerate(network.spaces.devices)]
            for device in devices:
                device.expect("there")
            yield cls(network, devices, edge.expect("listening")[0])

    def upload(self, links: Sequence[tuple[float, float, str]], what: list[Plan], rounds: int) -> list[list[Any]]:
        """The times over some links at once (Mbit/s, ms, way), one device each."""
        ways = {str(n): (Fifo(Constant(mbps=1e5)), Fifo(Constant(mbps=1e5))) for n in range(len(self.devices))}
        for n, (mbps, delay_ms, _) in enumerate(links):
            made = Constant(mbps=mbps, delay_ms=delay_ms)
            ways[str(n)] = (Fifo(made), Fifo(made))
        self.network.begin(ways, time.monotonic())
        for device, (_, _, way) in zip(self.devices, links, strict=False):
            device.tell("upload", what, way, rounds, self.to[way])
        found = [device.expect("took", LONGEST_S)[0] for device in self.devices[: len(links)]]
        dropped = sum(lane["dropped"] for both in self.network.end().values() for lane in both.values())
        if dropped:
            print(f"{links}: {dropped:.0f} packets dropped", file=sys.stderr)
        return found

    def unshaped_s(self) -> dict[float, float]:
        """Of a small gRPC call after a pause: seconds to its handler where the link takes none; the least of 50."""
        found = {}
        for pause_s in PAUSES_S:
            self.devices[0].tell("upload", [[Message("", pause_s, KB)] * 50], "grpc", 1, self.to["grpc"])
            found[pause_s] = float(min(self.devices[0].expect("took")[0][0][1:]))
        self.devices[0].tell("upload", [[Message("", 0.0, KB)]], "grpc", 10, self.to["grpc"])
        found[FIRST] = float(self.devices[0].expect("took")[0][0][0])
        return found


def started(stack: ExitStack, name: str, work: Callable[..., None], *arguments: Any) -> Child:
    """A process that ends with the stack."""
    child = Child(name, work, *arguments)
    stack.callback(child.close)
    return child
