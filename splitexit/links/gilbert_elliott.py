"""A constant rate with losses in bursts."""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from annotated_types import Ge, Gt, Le

from splitexit.links import PACKET_BYTES, Link, Mbps, Ms
from splitexit.links._chance import BLOCK, Blocks
from splitexit.links._jitter import Distribution
from splitexit.links._tcp import Transport


class GilbertElliott(Link):
    """A packet is lost with a probability that depends on a state, good or bad; it is then sent again.

    Gilbert, Bell System Technical Journal 39, 1960; Elliott, ibid. 42, 1963; the parameters are those of
    netem's `loss gemodel p r 1-h 1-k` (tc-netem(8)), as fractions instead of percent. Per packet sent, one
    draw loses it according to the present state, another moves the state. Bad share p / (p + r), mean stay
    in bad 1 / r packets, loss rate (p loss_bad + r loss_good) / (p + r).

    The transport is reliable: a lost packet costs its serialisation again, and every run of losses within
    a message costs one recovery wait, in which the link stands still (one connection, bytes in order).

    Args:
        mbps: rate in Mbit/s.
        delay_ms: one-way propagation.
        jitter_ms: by how much the delay varies around that; 0 for not at all.
        jitter: how it varies: normal, pareto-normal or uniform, as in netem.
        transport: none, or tcp for its slow start, idle restart and headers.
        rtt_ms: round trip of the acknowledgements under tcp; by default twice the delay.
        p: chance to go from good to bad, per packet.
        r: chance to go from bad to good, per packet; at least 0.001, so that every message ends.
        loss_good: loss in the good state, netem's 1-k; 0 is netem's default.
        loss_bad: loss in the bad state, netem's 1-h; 1 is netem's default.
        packet_bytes: what is lost at once; the default is Ethernet's payload, IEEE 802.3.
        recovery_ms: wait per run of losses; by default one round trip, 2 delay_ms, what fast retransmit
            needs to notice and repair (RFC 5681, section 3.2).
    """

    def __init__(
        self,
        *,
        mbps: Mbps,
        delay_ms: Ms = 0.0,
        jitter_ms: Ms = 0.0,
        jitter: Distribution = "normal",
        transport: Transport = "none",
        rtt_ms: Ms | None = None,
        p: Annotated[float, Ge(0), Le(1)],
        r: Annotated[float, Ge(0.001), Le(1)],
        loss_good: Annotated[float, Ge(0), Le(0.9)] = 0.0,
        loss_bad: Annotated[float, Ge(0), Le(1)] = 1.0,
        packet_bytes: Annotated[int, Gt(0), Le(65_535)] = PACKET_BYTES,
        recovery_ms: Ms | None = None,
    ) -> None:
        super().__init__(delay_ms=delay_ms, jitter_ms=jitter_ms, jitter=jitter, transport=transport, rtt_ms=rtt_ms)
        self.mbps = mbps
        self.p, self.r = p, r
        self.loss_good, self.loss_bad = loss_good, loss_bad
        self.packet_bytes = packet_bytes
        self.recovery_ms = recovery_ms
        self.loss_rate = (p * loss_bad + r * loss_good) / (p + r)
        self.mean_bps = mbps * 1e6 * (1.0 - self.loss_rate)
        self._byte_s = 8.0 / (mbps * 1e6)
        self._recovery_s = (2.0 * delay_ms if recovery_ms is None else recovery_ms) / 1000.0
        self.reseed(np.random.default_rng(0))

    def reseed(self, rng: np.random.Generator) -> None:
        """Starts anew, in a state drawn from the stationary distribution."""
        self._chance = Blocks(rng, _pairs)
        self._bad = float(rng.random()) < self.p / (self.p + self.r)
        self._sent = 0
        super().reseed(rng)

    def finish_s(self, start_s: float, size_bytes: float) -> float:
        """start + every transmission + one recovery wait per run of losses (the last packet may be short)."""
        sent_bytes, runs, offset = 0.0, 0, 0.0
        in_run = False
        while offset < size_bytes:
            packet = min(self.packet_bytes, size_bytes - offset)
            sent_bytes += packet
            lost = self._lost()
            runs += lost and not in_run
            in_run = lost
            if not lost:
                offset += packet
        return start_s + sent_bytes * self._byte_s + runs * self._recovery_s

    def _lost(self) -> bool:
        """Sends one packet: whether it was lost, as the state before it says; then the state moves."""
        number, offset = divmod(self._sent, BLOCK)
        move, lose = self._chance[number][offset]
        self._sent += 1
        bad = self._bad
        if move < (self.r if bad else self.p):
            self._bad = not bad
        return lose < (self.loss_bad if bad else self.loss_good)

    def fork(self) -> Self:
        """Meets the same losses as this link would."""
        return self._twin()


def _pairs(rng: np.random.Generator, number: int) -> list[list[float]]:
    """For every packet of a block two numbers in [0, 1): does the state move, is the packet lost."""
    pairs: list[list[float]] = rng.random((BLOCK, 2)).tolist()
    return pairs
