"""A rate limit that lets bursts through."""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from annotated_types import Gt, Le

from splitexit.links import Link, Mbps, Ms
from splitexit.links._jitter import Distribution
from splitexit.links._tcp import Transport


class TokenBucket(Link):
    """Tokens, one per byte, drop into a bucket at a rate until it is full; bytes leave only with tokens.

    tokens = min(depth, tokens + rate Δt); a message of n bytes has gone after max(n / peak, (n - tokens) / rate).
    This is the token bucket of RFC 2215, section 3.6 (r, b and p), and of Linux (tc-tbf(8)): how providers and
    shapers cap a link. The bucket begins full.

    Args:
        mbps: rate of the tokens in Mbit/s.
        depth_kb: size of the bucket in kilobytes (10^3 bytes), the longest burst.
        peak_mbps: how fast a burst goes, in Mbit/s; by default at once.
        delay_ms: one-way propagation.
        jitter_ms: by how much the delay varies around that; 0 for not at all.
        jitter: how it varies: normal, pareto-normal or uniform, as in netem.
        transport: none, or tcp for its slow start, idle restart and headers.
        rtt_ms: round trip of the acknowledgements under tcp; by default twice the delay.
    """

    def __init__(
        self,
        *,
        mbps: Mbps,
        depth_kb: Annotated[float, Gt(0), Le(1e9)],
        peak_mbps: Mbps | None = None,
        delay_ms: Ms = 0.0,
        jitter_ms: Ms = 0.0,
        jitter: Distribution = "normal",
        transport: Transport = "none",
        rtt_ms: Ms | None = None,
    ) -> None:
        super().__init__(delay_ms=delay_ms, jitter_ms=jitter_ms, jitter=jitter, transport=transport, rtt_ms=rtt_ms)
        self.mbps, self.depth_kb, self.peak_mbps = mbps, depth_kb, peak_mbps
        self.mean_bps = 1e6 * (mbps if peak_mbps is None else min(mbps, peak_mbps))
        self._rate, self._depth_bytes = mbps * 1e6 / 8.0, depth_kb * 1e3
        self._peak_byte_s = 0.0 if peak_mbps is None else 8e-6 / peak_mbps
        self._refill()

    def _refill(self) -> None:
        self._tokens, self._at_s = self._depth_bytes, 0.0

    def reseed(self, rng: np.random.Generator) -> None:
        """Starts anew with a full bucket."""
        self._refill()
        super().reseed(rng)

    def finish_s(self, start_s: float, size_bytes: float) -> float:
        """start + max(n / peak, (n - tokens) / rate)."""
        tokens = self._tokens_at(start_s)
        taken_s = max(size_bytes * self._peak_byte_s, (size_bytes - tokens) / self._rate, 0.0)
        self._at_s = start_s + taken_s
        # Rounding must not leave a debt.
        self._tokens = max(0.0, min(self._depth_bytes, tokens + taken_s * self._rate - size_bytes))
        return self._at_s

    def _tokens_at(self, time_s: float) -> float:
        return min(self._depth_bytes, self._tokens + (time_s - self._at_s) * self._rate)

    def fork(self) -> Self:
        """Has a bucket of its own, as full as this one."""
        return self._twin()
