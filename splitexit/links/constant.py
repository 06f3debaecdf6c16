"""A link that never changes."""

from __future__ import annotations

from splitexit.links import Link, Mbps, Ms
from splitexit.links._jitter import Distribution
from splitexit.links._tcp import Transport


class Constant(Link):
    """finish = start + 8 size / rate.

    Args:
        mbps: rate in Mbit/s; published uplink medians: 3G 1.1, 4G 5.85, Wi-Fi 18.88 (Eshratifar et al.,
            "BottleNet", ISLPED 2019, table of radio parameters).
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
        delay_ms: Ms = 0.0,
        jitter_ms: Ms = 0.0,
        jitter: Distribution = "normal",
        transport: Transport = "none",
        rtt_ms: Ms | None = None,
    ) -> None:
        super().__init__(delay_ms=delay_ms, jitter_ms=jitter_ms, jitter=jitter, transport=transport, rtt_ms=rtt_ms)
        self.mbps = mbps
        self.mean_bps = mbps * 1e6
        self._byte_s = 8.0 / self.mean_bps

    def finish_s(self, start_s: float, size_bytes: float) -> float:
        """start + 8 size / rate."""
        return start_s + size_bytes * self._byte_s

    def sent_bytes(self, start_s: float, end_s: float) -> float:
        """rate (end - start) / 8."""
        return (end_s - start_s) / self._byte_s
