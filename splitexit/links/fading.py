"""A radio channel that fades."""

from __future__ import annotations

import math
from typing import Annotated, Self

import numpy as np
from annotated_types import Ge, Le

from splitexit.links import Link, Ms
from splitexit.links._chance import BLOCK
from splitexit.links._jitter import Distribution
from splitexit.links._spans import Floats, Spans
from splitexit.links._tcp import Transport


class Fading(Link):
    """Shannon capacity under Rayleigh block fading: R = W log2(1 + SNR |h|²), h drawn anew every block.

    |h|² is exponential with mean 1 (Tse and Viswanath, Fundamentals of Wireless Communication, 2005,
    sections 2.4.2 and 5.4.5); the transmitter is taken to code for every block's capacity. The long-run
    rate is the ergodic capacity W e^(1/SNR) E1(1/SNR) / ln 2 (Alouini and Goldsmith, IEEE Transactions on
    Vehicular Technology 48(4), 1999): 2.91 bit/s per Hz at 10 dB, against 3.46 without fading.

    Args:
        bandwidth_mhz: W in MHz.
        snr_db: mean signal-to-noise ratio in dB.
        coherence_ms: length of a block; Rappaport's 0.423 c / (v f) (Wireless Communications, 2nd ed.,
            eq. 5.40.c) gives the default for walking (3 km/h) at 2 GHz, and 4.6 ms for 50 km/h.
        delay_ms: one-way propagation.
        jitter_ms: by how much the delay varies around that; 0 for not at all.
        jitter: how it varies: normal, pareto-normal or uniform, as in netem.
        transport: none, or tcp for its slow start, idle restart and headers.
        rtt_ms: round trip of the acknowledgements under tcp; by default twice the delay.
    """

    def __init__(
        self,
        *,
        bandwidth_mhz: Annotated[float, Ge(0.01), Le(10_000)],
        snr_db: Annotated[float, Ge(-10), Le(60)] = 10.0,
        coherence_ms: Annotated[float, Ge(1), Le(3_600_000)] = 76.0,
        delay_ms: Ms = 0.0,
        jitter_ms: Ms = 0.0,
        jitter: Distribution = "normal",
        transport: Transport = "none",
        rtt_ms: Ms | None = None,
    ) -> None:
        super().__init__(delay_ms=delay_ms, jitter_ms=jitter_ms, jitter=jitter, transport=transport, rtt_ms=rtt_ms)
        self.bandwidth_mhz, self.snr_db, self.coherence_ms = bandwidth_mhz, snr_db, coherence_ms
        self._snr = 10.0 ** (snr_db / 10.0)
        self.mean_bps = bandwidth_mhz * 1e6 * _ergodic(self._snr)
        self.reseed(np.random.default_rng(0))

    def reseed(self, rng: np.random.Generator) -> None:
        """Draws other fading."""
        self._spans = Spans(rng, self._draw)
        super().reseed(rng)

    def _draw(self, rng: np.random.Generator, number: int) -> tuple[Floats, Floats]:
        efficiency = np.log2(1.0 + self._snr * rng.exponential(size=BLOCK))
        return np.full(BLOCK, self.coherence_ms / 1000.0), self.bandwidth_mhz * 1e6 / 8.0 * efficiency

    def finish_s(self, start_s: float, size_bytes: float) -> float:
        """The earliest time at which the integral of the rate from the start is the size."""
        return self._spans.finish_s(start_s, size_bytes)

    def sent_bytes(self, start_s: float, end_s: float) -> float:
        """The integral of the rate."""
        return self._spans.sent_bytes(start_s, end_s)

    def fork(self) -> Self:
        """Meets the same fading."""
        return self._twin()


def _ergodic(snr: float) -> float:
    """The mean of log2(1 + snr x) over an exponential x, in bit/s per Hz."""
    return math.exp(1.0 / snr) * _e1(1.0 / snr) / math.log(2.0)


def _e1(x: float) -> float:
    """The exponential integral E1, to 1e-7 for x up to 10 (Abramowitz and Stegun, 5.1.11)."""
    term, total = 1.0, -float(np.euler_gamma) - math.log(x)
    for k in range(1, 100):
        term *= -x / k
        total -= term / k
    return total
