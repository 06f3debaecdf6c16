"""A measured rate over time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median
from typing import Annotated

from annotated_types import Gt, Le

from splitexit.errors import TraceError
from splitexit.links import Link, Ms
from splitexit.links._jitter import Distribution
from splitexit.links._tracefile import LARGEST_MBPS, LARGEST_S, finite, read

EXPECTED = "`seconds Mbit/s`, separated by space, tab or comma"


class Trace(Link):
    """Piecewise constant rate from a text file of `seconds Mbit/s`, repeated for ever.

    Each rate holds from its time to the next one's; the last holds for the median step of the file (a
    single line is a constant rate). The clock of the file may start anywhere: its first line is time 0.
    Spans of rate zero are allowed, a trace of nothing else is not. This is the format of the traces of
    Pensieve (Mao et al., SIGCOMM 2017) and of most collections made after it.

    Args:
        trace: the file.
        delay_ms: one-way propagation.
        jitter_ms: by how much the delay varies around that; 0 for not at all.
        jitter: how it varies: normal, pareto-normal or uniform, as in netem.
        scale: factor on every rate.

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
        scale: Annotated[float, Gt(0), Le(1e6)] = 1.0,
    ) -> None:
        super().__init__(delay_ms=delay_ms, jitter_ms=jitter_ms, jitter=jitter)
        self.trace = trace
        self.scale = scale
        times, mbps = _points(trace)
        steps = [after - before for before, after in pairwise(times)]
        steps.append(median(steps) if steps else 1.0)
        self._rates = [rate * scale * 1e6 / 8.0 for rate in mbps]
        # Edges of the spans, and the bytes that have gone through from the start of a lap to each edge.
        self._edges = [*(time - times[0] for time in times), times[-1] - times[0] + steps[-1]]
        self._bytes = [0.0, *accumulate(r * s for r, s in zip(self._rates, steps, strict=True))]
        self._lap_s, self._lap_bytes = self._edges[-1], self._bytes[-1]
        self.mean_bps = 8.0 * self._lap_bytes / self._lap_s

    def finish_s(self, start_s: float, size_bytes: int) -> float:
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


def _points(path: Path) -> tuple[list[float], list[float]]:
    points = read(path, EXPECTED, _point)
    for (_, (before, _)), (line, (time, _)) in pairwise(points):
        if time <= before:
            raise TraceError(f"{path}:{line}: time {time:g} follows {before:g}; times must increase: sort the lines")
    times, rates = ([point[axis] for _, point in points] for axis in (0, 1))
    if not any(rates):
        raise TraceError(f"{path}: every rate is zero, nothing would ever arrive; expected some above 0 Mbit/s")
    return times, rates


def _point(line: str) -> tuple[float, float]:
    fields = line.replace(",", " ").split()
    if len(fields) != 2:
        raise ValueError(f"{len(fields)} columns (put # before a heading)")
    time, rate = finite(fields[0]), finite(fields[1])
    if abs(time) > LARGEST_S:
        raise ValueError(f"time {time:g} s is beyond {LARGEST_S:g}; is the clock in milliseconds?")
    if not 0 <= rate <= LARGEST_MBPS:
        raise ValueError(f"rate {rate:g} is not in 0..{LARGEST_MBPS:g} Mbit/s; is it in bits or bytes per second?")
    return time, rate
