"""Processor sharing: the other discipline, for devices that share an access point."""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heappop, heappush
from math import inf
from typing import Any, NamedTuple

from splitexit.links import Link
from splitexit.links._tcp import Connections, wire_bytes


class Delivery(NamedTuple):
    """A message that is through.

    key      what it was offered with
    start_s  when it was offered; it was served from then on
    sent_s   when its last byte was sent; arrive_s  when that arrives
    """

    key: Any
    start_s: float
    sent_s: float
    arrive_s: float


class Sharing:
    """Every message present is served at once, each at an n-th of the link's rate while there are n of them.

    The limit of round robin among small packets (Kleinrock, Queueing Systems II, 1976, section 4.4). Driven by
    events, without a clock of its own: `next_s` says when `take` is due if nothing else happens before; what is
    due is taken before more is offered. An operation takes O(log n): what every message present has been served
    since the link was last idle is one number, and a message is through when that number reaches its value when
    the message came plus the message's size (the virtual time of Parekh and Gallager, IEEE/ACM Transactions on
    Networking 1(3), 1993).

    Under tcp, a message leaves the link when that has served its bytes and headers; what its sender waits for the
    window comes on top and delays no other.

    Args:
        link: the capacity that is shared.

    Raises:
        InputError: the link's capacity is no function of time.
    """

    __slots__ = ("_arrived_s", "_at_s", "_count", "_next_s", "_present", "_served_bytes", "connections", "link")

    def __init__(self, link: Link) -> None:
        link.sent_bytes(0.0, 0.0)
        self.link = link
        self.connections = Connections(link) if link.transport == "tcp" else None
        # Through at this number, count, start_s, key, size without headers, sender
        self._present: list[tuple[float, int, float, Any, float, Hashable]] = []
        self._at_s = self._served_bytes = self._arrived_s = 0.0
        self._count, self._next_s = 0, inf

    def offer(self, now_s: float, size_bytes: float, key: Any = None, sender: Hashable = None) -> None:
        """A message comes; `next_s` changes.

        Args:
            now_s: never smaller than before.
            size_bytes: of the message.
            key: comes back with the delivery.
            sender: over whose connection it goes, for tcp.

        Raises:
            ValueError: a message was due before `now_s` and was not taken.
        """
        if now_s > self._next_s:
            raise ValueError(f"offered at {now_s} s while a message is due at {self._next_s} s; take that one first")
        self._serve_until(now_s)
        taken_bytes = size_bytes if self.connections is None else wire_bytes(size_bytes)
        heappush(self._present, (self._served_bytes + taken_bytes, self._count, now_s, key, size_bytes, sender))
        self._count += 1
        self._foresee()

    def next_s(self) -> float:
        """When the next message is through if no other comes before; inf if there is none, or never."""
        return self._next_s

    def take(self) -> Delivery:
        """The message that is through at `next_s`, which then speaks of the one after it. The earlier one of equals.

        Raises:
            IndexError: there is none.
        """
        sent_s = self._next_s
        self._served_bytes, _, start_s, key, size_bytes, sender = heappop(self._present)
        self._at_s = sent_s
        self._foresee()
        if self.connections is not None:
            return Delivery(key, start_s, *self.connections.deliver(sender, start_s, sent_s, size_bytes))
        self._arrived_s = max(self._arrived_s, self.link.arrive_s(start_s, sent_s))
        return Delivery(key, start_s, sent_s, self._arrived_s)

    def _serve_until(self, now_s: float) -> None:
        if self._present:
            share = self.link.sent_bytes(self._at_s, now_s) / len(self._present)
            self._served_bytes = min(self._served_bytes + share, self._present[0][0])
        else:
            self._served_bytes = 0.0  # starts small again, for precision
        self._at_s = now_s

    def _foresee(self) -> None:
        if not self._present:
            self._next_s = inf
            return
        left = (self._present[0][0] - self._served_bytes) * len(self._present)
        self._next_s = self.link.fluid_s(self._at_s, left)

    def peek(self, now_s: float, size_bytes: float, sender: Hashable = None) -> tuple[float, float, float]:
        """What would become of a message offered then if no other came: start, last byte sent, arrival (inf: never)."""
        if now_s == inf:
            return inf, inf, inf
        ahead, mine = self.fork(), object()
        while ahead.next_s() <= now_s:
            ahead.take()
        ahead.offer(now_s, size_bytes, mine, sender)
        while (found := ahead.take()).key is not mine:
            pass
        return found[1:]

    def fork(self) -> Sharing:
        """Goes on from the present state on its own."""
        twin = Sharing(self.link.fork())
        twin._present = self._present.copy()
        if self.connections is not None:
            twin.connections = self.connections.fork(twin.link)
        for name in ("_at_s", "_served_bytes", "_arrived_s", "_count", "_next_s"):
            setattr(twin, name, getattr(self, name))
        return twin
