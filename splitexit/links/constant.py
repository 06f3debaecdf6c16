"""A link that never changes."""

from __future__ import annotations

from splitexit.links import Link, Mbps, Ms


class Constant(Link):
    """finish = start + 8 size / rate.

    Args:
        mbps: rate in Mbit/s; published uplink medians: 3G 1.1, 4G 5.85, Wi-Fi 18.88 (Eshratifar et al.,
            "BottleNet", ISLPED 2019, table of radio parameters).
        delay_ms: one-way propagation.
    """

    def __init__(self, *, mbps: Mbps, delay_ms: Ms = 0.0) -> None:
        super().__init__(delay_ms=delay_ms)
        self.mbps = mbps
        self.mean_bps = mbps * 1e6
        self._byte_s = 8.0 / self.mean_bps

    def finish_s(self, start_s: float, size_bytes: int) -> float:
        """start + 8 size / rate."""
        return start_s + size_bytes * self._byte_s
