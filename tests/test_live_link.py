"""The link proxy: bytes come through unchanged, when the link says, and connections end as they should."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import pytest

from splitexit.links import PACKET_BYTES, Fifo, Link
from splitexit.links.constant import Constant
from splitexit.links.modulated import Modulated
from splitexit.live.address import Address
from splitexit.live.link import FULL_BYTES, Direction, LinkProxy
from tests.live_process import here, started, wait_for

pytestmark = pytest.mark.serial

LOOPBACK = Address("127.0.0.1", 0)
Serve = Callable[[socket.socket], None]


def echo(connection: socket.socket) -> None:
    """Sends back what comes, then ends."""
    while content := connection.recv(65536):
        connection.sendall(content)


@contextmanager
def server(serve: Serve = echo) -> Iterator[Address]:
    """Serves every connection in a thread."""
    listener = LOOPBACK.listener("--listen")

    def handle(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            serve(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=handle, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield Address(LOOPBACK.host, listener.getsockname()[1])
    with suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@contextmanager
def link(up: Link, down: Link, serve: Serve = echo) -> Iterator[LinkProxy]:
    """A proxy in front of a server."""
    with server(serve) as target, LinkProxy(LOOPBACK, target, Fifo(up), Fifo(down)) as proxy:
        yield proxy


def connect(proxy: LinkProxy) -> socket.socket:
    """A connection through the proxy."""
    opened = socket.create_connection((proxy.address.host, proxy.address.port), timeout=20)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened


def receive(connection: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer if the connection ends."""
    content = b""
    while len(content) < size and (more := connection.recv(size - len(content))):
        content += more
    return content


def test_bytes_come_through_unchanged() -> None:
    content = np.random.default_rng(0).bytes(2_000_000)
    with link(Constant(mbps=1e4), Constant(mbps=1e4)) as proxy, connect(proxy) as connection:
        threading.Thread(target=connection.sendall, args=(content,)).start()
        assert receive(connection, len(content)) == content
    assert proxy.up.fidelity.size_bytes == proxy.down.fidelity.size_bytes == len(content)


def test_a_message_takes_delay_and_serialisation() -> None:
    """1500 bytes at 1 Mbit/s and 20 ms, back at 10 Mbit/s and 5 ms: 12 + 20 + 1.2 + 5 ms."""
    with link(Constant(mbps=1, delay_ms=20), Constant(mbps=10, delay_ms=5)) as proxy, connect(proxy) as connection:
        took_s = []
        for _ in range(15):
            start_s = time.perf_counter()
            connection.sendall(bytes(1500))
            assert len(receive(connection, 1500)) == 1500
            took_s.append(time.perf_counter() - start_s)
    assert min(took_s) >= 0.0382 - 1e-4
    assert np.median(took_s) < 0.0382 + 0.002


def test_the_rate_does_not_drift() -> None:
    """A second of traffic at 8 Mbit/s: the clock is virtual, so pieces are no later at the end than at the start."""

    def sink(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    size = 1_000_000
    with link(Constant(mbps=8), Constant(mbps=8), sink) as proxy, connect(proxy) as connection:
        start_s = time.perf_counter()
        connection.sendall(bytes(size))
        connection.shutdown(socket.SHUT_WR)
        receive(connection, 1)
        took_s = time.perf_counter() - start_s
    late_s = np.array(proxy.up.fidelity.late_s)
    assert took_s == pytest.approx(8 * size / 8e6, rel=0.05)  # a busy machine is late with the last piece
    half = len(late_s) // 2
    assert abs(np.median(late_s[half:]) - np.median(late_s[:half])) < 0.001


def test_connections_share_the_link() -> None:
    """Two uploads of 250 kB at once over 8 Mbit/s end after half a second together, not after a quarter."""
    done_s: list[float] = []

    def upload(proxy: LinkProxy) -> None:
        with connect(proxy) as connection:
            connection.sendall(bytes(250_000))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
            done_s.append(time.perf_counter() - start_s)

    def sink(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    with link(Constant(mbps=8), Constant(mbps=1e4), sink) as proxy:
        start_s = time.perf_counter()
        threads = [threading.Thread(target=upload, args=(proxy,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert max(done_s) == pytest.approx(0.5, abs=0.05)


def test_the_end_comes_after_the_last_byte() -> None:
    """A server that answers and closes at once: the whole answer arrives first, over a slow link."""

    def answer(connection: socket.socket) -> None:
        connection.recv(10)
        connection.sendall(bytes(50_000))

    with link(Constant(mbps=100), Constant(mbps=4, delay_ms=10), answer) as proxy, connect(proxy) as connection:
        connection.sendall(b"please")
        connection.shutdown(socket.SHUT_WR)
        assert len(receive(connection, 60_000)) == 50_000


def test_nobody_behind_the_link() -> None:
    """The connection ends; the proxy lives on."""
    with LOOPBACK.listener("--listen") as bound:
        nobody = Address("127.0.0.1", bound.getsockname()[1])
    with LinkProxy(LOOPBACK, nobody, Fifo(Constant(mbps=8)), Fifo(Constant(mbps=8))) as proxy:
        for _ in range(3):
            with connect(proxy) as connection:
                assert receive(connection, 1) == b""


def test_a_server_that_dies_ends_the_connection() -> None:
    closing = link(Constant(mbps=8), Constant(mbps=8), lambda connection: connection.close())
    with closing as proxy, connect(proxy) as connection:
        assert receive(connection, 1) == b""


def test_a_full_link_holds_its_sender_back() -> None:
    """What a slow link has taken in is bounded."""
    with link(Constant(mbps=1), Constant(mbps=1)) as proxy, connect(proxy) as connection:
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.sendall(bytes(8 * FULL_BYTES))
        held = proxy.up._held_bytes
    assert FULL_BYTES <= held <= FULL_BYTES + 65536


def test_pieces_are_packets() -> None:
    """A link that counts packets sees at most 1500 bytes at a time, and an empty piece for the end."""
    seen: list[int] = []

    class Noting(Constant):
        def finish_s(self, start_s: float, size_bytes: int) -> float:
            seen.append(size_bytes)
            return super().finish_s(start_s, size_bytes)

    with link(Noting(mbps=1e4), Constant(mbps=1e4)) as proxy, connect(proxy) as connection:
        connection.sendall(bytes(10_000))
        connection.shutdown(socket.SHUT_WR)
        assert len(receive(connection, 20_000)) == 10_000
    assert max(seen) <= PACKET_BYTES
    assert sum(seen) == 10_000
    assert seen[-1] == 0


def test_many_connections_come_and_go() -> None:
    """No thread stays behind."""
    with link(Constant(mbps=1e4), Constant(mbps=1e4)) as proxy:
        before = threading.active_count()
        for _ in range(30):
            with ExitStack() as stack:
                connections = [stack.enter_context(connect(proxy)) for _ in range(3)]
                for connection in connections:
                    connection.sendall(b"hello")
                    assert receive(connection, 5) == b"hello"
        deadline_s = time.monotonic() + 10
        while threading.active_count() > before and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert threading.active_count() <= before
        assert not proxy._open


def test_closing_ends_everything_at_once() -> None:
    """Even with bytes under way for another minute."""
    proxy_cm = link(Constant(mbps=0.01), Constant(mbps=0.01))
    proxy = proxy_cm.__enter__()
    with connect(proxy) as connection:
        connection.sendall(bytes(100_000))
        time.sleep(0.1)
        start_s = time.monotonic()
        proxy_cm.__exit__(None, None, None)
        assert time.monotonic() - start_s < 0.5


def test_offering_to_a_closed_direction_loses_the_bytes() -> None:
    direction = Direction()
    direction.close()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert direction.offer(b"late", ours).is_set()


def test_the_command() -> None:
    """Says where it listens, and at the end how exact it was."""
    with server() as target:
        arguments = ("link", "--to", str(target), "--up", "{name: constant, mbps: 8, delay_ms: 10}")
        with started(*arguments, "--down", "{name: constant, mbps: 8}", "--listen", "127.0.0.1:0") as process:
            host, _, port = process.address.rpartition(":")
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                start_s = time.monotonic()
                connection.sendall(b"hello")
                assert receive(connection, 5) == b"hello"
                assert 0.01 <= time.monotonic() - start_s < 0.1
            code, out, err = process.end(signal.SIGINT)
    assert (code, err) == (0, "")
    assert json.loads(out)["up"]["bytes"] == 5


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((), "--to"),
        (("--to", "nowhere"), "--to 'nowhere': expected HOST:PORT"),
        (("--to", "127.0.0.1:9", "--up", "{name: constnt, mbps: 5}"), "did you mean 'constant'"),
        (("--to", "127.0.0.1:9", "--up", "{name: constant, mbps: -5}"), "greater than 0"),
        (("--to", "127.0.0.1:9", "--up", "{name: constant"), "--up"),
        (("--to", "127.0.0.1:9", "--listen", "0.0.0.0:0"), "--insecure"),
        (("--to", "127.0.0.1:9", "--scenario", "none.yaml"), "none.yaml"),
    ],
)
def test_wrong_arguments_end_in_one_line(arguments: tuple[str, ...], what: str) -> None:
    done = here("link", *arguments)
    assert done.returncode == 2
    assert what in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def round_trip_s(connection: socket.socket, size: int = 1000) -> float:
    """Seconds until so many bytes are back."""
    start_s = time.perf_counter()
    connection.sendall(bytes(size))
    assert len(receive(connection, size)) == size
    return time.perf_counter() - start_s


def slow(delay_ms: float) -> Fifo:
    """A link that takes that long for anything."""
    return Fifo(Constant(mbps=1e4, delay_ms=delay_ms))


def test_links_begin_and_end_at_their_times() -> None:
    """At once before time zero and after the end; between them, as each run's links say."""
    with server() as target, LinkProxy(LOOPBACK, target) as proxy, connect(proxy) as connection:
        assert min(round_trip_s(connection) for _ in range(5)) < 0.05
        for delay_ms in (60.0, 100.0):
            proxy.begin(slow(delay_ms), slow(10), time.monotonic() + 0.2)
            assert min(round_trip_s(connection) for _ in range(3)) < 0.05  # not yet
            time.sleep(0.25)
            assert 1e-3 * (delay_ms + 10) <= round_trip_s(connection) < 1e-3 * (delay_ms + 10) + 0.2
            wait_for(lambda: proxy.down.fidelity.size_bytes)  # counted once it has been handed on
            found = proxy.end()
            assert (found["up"]["bytes"], found["down"]["bytes"]) == (1000, 1000)
            assert min(round_trip_s(connection) for _ in range(5)) < 0.05
        assert proxy.end()["up"]["bytes"] == 0


def test_links_know_the_time_since_zero() -> None:
    """An outage that ends 0.4 s after time zero: what is sent before then leaves then."""
    outage = Modulated(Constant(mbps=1e4), [(0.1, 0.4, 0.0)])
    with server() as target, LinkProxy(LOOPBACK, target) as proxy, connect(proxy) as connection:
        origin_s = time.monotonic() + 0.05
        proxy.begin(Fifo(outage), slow(0), origin_s)
        time.sleep(0.2)
        round_trip_s(connection)
        assert 0.4 <= time.monotonic() - origin_s < 0.6


def test_the_end_lets_through_what_would_never_arrive() -> None:
    """An outage for good: nothing moves until the run is over."""
    never = Modulated(Constant(mbps=1e4), [(0.0, float("inf"), 0.0)])
    with server() as target, LinkProxy(LOOPBACK, target) as proxy, connect(proxy) as connection:
        proxy.begin(Fifo(never), slow(0), time.monotonic())
        connection.settimeout(0.2)
        connection.sendall(b"hello")
        with pytest.raises(TimeoutError):
            connection.recv(5)
        proxy.end()
        connection.settimeout(10)
        assert receive(connection, 5) == b"hello"


def test_a_shared_link_under_tcp_waits_for_no_window_but_ones_own() -> None:
    """One connection fills its first window and waits a round trip; a second one on the link passes it by."""
    link = Constant(mbps=1e4, delay_ms=1, transport="tcp", rtt_ms=400)
    done_s: dict[str, float] = {}

    def send(proxy: LinkProxy, name: str, size: int) -> None:
        with connect(proxy) as connection:
            start_s = time.perf_counter()
            connection.sendall(bytes(size))
            receive(connection, size)
            done_s[name] = time.perf_counter() - start_s

    with server() as target, LinkProxy(LOOPBACK, target, shared=True) as proxy:
        proxy.begin(Fifo(link), slow(0), time.monotonic())
        first = threading.Thread(target=send, args=(proxy, "large", 60_000))
        first.start()
        time.sleep(0.1)
        send(proxy, "small", 1000)
        first.join()
    assert done_s["large"] >= 0.4
    assert done_s["small"] < 0.3
