"""Links: when the bytes offered to a link have gone through it.

The interface, the usual discipline, then the menu. One file and one line in the table add a link.

A link is its *capacity*: how long a message holds it. The *discipline* decides who holds it when: `Fifo`, or
`Sharing` (sharing.py) of one link among many. Events change a link's capacity from outside: `Modulated` (modulated.py).
Propagation is separate and holds nothing: a message arrives `delay_s` after its last byte was sent, and
the next one may follow that byte at once; where the delay varies, nothing overtakes. Rates count the bytes
that the link is handed, headers included.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Hashable
from math import inf
from typing import Annotated, Self, get_args

import numpy as np
from annotated_types import Ge, Gt, Le

from splitexit.errors import InputError
from splitexit.links._jitter import Distribution, Jitter
from splitexit.links._tcp import SEGMENT_BYTES, Connections, Transport, wire_bytes
from splitexit.registry import Registry

Mbps = Annotated[float, Gt(0), Le(1e6)]
"""Megabits (10^6 bits) per second, up to a terabit."""

Ms = Annotated[float, Ge(0), Le(60_000)]
"""Milliseconds, up to a minute."""

PACKET_BYTES = 1500
"""The payload of an Ethernet frame (IEEE 802.3), and the unit of mahimahi's traces."""


class Link(ABC):
    """The capacity of a link, from one side to the other, and its delay.

    Args:
        delay_ms: one-way propagation.
        jitter_ms: by how much the delay varies around that; 0 for not at all.
        jitter: how it varies (see splitexit.links._jitter).
        transport: none, or tcp, whose window and headers (see splitexit.links._tcp) are up to the discipline.
        rtt_ms: round trip of the acknowledgements under tcp; by default twice the delay.

    delay_s   the delay without jitter, in seconds; rtt_s  the round trip
    plain     neither jitter nor transport
    mean_bps  long-run rate in bits per second, for reports and as a device's first belief
    """

    mean_bps: float

    def __init__(
        self,
        *,
        delay_ms: Ms = 0.0,
        jitter_ms: Ms = 0.0,
        jitter: Distribution = "normal",
        transport: Transport = "none",
        rtt_ms: Ms | None = None,
    ) -> None:
        if transport not in get_args(Transport):
            raise InputError(f"transport {transport!r}: expected none or tcp")
        self.delay_ms, self.jitter_ms, self.jitter = delay_ms, jitter_ms, jitter
        self.transport, self.rtt_ms = transport, rtt_ms
        self.delay_s = delay_ms / 1000.0
        self.rtt_s = (2.0 * delay_ms if rtt_ms is None else rtt_ms) / 1000.0
        self.plain = not jitter_ms and transport == "none"
        self._jitter = self._new_jitter(np.random.default_rng(0))

    @abstractmethod
    def finish_s(self, start_s: float, size_bytes: float) -> float:
        """When the last byte of a message offered at `start_s` has been sent.

        `start_s` is never smaller than what an earlier call returned. The result is not before `start_s`.
        """

    def sent_bytes(self, start_s: float, end_s: float) -> float:
        """Bytes that go through in that time if the link is busy throughout.

        A function of time: it may be asked about any time, in any order, and what was sent changes nothing.

        Raises:
            InputError: the link has no such function, because its capacity depends on what is sent.
        """
        raise InputError(
            f"{_kebab(type(self).__name__)}: its capacity depends on what is sent, so it cannot be shared by processor "
            "sharing nor be under outage and bandwidth events; try constant, trace, mahimahi, markov or fading"
        )

    def fluid_s(self, start_s: float, size_bytes: float) -> float:
        """When a link that is busy from `start_s` on has carried so much: the inverse of `sent_bytes`.

        The same as `finish_s` where that is a function of time, too.
        """
        return self.finish_s(start_s, size_bytes)

    def arrive_s(self, start_s: float, sent_s: float) -> float:
        """When a message is complete at the far end that was sent from `start_s` to `sent_s`, and not before others.

        A function of time: unlike `finish_s` it may be asked about any time, in any order.
        """
        return sent_s + self.delay_s if self._jitter is None else self._jitter.arrive_s(start_s, sent_s)

    def reseed(self, rng: np.random.Generator) -> None:
        """Takes all chance of a link that has any from `rng`; until then it comes from a fixed seed."""
        self._jitter = self._new_jitter(rng)

    def _new_jitter(self, rng: np.random.Generator) -> Jitter | None:
        if not self.jitter_ms:
            return None
        return Jitter(self.delay_s, self.jitter_ms / 1000.0, self.jitter, rng)

    def fork(self) -> Self:
        """A link that goes on from the present state on its own, with the same future if used the same way.

        The link itself where it has neither state nor chance; `_twin` where it has.
        """
        return self._twin() if self.jitter_ms else self

    def bare(self) -> Self:
        """The same link without its transport, for packets that are whole as they come."""
        twin = self._twin()
        twin.transport, twin.plain = "none", not self.jitter_ms
        return twin

    def _twin(self) -> Self:
        """A shallow copy; several times faster than copy.copy, and the oracle makes one per candidate."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin


class Fifo:
    """First come, first served: the link is free again when the last byte of a message has been sent.

    A virtual clock (`free_s`) instead of timers, so that it does not drift; the simulator and the live
    shaping proxy both use it.

    Under tcp a link of one sender stands still while the window does; a link of many (who name themselves) is held
    for the bytes and their headers alone, and what a sender waits for its window delays no other.
    """

    __slots__ = ("arrived_s", "connections", "free_s", "link")

    def __init__(self, link: Link, free_s: float = 0.0, arrived_s: float = 0.0) -> None:
        self.link, self.free_s, self.arrived_s = link, free_s, arrived_s
        self.connections = Connections(link) if link.transport == "tcp" else None

    def send(self, now_s: float, size_bytes: float, sender: Hashable = None) -> tuple[float, float, float]:
        """Offers a message; seconds at which its first byte starts, its last is sent, its last arrives.

        Args:
            now_s: never smaller than before.
            size_bytes: of the message.
            sender: who of those that share the link, for tcp; none where only one does.
        """
        link = self.link
        start_s = now_s if now_s > self.free_s else self.free_s
        if link.plain:  # link.arrive_s without the call
            self.free_s = sent_s = link.finish_s(start_s, size_bytes)
            return start_s, sent_s, sent_s + link.delay_s
        if self.connections is not None:
            return start_s, *self._send_by_tcp(self.connections, now_s, start_s, size_bytes, sender)
        self.free_s = sent_s = link.finish_s(start_s, size_bytes)
        self.arrived_s = max(self.arrived_s, link.arrive_s(start_s, sent_s))
        return start_s, sent_s, self.arrived_s

    def _send_by_tcp(
        self, connections: Connections, now_s: float, start_s: float, size_bytes: float, sender: Hashable
    ) -> tuple[float, float]:
        if sender is None:
            self.free_s = connections[None].send(now_s, size_bytes, self.link.finish_s)
            return connections.arrive(None, start_s, self.free_s)
        self.free_s = self.link.finish_s(start_s, wire_bytes(size_bytes))
        return connections.deliver(sender, start_s, self.free_s, size_bytes)

    @property
    def piece_bytes(self) -> int:
        """Into pieces of what size a message may be cut at no cost: what fits into a packet."""
        return PACKET_BYTES if self.connections is None else SEGMENT_BYTES

    def peek(self, now_s: float, size_bytes: float, sender: Hashable = None) -> tuple[float, float, float]:
        """What `send` would return, without sending; never (inf) for what is offered never."""
        if now_s == inf:
            return inf, inf, inf
        return self.fork().send(now_s, size_bytes, sender)

    def fork(self) -> Fifo:
        """A queue that goes on from the present state on its own."""
        twin = Fifo(self.link.fork(), self.free_s, self.arrived_s)
        if self.connections is not None:
            twin.connections = self.connections.fork(twin.link)
        return twin


def _kebab(name: str) -> str:
    """TokenBucket -> token-bucket."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


LINKS: Registry[Link] = Registry(
    "link",
    {
        "constant": "splitexit.links.constant:Constant",
        "trace": "splitexit.links.trace:Trace",
        "mahimahi": "splitexit.links.mahimahi:Mahimahi",
        "markov": "splitexit.links.markov:Markov",
        "fading": "splitexit.links.fading:Fading",
        "token-bucket": "splitexit.links.token_bucket:TokenBucket",
        "gilbert-elliott": "splitexit.links.gilbert_elliott:GilbertElliott",
        "3g": "splitexit.links.presets:ThreeG",
        "lte": "splitexit.links.presets:Lte",
        "5g": "splitexit.links.presets:FiveG",
        "wifi": "splitexit.links.presets:WiFi",
        "ethernet": "splitexit.links.presets:Ethernet",
        "lora": "splitexit.links.presets:Lora",
    },
)
