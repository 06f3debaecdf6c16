"""How well `transport: tcp` foretells uploads over real TCP: raw, and in gRPC calls as devices make them.

Over the TUN network (splitexit.live.shaper): IP packets between network namespaces take the time that a link of the
given rate and delay would take for them; TCP is the kernel's (cubic). Every case is a connection that carries
messages of one size: on a fresh window, then on a warm one, after 0.3 s and after 1 s without traffic; and, as `mixed`,
small messages before a large one. Time counts from handing a message over to its last byte at the far side; of a gRPC
call, to the start of its handler, less what the same call of 1 KiB takes on an unshaped network. The least of some
rounds, because other work on the machine only ever adds.

Right means: within 5 % or 0.5 ms, whichever is more. Needs Linux, root, iproute2 and /dev/net/tun:

    sudo python benchmarks/upload.py
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from splitexit.links import Fifo
from splitexit.links.constant import Constant
from splitexit.live.address import Address
from splitexit.live.link import LinkProxy
from splitexit.live.netns import EDGE
from splitexit.live.processes import Child, Line, enter
from splitexit.live.shaper import Tun
from splitexit.live.tun import TunNetwork
from splitexit.live.tuning import CLIENT, SERVER, tune_process

KB = 1024
SIZES = (KB, 4 * KB, 16 * KB, 64 * KB, 256 * KB, 1024 * KB)
RATES_MBPS = (1.0, 5.0, 10.0, 50.0, 100.0)
DELAYS_MS = (0.0, 5.0, 20.0, 50.0)
QUICK = ((KB, 64 * KB, 256 * KB), (10.0, 100.0), (5.0, 20.0))

STATES = (("fresh", 0.0), ("warm", 0.0), ("idle 0.3 s", 0.3), ("idle 1 s", 1.0))
"""Before each message, and how long nothing was sent since the answer to the one before."""

SHARE, LEAST_S = 0.05, 0.0005
"""How much a foretold time may be off: the larger of that share and that time."""

TOGETHER_MBPS = 20.0
"""Slow links are measured several at a time, each with a device of its own, up to this rate together."""

LOOPBACK = Address("127.0.0.1", 0)
RAW_PORT, GRPC_PORT, CALL = 9000, 9001, "/upload/Take"
LARGEST_BYTES, LONGEST_S = 64 * KB * KB, 600.0

GAP_S = 0.1
"""Between calls that are timed on an unshaped network: none finds its process awake because of the one before."""

DATA_BYTES, FRAME_BYTES, PREFIX_BYTES = 16_384, 9, 5
"""HTTP/2 cuts a message into frames of at most so many bytes (RFC 9113, SETTINGS_MAX_FRAME_SIZE), each with a head;
gRPC puts five bytes before a message."""


@dataclass(frozen=True)
class Case:
    """One message: over what link, how, how large, in what state of the connection, and how long it takes."""

    mbps: float
    delay_ms: float
    way: str
    state: str
    size_bytes: int
    real_ms: float
    model_ms: float

    @property
    def error(self) -> float:
        """Relative."""
        return self.model_ms / self.real_ms - 1.0

    @property
    def right(self) -> bool:
        """Whether it is foretold well enough."""
        return abs(self.model_ms - self.real_ms) <= max(SHARE * self.real_ms, 1e3 * LEAST_S)


@dataclass(frozen=True)
class Message:
    """Of a connection's plan: what state it meets, seconds since the last answer, and bytes."""

    state: str
    gap_s: float
    size_bytes: int


Plan = list[Message]


def plans(sizes: Sequence[int]) -> list[Plan]:
    """One connection each."""
    same = [[Message(state, gap_s, size) for state, gap_s in STATES] for size in sizes]
    mixed = [Message("mixed", 0.0, size) for size in sizes if size <= 256 * KB for _ in (1, 2)]
    return [*same, mixed]


def modelled_s(mbps: float, delay_ms: float, plan: Plan, way: str, first_bytes: int, later_bytes: int) -> list[float]:
    """What the model says; `first_bytes` and `later_bytes` are the headers of a connection's calls."""
    fifo, now_s, found = Fifo(Constant(mbps=mbps, delay_ms=delay_ms, transport="tcp")), 0.0, []
    for number, message in enumerate(plan):
        now_s += message.gap_s
        size_bytes = message.size_bytes
        if way == "grpc":
            size_bytes += PREFIX_BYTES
            size_bytes += FRAME_BYTES * ceil(size_bytes / DATA_BYTES) + (later_bytes if number else first_bytes)
        arrive_s = fifo.send(now_s, size_bytes)[2]
        found.append(arrive_s - now_s)
        now_s = arrive_s + delay_ms / 1000.0
    return found


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

    handlers = {CALL.rpartition("/")[2]: grpc.unary_unary_rpc_method_handler(take)}
    limit = ("grpc.max_receive_message_length", LARGEST_BYTES)
    server = grpc.server(ThreadPoolExecutor(32), options=(*SERVER, limit))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(CALL.split("/")[1], handlers),))
    port = server.add_insecure_port(str(address))
    server.start()
    return server, port


def serve(line: Line, space: str) -> None:
    """At the edge: answers every message with the time of its last byte, over sockets and over gRPC."""
    tune_process()
    enter(space)
    server, _ = serve_grpc(Address(str(EDGE), GRPC_PORT))
    with socket.create_server((str(EDGE), RAW_PORT)) as listener:
        line.tell("listening", server is not None)
        while True:
            Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


def answer(connection: socket.socket) -> None:
    """One connection of the raw server."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        while header := read(connection, 8):
            read(connection, struct.unpack("!Q", header)[0] - 8)
            connection.sendall(struct.pack("!d", time.monotonic()))


def upload(plan: Plan, way: str) -> list[float]:
    """Seconds per message of one connection."""
    return list(upload_raw(plan) if way == "raw" else upload_by_grpc(plan))


def upload_raw(plan: Plan) -> Iterator[float]:
    """Over a socket."""
    with socket.create_connection((str(EDGE), RAW_PORT)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        time.sleep(0.3)
        for message in plan:
            time.sleep(message.gap_s)
            content = struct.pack("!Q", message.size_bytes) + bytes(message.size_bytes - 8)
            start_s = time.monotonic()
            connection.sendall(content)
            yield float(struct.unpack("!d", read(connection, 8))[0]) - start_s


def upload_by_grpc(plan: Plan) -> Iterator[float]:
    """As unary calls."""
    with connected(Address(str(EDGE), GRPC_PORT)) as call:
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


def send(line: Line, space: str) -> None:
    """A device: makes the uploads that it is told, in rounds; the least of each message's times."""
    tune_process()
    enter(space)
    line.tell("there")
    while True:
        _, what, way, rounds = line.next("upload")
        found = [[upload(plan, way) for plan in what] for _ in range(rounds)]
        line.tell("took", [[min(times) for times in zip(*of, strict=True)] for of in zip(*found, strict=True)])


def measure(sizes: Sequence[int], rates: Sequence[float], delays: Sequence[float], rounds: int) -> Iterator[Case]:
    """Every case, as soon as it is measured."""
    links = [(mbps, delay_ms, way) for mbps in rates for delay_ms in delays for way in ("raw", "grpc")]
    most = max(int(min(TOGETHER_MBPS / min(rates), 2 * len(delays))), 1)
    with ExitStack() as stack:
        network = Tun([str(number) for number in range(most)])
        stack.callback(network.close)
        children = [Child("edge", serve, network.spaces.edge)]
        children += [Child(f"device {n}", send, space) for n, space in enumerate(network.spaces.devices)]
        for child in children:
            stack.callback(child.close)
            child.expect("listening" if child is children[0] else "there")
        (first_bytes, later_bytes), grpc_s = header_bytes(), unshaped_s(network, children[1])
        print(f"gRPC: {1e3 * grpc_s:.2f} ms; headers {first_bytes}, then {later_bytes} bytes", file=sys.stderr)
        while links:
            count = max(1, min(most, int(TOGETHER_MBPS / links[0][0])))
            now = [link for link in links[:count] if link[0] == links[0][0]]
            links = links[len(now) :]
            what = plans(sizes)
            for link, found in zip(now, together(network, children[1:], now, what, rounds), strict=True):
                mbps, delay_ms, way = link
                for plan, times_s in zip(what, found, strict=True):
                    model = modelled_s(mbps, delay_ms, plan, way, first_bytes, later_bytes)
                    for message, real_s, model_s in zip(plan, times_s, model, strict=True):
                        net_s = real_s - (grpc_s if way == "grpc" else 0.0)
                        yield Case(*link, message.state, message.size_bytes, 1e3 * net_s, 1e3 * model_s)


def together(
    network: Tun, devices: Sequence[Child], links: Sequence[tuple[float, float, str]], what: list[Plan], rounds: int
) -> list[list[list[float]]]:
    """The times over some links at once, one device each."""
    ways = {str(n): (Fifo(Constant(mbps=1e5)), Fifo(Constant(mbps=1e5))) for n in range(len(devices))}
    for n, (mbps, delay_ms, _) in enumerate(links):
        ways[str(n)] = tuple(Fifo(Constant(mbps=mbps, delay_ms=delay_ms)) for _ in "ud")  # type: ignore[assignment]
    network.begin(ways, time.monotonic())
    for device, (_, _, way) in zip(devices, links, strict=False):
        device.tell("upload", what, way, rounds)
    found = [device.expect("took", LONGEST_S)[0] for device in devices[: len(links)]]
    dropped = sum(lane["dropped"] for both in network.end().values() for lane in both.values())
    if dropped:
        print(f"{links}: {dropped:.0f} packets dropped", file=sys.stderr)
    return found


def unshaped_s(network: Tun, device: Child) -> float:
    """Of a small gRPC call: seconds to its handler where the link takes none."""
    device.tell("upload", [[Message("", GAP_S, KB)] * 50], "grpc", 1)
    return float(min(device.expect("took")[0][0][1:]))


def show(case: Case) -> str:
    """A line of the table."""
    link = f"{case.mbps:7g} {case.delay_ms:4g} {case.way:5} {case.state:10} {case.size_bytes:8d}"
    return f"{link} {case.model_ms:9.2f} {case.real_ms:9.2f} {case.error:+7.1%} {'' if case.right else 'off'}"


def summary(cases: Sequence[Case]) -> dict[str, Any]:
    """How many are right, and how wrong they are."""
    errors = sorted(abs(case.error) for case in cases)
    return {
        "cases": len(cases),
        "right_percent": 100.0 * sum(case.right for case in cases) / len(cases),
        "median_error_percent": 100.0 * median(errors),
        "p90_error_percent": 100.0 * errors[len(errors) * 9 // 10],
        "worst_error_percent": 100.0 * errors[-1],
    }


def main() -> None:
    """Measures and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a few sizes, rates and delays")
    parser.add_argument("--json", action="store_true", help="one document instead of the table")
    options = parser.parse_args()
    TunNetwork.require()
    grid = QUICK if options.quick else (SIZES, RATES_MBPS, DELAYS_MS)
    cases = []
    if not options.json:
        print(
            f"{'Mbit/s':>7} {'ms':>4} {'way':5} {'state':10} {'bytes':>8} {'model ms':>9} {'real ms':>9} {'error':>7}"
        )
    for case in measure(*grid, options.rounds):
        cases.append(case)
        if not options.json:
            print(show(case), flush=True)
    if options.json:
        print(json.dumps({**summary(cases), "cases": [asdict(case) for case in cases]}))
        return
    print(", ".join(f"{key} {value:.3g}" for key, value in summary(cases).items()))
    for way in ("raw", "grpc"):
        wrong = sorted((c for c in cases if c.way == way), key=lambda c: -abs(c.error))[:8]
        print(f"worst, {way}:", *map(show, wrong), sep="\n")


if __name__ == "__main__":
    main()
