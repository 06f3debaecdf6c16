"""A measured rate over time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median
from typing import Annotated

from annotated_types import Gt, Le

from splitexit.links import Link, Ms
from splitexit.links._jitter import Distribution
from splitexit.links._rates import Unit, rates
from splitexit.links._tcp import Transport


class Trace(Link):
    """Piecewise constant rate from a text file, repeated for ever.

    The file has lines of `seconds Mbit/s`, separated by space, tab or comma: the format of the traces of Pensieve
    (Mao et al., SIGCOMM 2017) and of most collections made after it. Or it is CSV with a heading, its times in the
    first column, in seconds or as G-NetTrack Pro logs them (Raca et al., "Beyond Throughput, The Next Generation",
    MMSys 2020: `column: DL_bitrate`); rows with the same time are averaged.

    Each rate holds from its time to the next one's; the last holds for the median step of the file (a
    single line is a constant rate). The clock of the file may start anywhere: its first line is time 0.
    Spans of rate zero are allowed, a trace of nothing else is not.

    Args:
        trace: the file.
        delay_ms: one-way propagation.
        jitter_ms: by how much the delay varies around that; 0 for not at all.
        jitter: how it varies: normal, pareto-normal or uniform, as in netem.
        transport: none, or tcp for its slow start, idle restart and headers.
        rtt_ms: round trip of the acknowledgements under tcp; by default twice the delay.
        scale: factor on every rate.
        column: the heading of the rates, where the file has headings.
        unit: of the rates: Mbit/s, kbit/s, bit/s or bytes/s; by default what a known heading stands for, else Mbit/s.

    Raises:
        TraceError: the file cannot be used, with its line.
    """

    def __init__(
        self,
        *,
        trace: Path,
        delay_ms: Ms = 0.0,
        jitter_ms: Ms = 0.0,
        jitter: Distribution = "normal",
        transport: Transport = "none",
        rtt_ms: Ms | None = None,
        scale: Annotated[float, Gt(0), Le(1e6)] = 1.0,
        column: str | None = None,
        unit: Unit | None = None,
    ) -> None:
        super().__init__(delay_ms=delay_ms, jitter_ms=jitter_ms, jitter=jitter, transport=transport, rtt_ms=rtt_ms)
        self.trace, self.scale = trace, scale
        self.column, self.unit = column, unit
        times, mbps = rates(trace, column, unit)
        steps = [after - before for before, after in pairwise(times)]
        steps.append(median(steps) if steps else 1.0)
        self._rates = [rate * scale * 1e6 / 8.0 for rate in mbps]
        # Edges of the spans, and the bytes that have gone through from the start of a lap to each edge.
        self._edges = [*(time - times[0] for time in times), times[-1] - times[0] + steps[-1]]
        self._bytes = [0.0, *accumulate(r * s for r, s in zip(self._rates, steps, strict=True))]
        self._lap_s, self._lap_bytes = self._edges[-1], self._bytes[-1]
        self.mean_bps = 8.0 * self._lap_bytes / self._lap_s

    def finish_s(self, start_s: float, size_bytes: float) -> float:
        """The earliest time at which the integral of the rate from the start is the size."""
        laps, offset_s = divmod(start_s, self._lap_s)
        # Rounding can put the offset on the far edge of the lap.
        span = min(bisect_right(self._edges, offset_s) - 1, len(self._rates) - 1)
        left = (self._edges[span + 1] - offset_s) * self._rates[span]
        if size_bytes <= left:
            return start_s + (size_bytes / self._rates[span] if size_bytes else 0.0)
        return max(start_s, self._later(laps, self._bytes[span + 1] + size_bytes - left))

    def _later(self, laps: float, target: float) -> float:
        """When `target` bytes have gone through since the start of that lap (target > 0)."""
        more, rest = divmod(target, self._lap_bytes)
        if not rest:
            # The last byte goes at the end of a lap, which may lie before a span of rate zero.
            more, rest = more - 1, self._lap_bytes
        span = bisect_left(self._bytes, rest) - 1
        return (laps + more) * self._lap_s + self._edges[span] + (rest - self._bytes[span]) / self._rates[span]

    def sent_bytes(self, start_s: float, end_s: float) -> float:
        """The integral of the rate."""
        (first, start), (last, end) = divmod(start_s, self._lap_s), divmod(end_s, self._lap_s)
        return (last - first) * self._lap_bytes + self._sent_by(end) - self._sent_by(start)

    def _sent_by(self, offset_s: float) -> float:
        """Bytes from the start of a lap."""
        span = min(bisect_right(self._edges, offset_s) - 1, len(self._rates) - 1)
        return self._bytes[span] + (offset_s - self._edges[span]) * self._rates[span]
