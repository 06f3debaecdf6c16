"""A link under events: from time to time it carries less, or nothing."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from math import inf, prod
from typing import Self

import numpy as np

from splitexit.links import Link

Window = tuple[float, float, float]
"""From and until when (seconds; inf for ever), and the factor on the rate; 0 is an outage."""

ROUNDING = 1e-9
"""Relative; so much of a message that is through at the edge of an outage does not wait for its end."""


class Modulated(Link):
    """capacity(t) = capacity of the link (t) x product of the factors of the windows that hold at t.

    Delay, jitter and transport are the link's; `mean_bps` too, for nobody knows of the windows beforehand. What
    is not through by the start of an outage to the end never is: its times are inf.

    Args:
        link: what the events happen to; its function of time is used throughout (`Link.sent_bytes`).
        windows: in any order; they may overlap.

    Raises:
        InputError: the link's capacity is no function of time.
    """

    def __init__(self, link: Link, windows: Sequence[Window]) -> None:
        link.sent_bytes(0.0, 0.0)
        self.link, self.windows = link, windows
        self.delay_ms, self.jitter_ms, self.jitter = link.delay_ms, link.jitter_ms, link.jitter
        self.transport, self.rtt_ms, self.plain = link.transport, link.rtt_ms, link.plain
        self.delay_s, self.rtt_s, self.mean_bps = link.delay_s, link.rtt_s, link.mean_bps
        edges = {0.0} | {edge for start_s, end_s, _ in windows for edge in (start_s, end_s)}
        self._edges = sorted(edges - {inf})
        self._factors = [prod(f for a, b, f in windows if a <= edge < b) for edge in self._edges]
        self._edges.append(inf)

    def finish_s(self, start_s: float, size_bytes: float) -> float:
        """The earliest time at which the integral of the rate from the start is the size."""
        if not size_bytes:
            return start_s
        for from_s, until_s, factor in self._parts(start_s, inf):
            if not factor:
                continue
            whole_bytes = size_bytes / factor
            bytes_ = inf if until_s == inf else self.link.sent_bytes(from_s, until_s)
            if whole_bytes * (1.0 - ROUNDING) <= bytes_:
                return min(self.link.fluid_s(from_s, whole_bytes), until_s)
            size_bytes -= bytes_ * factor
        return inf

    def sent_bytes(self, start_s: float, end_s: float) -> float:
        """The integral of the rate."""
        parts = self._parts(start_s, end_s)
        return sum(factor * self.link.sent_bytes(from_s, until_s) for from_s, until_s, factor in parts if factor)

    def _parts(self, start_s: float, end_s: float) -> Iterator[Window]:
        """The time from start to end, cut where the factor changes."""
        first = max(0, bisect_right(self._edges, start_s, hi=len(self._factors)) - 1)
        for number in range(first, len(self._factors)):
            if number > first and self._edges[number] >= end_s:
                return
            edge, after = self._edges[number], self._edges[number + 1]
            yield max(start_s, edge), min(end_s, after), self._factors[number]

    def arrive_s(self, start_s: float, sent_s: float) -> float:
        """As the link says; never, if it was never sent."""
        return inf if sent_s == inf else self.link.arrive_s(start_s, sent_s)

    def reseed(self, rng: np.random.Generator) -> None:
        """The link's chance; the windows have none."""
        self.link.reseed(rng)

    def fork(self) -> Self:
        """Under the same windows."""
        link = self.link.fork()
        if link is self.link:
            return self
        twin = self._twin()
        twin.link = link
        return twin
