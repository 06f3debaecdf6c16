"""How exact the link proxy is on this machine: rate and delay, measured over loopback."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np

from splitexit.links import Fifo
from splitexit.live.address import Address
from splitexit.live.link import LinkProxy

SMALL_BYTES = 200
LOOPBACK = Address("127.0.0.1", 0)


def measure(up: Fifo, down: Fifo, pings: int = 50, bulk_s: float = 2.0) -> dict[str, dict[str, float]]:
    """Sends through a proxy with these links, on loopback.

    `round_trip`: small messages to and fro, one at a time, against what the links themselves say.
    `up`, `down`: what the proxy says of itself, over these and a transfer of about `bulk_s` seconds.
    """
    ideal = _ideal_round_trip(up.fork(), down.fork())
    with _echo() as target, LinkProxy(LOOPBACK, target, up, down) as proxy:
        with socket.create_connection((proxy.address.host, proxy.address.port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            times_s = [_ping(connection) for _ in range(pings)]
            slower_bps = min(up.link.mean_bps, down.link.mean_bps)
            _bulk(connection, int(slower_bps * bulk_s / 8))
        p50, p95 = 1e3 * np.percentile(times_s, (50, 95))
        round_trip = {"ideal_ms": 1e3 * ideal, "measured_ms_p50": float(p50), "measured_ms_p95": float(p95)}
        return {"round_trip": round_trip, **proxy.summary()}


def _ideal_round_trip(up: Fifo, down: Fifo) -> float:
    there_s = up.send(0.0, SMALL_BYTES)[2]
    return down.send(there_s, SMALL_BYTES)[2]


def _ping(connection: socket.socket) -> float:
    start_s = time.perf_counter()
    connection.sendall(bytes(SMALL_BYTES))
    _receive(connection, SMALL_BYTES)
    return time.perf_counter() - start_s


def _bulk(connection: socket.socket, size_bytes: int) -> None:
    """There and back again, read while it is written."""
    sender = threading.Thread(target=connection.sendall, args=(bytes(size_bytes),))
    sender.start()
    _receive(connection, size_bytes)
    sender.join()


def _receive(connection: socket.socket, size_bytes: int) -> None:
    while size_bytes > 0 and (content := connection.recv(min(size_bytes, 65536))):
        size_bytes -= len(content)


@contextmanager
def _echo() -> Iterator[Address]:
    """A server for one connection that sends back what it gets."""
    listener = LOOPBACK.listener("--listen")

    def serve() -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection:
                while content := connection.recv(65536):
                    connection.sendall(content)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield Address(LOOPBACK.host, listener.getsockname()[1])
    finally:
        listener.close()
        thread.join(timeout=5.0)
