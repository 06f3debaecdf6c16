"""How well `transport: tcp` foretells this machine's real TCP, over an emulated link that shapes IP packets.

Two network namespaces are joined by two TUN devices and a process between them that sends every packet on when a link
of the given rate and delay would have (a virtual clock, a queue of 4 MB). A client uploads messages of the given sizes
over one connection after the given gaps; the time counts from the first byte handed to the socket to the last byte read
at the other end. The least of some rounds, because other work on the machine only ever adds.

Needs Linux, root, iproute2 and /dev/net/tun: sudo python benchmarks/tcp.py
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from splitexit.links import Fifo
from splitexit.links.constant import Constant

SPACES = ("splitexit-a", "splitexit-b")
ADDRESSES, PORT = ("10.232.9.1", "10.232.9.2"), 9000
QUEUE_BYTES = 4_000_000
CLONE_NEWNET, TUNSETIFF, TUN_WITHOUT_HEADER, TCP_INFO_BYTES = 0x40000000, 0x400454CA, 0x1001, 104

Plan = list[tuple[float, int]]
"""Seconds since the last answer, and bytes."""

KB64 = 65_536
PLANS: list[Plan] = [
    [(0.0, 8_192), (0.0, 8_192), (0.0, KB64)],
    [(0.0, 14_480)],
    [(0.0, 14_490)],
    [(0.0, KB64), (0.0, KB64), (0.0, KB64), (1.0, KB64), (3.0, KB64)],
    [(0.0, 262_144), (0.0, 262_144), (0.6, 262_144), (3.0, 262_144)],
]
LINKS = [(10.0, 5.0), (10.0, 20.0), (10.0, 50.0), (100.0, 5.0), (100.0, 20.0), (100.0, 50.0)]
"""Mbit/s, and ms each way."""


def modelled_s(mbps: float, delay_ms: float, plan: Plan) -> list[float]:
    """What the model says."""
    fifo, now_s, found = Fifo(Constant(mbps=mbps, delay_ms=delay_ms, transport="tcp")), 0.0, []
    for gap_s, size_bytes in plan:
        now_s += gap_s
        arrive_s = fifo.send(now_s, size_bytes)[2]
        found.append(arrive_s - now_s)
        now_s = arrive_s + delay_ms / 1000.0
    return found


def open_tun(number: int) -> int:
    """One end of the link, in its namespace."""
    space = os.open(f"/var/run/netns/{SPACES[number]}", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(space, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    tun, name = os.open("/dev/net/tun", os.O_RDWR), f"tun{number}"
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH14s", name.encode(), TUN_WITHOUT_HEADER, b""))
    here, there = ADDRESSES[number], ADDRESSES[1 - number]
    for command in (f"addr add {here} peer {there} dev {name}", f"link set {name} mtu 1500 up"):
        subprocess.check_call(["ip", *command.split()])
    return tun


class Direction:
    """Packets from one TUN device to the other."""

    def __init__(self, source: int, to: int, mbps: float, delay_s: float) -> None:
        self._source, self._to, self._delay_s = source, to, delay_s
        self._fifo = Fifo(Constant(mbps=mbps))
        self._packets: deque[tuple[float, bytes]] = deque()
        self._held_bytes, self._changed = 0, threading.Condition()
        for target in (self._take, self._hand_on):
            threading.Thread(target=target, daemon=True).start()

    def _take(self) -> None:
        while True:
            packet = os.read(self._source, 2048)
            sent_s = self._fifo.send(time.perf_counter(), len(packet))[1]
            with self._changed:
                if self._held_bytes + len(packet) <= QUEUE_BYTES:
                    self._held_bytes += len(packet)
                    self._packets.append((sent_s + self._delay_s, packet))
                    self._changed.notify()

    def _hand_on(self) -> None:
        while True:
            with self._changed:
                while not self._packets:
                    self._changed.wait()
                due_s, packet = self._packets.popleft()
            while (left_s := due_s - time.perf_counter()) > 0:
                if left_s > 0.0004:
                    time.sleep(left_s - 0.0003)
            os.write(self._to, packet)
            with self._changed:
                self._held_bytes -= len(packet)


def link(mbps: float, delay_ms: float) -> None:
    """The process between the namespaces; it ends when its input does."""
    ends = [open_tun(number) for number in (0, 1)]
    for source, to in (ends, ends[::-1]):
        Direction(source, to, mbps, delay_ms / 1000.0)
    print("up", flush=True)
    sys.stdin.read()


def read(connection: socket.socket, size_bytes: int) -> bytes:
    """That many bytes, or none at the end of the connection."""
    content = b""
    while len(content) < size_bytes:
        if not (part := connection.recv(min(size_bytes - len(content), 1 << 18))):
            return b""
        content += part
    return content


def serve() -> None:
    """Answers every message with the time of its last byte."""
    with socket.create_server((ADDRESSES[1], PORT)) as listener:
        print("up", flush=True)
        while True:
            connection = listener.accept()[0]
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while header := read(connection, 8):
                read(connection, struct.unpack("!Q", header)[0] - 8)
                connection.sendall(struct.pack("!d", time.monotonic()))


def upload(plan: Plan, control: str) -> list[float]:
    """Seconds per message of one connection."""
    with socket.socket() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, control.encode())
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.connect((ADDRESSES[1], PORT))
        time.sleep(0.3)
        found = []
        for gap_s, size_bytes in plan:
            time.sleep(gap_s)
            start_s = time.monotonic()
            connection.sendall(struct.pack("!Q", size_bytes) + bytes(size_bytes - 8))
            found.append(struct.unpack("!d", read(connection, 8))[0] - start_s)
        return found


def client(rounds: int, control: str) -> None:
    """Prints the least of every message's times."""
    print(json.dumps([[min(t) for t in zip(*(upload(p, control) for _ in range(rounds)), strict=True)] for p in PLANS]))


@contextmanager
def started(*command: str) -> Iterator[None]:
    """A process of this file's, from when it is up."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measured_s(mbps: float, delay_ms: float, rounds: int, control: str) -> list[list[float]]:
    """What real TCP does."""
    own = (sys.executable, __file__)
    for space in SPACES:
        subprocess.check_call(["ip", "netns", "add", space])
    try:
        inside = [("ip", "netns", "exec", space, *own) for space in SPACES]
        with started(*own, "--link", str(mbps), str(delay_ms)), started(*inside[1], "--serve"):
            command = [*inside[0], "--client", "--rounds", str(rounds), "--control", control]
            found: list[list[float]] = json.loads(subprocess.check_output(command, text=True))
            return found
    finally:
        for space in SPACES:
            subprocess.check_call(["ip", "netns", "delete", space])


def compare(rounds: int, control: str) -> None:
    """Every link and plan, as a table."""
    print(f"{'Mbit/s':>7} {'ms':>4} {'gap s':>6} {'bytes':>8} {'model ms':>9} {'real ms':>9} {'error':>7}")
    errors = []
    for mbps, delay_ms in LINKS:
        for plan, real in zip(PLANS, measured_s(mbps, delay_ms, rounds, control), strict=True):
            for (gap_s, size), model_s, real_s in zip(plan, modelled_s(mbps, delay_ms, plan), real, strict=True):
                errors.append(model_s / real_s - 1.0)
                row = f"{mbps:7g} {delay_ms:4g} {gap_s:6g} {size:8d} {1e3 * model_s:9.2f} {1e3 * real_s:9.2f}"
                print(f"{row} {errors[-1]:+7.1%}", flush=True)
    errors.sort(key=abs)
    print(f"errors: median {abs(errors[len(errors) // 2]):.1%}, p90 {abs(errors[len(errors) * 9 // 10]):.1%}")


def main() -> None:
    """Compares, or is one of the processes that are needed for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--control", default="cubic", help="a congestion control of this kernel")
    parser.add_argument("--link", nargs=2, type=float, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--client", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.link:
        link(*options.link)
    elif options.serve:
        serve()
    elif options.client:
        client(options.rounds, options.control)
    else:
        compare(options.rounds, options.control)


if __name__ == "__main__":
    main()
