"""A TCP proxy that emulates a link between two real processes.

The same Link objects as in the simulator say when each piece of at most 1500 bytes has gone through; the
proxy hands it on then. Each direction is one link that all connections share, first come first served. The
clock is virtual, so that rates do not drift: a piece handed on late delays no other.

What it is not: it shapes the bytes that TCP carries, so its rate counts TCP payload, without the headers of
IP and TCP; connections open at once; and both ends see a loopback TCP, without loss or slow start. A link
with `transport: tcp` adds headers and slow start, as the simulator does, for one connection that all share.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from splitexit.links import Fifo
from splitexit.live.address import Address
from splitexit.live.clock import sleep_until

READ_BYTES = 65536
FULL_BYTES = 4 * 2**20
"""A direction that holds so much reads no more until some of it has left."""

NEAR_S = 0.02
"""Up to here a wait ends when the proxy is closed; the rest is waited for with precision."""


@dataclass(slots=True)
class Piece:
    """Bytes on their way (none: the end of a connection), where they go, and when, by the virtual clock."""

    content: bytes
    to: socket.socket
    gone: threading.Event
    start_s: float
    sent_s: float
    arrive_s: float


def _together(one: Piece, other: Piece) -> bool:
    return bool(one.content and other.content) and one.to is other.to


def _deliver(pieces: list[Piece]) -> None:
    """Hands pieces on; a connection that is gone swallows them."""
    to, content = pieces[0].to, b"".join(piece.content for piece in pieces)
    with suppress(OSError):
        if content:
            to.sendall(content)
        else:
            to.shutdown(socket.SHUT_WR)


@dataclass
class Fidelity:
    """How well one direction kept to its virtual clock.

    late_s   seconds by which pieces were handed on too late (the latest ones)
    ideal_s  seconds that the link was busy without a gap, by the virtual clock, in stretches of BUSY_S or more
    real_s   the same as it really was
    """

    BUSY_S = 0.05

    late_s: deque[float] = field(default_factory=lambda: deque(maxlen=100_000))
    size_bytes: int = 0
    ideal_s: float = 0.0
    real_s: float = 0.0
    _first: tuple[Piece, float] | None = None
    _last: tuple[Piece, float] | None = None

    def note(self, piece: Piece, late_s: float) -> None:
        """A piece was handed on."""
        self.late_s.append(late_s)
        self.size_bytes += len(piece.content)
        if self._last is None or piece.start_s > self._last[0].sent_s:
            self._end_stretch()
            self._first = (piece, late_s)
        self._last = (piece, late_s)

    def _end_stretch(self) -> None:
        if self._first is None or self._last is None:
            return
        (first, first_late_s), (last, last_late_s) = self._first, self._last
        busy_s = last.arrive_s - first.arrive_s
        if busy_s >= self.BUSY_S:
            self.ideal_s += busy_s
            self.real_s += busy_s + last_late_s - first_late_s
        self._first = None

    def summary(self) -> dict[str, float]:
        """Bytes, added delay in ms, and the error of the rate while the link was busy (NaN where it never was)."""
        self._end_stretch()
        late_ms = 1e3 * np.array(self.late_s or [0.0])
        p50, p99 = np.percentile(late_ms, (50, 99))
        rate_error = self.ideal_s / self.real_s - 1.0 if self.real_s else float("nan")
        return {
            "bytes": self.size_bytes,
            "added_delay_ms_p50": float(p50),
            "added_delay_ms_p99": float(p99),
            "added_delay_ms_max": float(late_ms.max()),
            "rate_error_percent": 100.0 * rate_error,
        }


class Direction:
    """One direction of the emulated link, with a thread that hands pieces on when they are due.

    Args:
        fifo: the link.
        origin: returns time.monotonic() at the link's time zero.
    """

    def __init__(self, fifo: Fifo, origin: Callable[[], float]) -> None:
        self._fifo, self._origin = fifo, origin
        self._changed = threading.Condition()
        self._pieces: deque[Piece] = deque()
        self._held_bytes, self._ended = 0, threading.Event()
        self.fidelity = Fidelity()
        self._thread = threading.Thread(target=self._hand_on, daemon=True)
        self._thread.start()

    def offer(self, content: bytes, to: socket.socket) -> threading.Event:
        """Bytes for the other side (none: the connection ends there), offered to the link now.

        The event is set when they have been handed on, or are lost because the link was closed.
        """
        gone = threading.Event()
        with self._changed:
            while self._held_bytes > FULL_BYTES and not self._ended.is_set():
                self._changed.wait()
            if self._ended.is_set():
                gone.set()
                return gone
            now_s, step = self._now(), self._fifo.piece_bytes
            for start in range(0, max(1, len(content)), step):
                part = content[start : start + step]
                self._pieces.append(Piece(part, to, gone, *self._fifo.send(now_s, len(part))))
            self._held_bytes += len(content)
            self._changed.notify_all()
        return gone

    def _hand_on(self) -> None:
        while (piece := self._take()) is not None:
            due_s = self._origin() + piece.arrive_s
            if self._ended.wait(max(0.0, due_s - time.monotonic() - NEAR_S)):
                piece.gone.set()
                return
            sleep_until(due_s)
            pieces = self._with_others(piece)
            _deliver(pieces)
            now_s = self._now()
            for one in pieces:
                self.fidelity.note(one, now_s - one.arrive_s)
                one.gone.set()

    def _take(self) -> Piece | None:
        with self._changed:
            while not self._pieces:
                if self._ended.is_set():
                    return None
                self._changed.wait()
            return self._pop()

    def _with_others(self, piece: Piece) -> list[Piece]:
        """The piece, and those that are due by now too and go the same way: one system call instead of many."""
        pieces, now_s = [piece], self._now()
        with self._changed:
            while self._pieces and _together(piece, self._pieces[0]) and self._pieces[0].arrive_s <= now_s:
                pieces.append(self._pop())
        return pieces

    def _now(self) -> float:
        return time.monotonic() - self._origin()

    def _pop(self) -> Piece:
        piece = self._pieces.popleft()
        was_full = self._held_bytes > FULL_BYTES
        self._held_bytes -= len(piece.content)
        if was_full:
            self._changed.notify_all()
        return piece

    def close(self) -> None:
        """Hands on nothing more; what is under way is lost."""
        with self._changed:
            self._ended.set()
            for piece in self._pieces:
                piece.gone.set()
            self._pieces.clear()
            self._changed.notify_all()
        self._thread.join()


class LinkProxy:
    """Relays every connection to `listen` on to `to`.

    Args:
        up: the link from the listening side to `to`; down: the way back.
        listen: where; port 0 takes a free one (`address` says which).

    The links' time zero is the first byte that comes in. Raises UsageError where it cannot listen.
    """

    def __init__(self, listen: Address, to: Address, up: Fifo, down: Fifo) -> None:
        self._to, self._origin_s = to, 0.0
        self._lock, self._open = threading.Lock(), set[socket.socket]()
        self._listener = listen.listener("--listen")
        self.address = Address(listen.host, self._listener.getsockname()[1])
        self.up, self.down = Direction(up, self._origin), Direction(down, self._origin)
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _origin(self) -> float:
        with self._lock:
            if not self._origin_s:
                self._origin_s = time.monotonic()
            return self._origin_s

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(near,), daemon=True).start()

    def _relay(self, near: socket.socket) -> None:
        """One connection, until both sides have ended."""
        with near:
            try:
                far = socket.create_connection((self._to.host, self._to.port), timeout=5.0)
            except OSError:
                return  # closing is all that a link can say of a host that is not there
            with far:
                far.settimeout(None)
                self._pump_both(near, far)

    def _pump_both(self, near: socket.socket, far: socket.socket) -> None:
        both = {near, far}
        for one in both:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open |= both
        back = threading.Thread(target=_pump, args=(far, near, self.down), daemon=True)
        back.start()
        _pump(near, far, self.up)
        back.join()
        with self._lock:
            self._open -= both

    def summary(self) -> dict[str, dict[str, float]]:
        """How well both directions kept to their clocks."""
        return {"up": self.up.fidelity.summary(), "down": self.down.fidelity.summary()}

    def close(self) -> None:
        """Ends every connection."""
        self._closed = True
        _shut(self._listener)
        self._listener.close()
        with self._lock:
            for one in self._open:
                _shut(one)
        self.up.close()
        self.down.close()

    def __enter__(self) -> LinkProxy:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _pump(source: socket.socket, to: socket.socket, direction: Direction) -> None:
    with suppress(OSError):
        while content := source.recv(READ_BYTES):
            direction.offer(content, to)
    direction.offer(b"", to).wait()


def _shut(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
