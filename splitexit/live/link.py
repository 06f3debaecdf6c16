"""A TCP proxy that emulates a link between two real processes.

The same Link objects as in the simulator say when each piece of at most 1500 bytes has gone through; the
proxy hands it on then. Each direction is one link that all connections share, first come first served. The
clock is virtual, so that rates do not drift: a piece handed on late delays no other.

What it is not: it shapes the bytes that TCP carries, so its rate counts TCP payload, without the headers of
IP and TCP; connections open at once; and both ends see a loopback TCP, without loss or slow start. A link
with `transport: tcp` adds headers and slow start, as the simulator does; where devices share it, for each connection.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Any

from splitexit.links import Fifo
from splitexit.live.address import Address
from splitexit.live.clock import SPIN_S, be_punctual, sleep_until
from splitexit.live.fidelity import Fidelity

READ_BYTES = 65536
FULL_BYTES = 4 * 2**20
"""A direction that holds so much reads no more until some of it has left."""

LONGEST_S = 60.0
"""The clock of a lock takes no infinite times: who waits for longer looks again."""


@dataclass(slots=True)
class Piece:
    """Bytes on their way (none: the end of a connection), where they go, and when, on time.monotonic().

    `fidelity` is told when they have been handed on; None for what was not shaped.
    """

    content: bytes
    to: socket.socket
    gone: threading.Event
    start_s: float
    sent_s: float
    arrive_s: float
    fidelity: Fidelity | None


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


class Direction:
    """One direction of the emulated link, with a thread that hands pieces on when they are due.

    Everything goes through at once, but between `begin` and `end`.
    """

    def __init__(self) -> None:
        self._fifo: Fifo | None = None
        self._origin_s = 0.0
        self._changed = threading.Condition()
        self._pieces: list[tuple[float, int, Piece]] = []  # a heap by arrival; equal ones in the order they came
        self._number = count()
        self._held_bytes, self._ended = 0, False
        self.fidelity = Fidelity()
        self._thread = threading.Thread(target=self._hand_on, daemon=True)
        self._thread.start()

    def begin(self, fifo: Fifo, origin_s: float) -> None:
        """From `origin_s` on, the link's time zero, what is offered takes its time."""
        with self._changed:
            self._fifo, self._origin_s, self.fidelity = fifo, origin_s, Fidelity()

    def end(self) -> dict[str, float]:
        """How exact it was; what is under way goes through at once, as will what comes."""
        with self._changed:
            found, self._fifo, self.fidelity = self.fidelity.summary(), None, Fidelity()
            self._changed.notify_all()
            return found

    def offer(self, content: bytes, to: socket.socket, sender: Hashable = None) -> threading.Event:
        """Bytes for the other side (none: the connection ends there), offered to the link now.

        The event is set when they have been handed on, or are lost because the link was closed.
        """
        gone = threading.Event()
        with self._changed:
            while self._held_bytes > FULL_BYTES and not self._ended:
                self._changed.wait()
            if self._ended:
                gone.set()
                return gone
            due_s = self._pieces[0][0] if self._pieces else float("inf")
            for piece in self._cut(content, to, gone, sender):
                heappush(self._pieces, (piece.arrive_s, next(self._number), piece))
            self._held_bytes += len(content)
            if self._pieces[0][0] < due_s or due_s == float("inf"):
                self._changed.notify_all()
        return gone

    def _cut(self, content: bytes, to: socket.socket, gone: threading.Event, sender: Hashable) -> list[Piece]:
        now_s, fifo, zero_s = time.monotonic(), self._fifo, self._origin_s
        if fifo is None or now_s < zero_s:
            return [Piece(content, to, gone, now_s, now_s, now_s, None)]
        pieces, step = list[Piece](), fifo.piece_bytes
        for first in range(0, max(1, len(content)), step):
            part = content[first : first + step]
            start_s, sent_s, arrive_s = fifo.send(now_s - zero_s, len(part), sender)
            at_s = zero_s + start_s, zero_s + sent_s, zero_s + arrive_s
            pieces.append(Piece(part, to, gone, *at_s, self.fidelity))
        return pieces

    def _hand_on(self) -> None:
        be_punctual()
        while (piece := self._take()) is not None:
            sleep_until(min(piece.arrive_s, time.monotonic() + SPIN_S))  # what `end` lets through does not wait
            pieces = self._with_others(piece)
            _deliver(pieces)
            self._note(pieces)

    def _take(self) -> Piece | None:
        """The next piece, shortly before its time; None at the end."""
        with self._changed:
            while not self._ended:
                left_s = self._left_s()
                if left_s <= 0.0:
                    return self._pop()
                self._changed.wait(min(left_s, LONGEST_S))
            return None

    def _left_s(self) -> float:
        """Until shortly before the next piece is due."""
        if not self._pieces:
            return float("inf")
        return 0.0 if self._fifo is None else self._pieces[0][0] - time.monotonic() - SPIN_S

    def _with_others(self, piece: Piece) -> list[Piece]:
        """The piece, and those that are due by now too and go the same way: one system call instead of many."""
        pieces, now_s = [piece], time.monotonic()
        with self._changed:
            while self._pieces and _together(piece, self._pieces[0][2]) and self._pieces[0][0] <= now_s:
                pieces.append(self._pop())
        return pieces

    def _note(self, pieces: list[Piece]) -> None:
        now_s = time.monotonic()
        with self._changed:
            for piece in pieces:
                if piece.fidelity is self.fidelity:
                    size_bytes, late_s = len(piece.content), now_s - piece.arrive_s
                    self.fidelity.note(piece.start_s, piece.sent_s, piece.arrive_s, size_bytes, late_s)
        for piece in pieces:
            piece.gone.set()

    def _pop(self) -> Piece:
        piece = heappop(self._pieces)[2]
        was_full = self._held_bytes > FULL_BYTES
        self._held_bytes -= len(piece.content)
        if was_full:
            self._changed.notify_all()
        return piece

    def close(self) -> None:
        """Hands on nothing more; what is under way is lost."""
        with self._changed:
            self._ended = True
            for _, _, piece in self._pieces:
                piece.gone.set()
            self._pieces.clear()
            self._changed.notify_all()
        self._thread.join()


class LinkProxy:
    """Relays every connection to `listen` on to `to`.

    Everything goes through at once, but between `begin` and `end`.

    Args:
        up: the link from the listening side to `to`, and `down` the way back, to begin with the first byte that
            comes in; None: when told to.
        listen: where; port 0 takes a free one (`address` says which).
        shared: whether each connection is a device of its own, for links with `transport: tcp`.

    Raises UsageError where it cannot listen.
    """

    def __init__(
        self, listen: Address, to: Address, up: Fifo | None = None, down: Fifo | None = None, *, shared: bool = False
    ) -> None:
        self._to, self._shared = to, shared
        self._first = None if up is None or down is None else (up, down)
        self._lock, self._open, self._number = threading.Lock(), set[socket.socket](), count()
        self._listener = listen.listener("--listen")
        self.address = Address(listen.host, self._listener.getsockname()[1])
        self.up, self.down = Direction(), Direction()
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def begin(self, up: Fifo, down: Fifo, origin_s: float) -> None:
        """From `origin_s` (time.monotonic()) on, the links' time zero, bytes take the time that the links say."""
        self.up.begin(up, origin_s)
        self.down.begin(down, origin_s)

    def end(self) -> dict[str, dict[str, float]]:
        """How exact both directions were; from now on everything goes through at once."""
        return {"up": self.up.end(), "down": self.down.end()}

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
        both, sender = {near, far}, next(self._number) if self._shared else None
        for one in both:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open |= both
        back = threading.Thread(target=self._pump, args=(far, near, self.down, sender), daemon=True)
        back.start()
        self._pump(near, far, self.up, sender)
        back.join()
        with self._lock:
            self._open -= both

    def _pump(self, source: socket.socket, to: socket.socket, direction: Direction, sender: Hashable) -> None:
        with suppress(OSError):
            while content := source.recv(READ_BYTES):
                if self._first is not None:
                    self._begin_now()
                direction.offer(content, to, sender)
        direction.offer(b"", to, sender).wait()

    def _begin_now(self) -> None:
        with self._lock:
            if self._first is not None:
                self.begin(*self._first, time.monotonic())
                self._first = None

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


def _shut(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
