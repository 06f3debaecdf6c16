"""Delivery opportunities, as mahimahi records and replays them."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from itertools import pairwise
from pathlib import Path
from typing import Self

from splitexit.errors import TraceError
from splitexit.links import PACKET_BYTES, Link, Ms
from splitexit.links._jitter import Distribution
from splitexit.links._tcp import Transport
from splitexit.links._tracefile import read

EXPECTED = "whole milliseconds, one delivery opportunity each"
DIGITS = 10
"""Of the longest time: almost four months."""

NANOSECOND_MS = 1e-6

ROUNDING = 1e-8
"""Of an opportunity: what is through at the end of one does not wait for the next, which may be far."""


class Mahimahi(Link):
    """Every line of the trace is a time in ms at which the link takes 1500 bytes.

    Netravali et al., "Mahimahi: Accurate Record-and-Replay for HTTP", USENIX ATC 2015; man page mm-link(1).
    A line is repeated for more bytes in the same millisecond. The trace starts again at its end, its
    period being the last timestamp. An opportunity that finds nothing to send is lost. Here a message
    takes whole opportunities, ceil(size / 1500) of them, at or after its start; in mahimahi small packets
    may share one. Where the link is shared by processor sharing or under events, each opportunity is spread
    evenly over the millisecond before it.

    Args:
        trace: the file.
        delay_ms: one-way propagation.
        jitter_ms: by how much the delay varies around that; 0 for not at all.
        jitter: how it varies: normal, pareto-normal or uniform, as in netem.
        transport: none, or tcp for its slow start, idle restart and headers.
        rtt_ms: round trip of the acknowledgements under tcp; by default twice the delay.

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
    ) -> None:
        super().__init__(delay_ms=delay_ms, jitter_ms=jitter_ms, jitter=jitter, transport=transport, rtt_ms=rtt_ms)
        self.trace = trace
        self._times_ms = _times_ms(trace)
        self._lap_ms, self._per_lap = self._times_ms[-1], len(self._times_ms)
        self.mean_bps = 8000.0 * PACKET_BYTES * self._per_lap / self._lap_ms
        # Spread out, those at 0 have no room but before the end of a lap.
        self._spread_ms = sorted(time or self._lap_ms for time in self._times_ms)
        # Opportunities count from 0 over all laps.
        self._unused = 0

    def finish_s(self, start_s: float, size_bytes: float) -> float:
        """The time of the last opportunity taken."""
        if size_bytes <= 0:
            return start_s
        last = max(self._first_at(start_s), self._unused) + math.ceil(size_bytes / PACKET_BYTES) - 1
        self._unused = last + 1
        lap, number = divmod(last, self._per_lap)
        return max(start_s, (lap * self._lap_ms + self._times_ms[number]) / 1000.0)

    def _first_at(self, start_s: float) -> int:
        """The first opportunity at or after `start_s`."""
        # Opportunities lie on whole milliseconds; a start that rounding put just behind one is on it.
        tick = math.ceil(start_s * 1000.0 - NANOSECOND_MS)
        # The end of one lap is the start of the next, and belongs to the former, which may have lines there.
        lap = (tick - 1) // self._lap_ms
        return lap * self._per_lap + bisect_left(self._times_ms, tick - lap * self._lap_ms)

    def sent_bytes(self, start_s: float, end_s: float) -> float:
        """1500 per opportunity, those within a millisecond spread over it."""
        return (self._spread_by(end_s) - self._spread_by(start_s)) * PACKET_BYTES

    def _spread_by(self, time_s: float) -> float:
        lap, offset_ms = divmod(time_s * 1000.0, self._lap_ms)
        before, after = (bisect_right(self._spread_ms, int(offset_ms) + k) for k in (0, 1))
        return lap * self._per_lap + before + (after - before) * (offset_ms % 1.0)

    def fluid_s(self, start_s: float, size_bytes: float) -> float:
        """Not `finish_s`: takes parts of opportunities, and leaves no less to others."""
        if size_bytes <= 0:
            return start_s
        last = self._spread_by(start_s) + size_bytes / PACKET_BYTES
        if abs(last - round(last)) < ROUNDING:
            last = round(last)
        lap, number = divmod(last, self._per_lap)
        if not number:  # through with the last one of a lap
            lap, number = lap - 1, self._per_lap
        tick = self._spread_ms[math.ceil(number) - 1]
        before, after = bisect_left(self._spread_ms, tick), bisect_right(self._spread_ms, tick)
        offset_ms = tick - 1 + (number - before) / (after - before)
        return max(start_s, (lap * self._lap_ms + offset_ms) / 1000.0)

    def fork(self) -> Self:
        """Shares the trace, not the count of what was used."""
        return self._twin()


def _times_ms(path: Path) -> list[int]:
    points = read(path, EXPECTED, _time_ms)
    for (_, before), (line, time) in pairwise(points):
        if time < before:
            raise TraceError(f"{path}:{line}: {time} ms follows {before} ms; times must not decrease: sort the lines")
    if not points[-1][1]:
        raise TraceError(f"{path}: ends at 0 ms, which leaves no period; expected a last time above 0")
    return [time for _, time in points]


def _time_ms(line: str) -> int:
    if not (line.isascii() and line.isdigit() and len(line) <= DIGITS):
        raise ValueError(f"not a whole number of at most {DIGITS} digits")
    return int(line)
