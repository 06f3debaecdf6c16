"""A link whose rate over time was measured, and is given in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from splitexit.links import Link
from splitexit.links._spans import Floats, Spans
from splitexit.links._tcp import Transport

LATER_S = 3600.0


class Piecewise(Link):
    """Piecewise constant rate for some time, constant after that.

    Args:
        lengths_s: of the pieces, from time 0 on; at least one, each above 0.
        bytes_per_s: the rate in each; 0 is an outage.
        later_bps: the rate after the last of them in bit/s, above 0; also what is to be expected in the long run.
        delay_s: one-way propagation.
        transport, rtt_s: as of any link.
    """

    def __init__(
        self,
        *,
        lengths_s: Sequence[float] | Floats,
        bytes_per_s: Sequence[float] | Floats,
        later_bps: float,
        delay_s: float = 0.0,
        transport: Transport = "none",
        rtt_s: float | None = None,
    ) -> None:
        rtt_ms = None if rtt_s is None else 1e3 * rtt_s
        super().__init__(delay_ms=1e3 * delay_s, transport=transport, rtt_ms=rtt_ms)
        self.mean_bps = later_bps
        first = np.asarray(lengths_s, float), np.asarray(bytes_per_s, float)
        later = np.array([LATER_S]), np.array([later_bps / 8.0])
        self._spans = Spans(np.random.default_rng(0), lambda _, number: later if number else first)

    def finish_s(self, start_s: float, size_bytes: float) -> float:
        """The earliest time at which the integral of the rate from the start is the size."""
        return self._spans.finish_s(start_s, size_bytes)

    def sent_bytes(self, start_s: float, end_s: float) -> float:
        """The integral of the rate."""
        return self._spans.sent_bytes(start_s, end_s)
