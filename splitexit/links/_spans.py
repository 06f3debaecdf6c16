"""A rate that changes by steps at random times, integrated exactly."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import fsum
from typing import Any

import numpy as np

from splitexit.links._chance import Blocks

Floats = np.ndarray[Any, np.dtype[np.float64]]
Draw = Callable[[np.random.Generator, int], tuple[Floats, Floats]]
"""(generator, number of the block) -> length in seconds and bytes per second of every span of the block."""


@dataclass(frozen=True, slots=True)
class _Block:
    """Consecutive spans; `edges_s` and `sent_bytes` (by each edge) count from the start of the block."""

    edges_s: list[float]
    sent_bytes: list[float]
    rates: list[float]

    def sent_by(self, time_s: float) -> float:
        """Bytes that can go through up to then."""
        # Rounding can put the time on the far edge of the block.
        span = min(bisect_right(self.edges_s, time_s) - 1, len(self.rates) - 1)
        return self.sent_bytes[span] + (time_s - self.edges_s[span]) * self.rates[span]

    def when_sent(self, size_bytes: float) -> float:
        """The earliest time by which so many have (more than 0, at most all of the block)."""
        span = max(bisect_left(self.sent_bytes, size_bytes) - 1, 0)
        return self.edges_s[span] + (size_bytes - self.sent_bytes[span]) / self.rates[span]


class Spans:
    """An endless row of spans, pure: drawn block by block from one seed; where blocks start and their sums are kept.

    Args:
        rng: gives the seed.
        draw: the spans of a block, which depend on nothing but its arguments.
    """

    def __init__(self, rng: np.random.Generator, draw: Draw) -> None:
        self._starts_s, self._totals = [0.0], list[float]()
        self._blocks = Blocks(rng, partial(_drawn, draw))  # travels between processes, as a lambda would not

    def finish_s(self, start_s: float, size_bytes: float) -> float:
        """The earliest time at which the integral of the rate from the start is the size."""
        if not size_bytes:
            return start_s
        number = self._number_at(start_s)
        block = self._blocks[number]
        target = block.sent_by(start_s - self._starts_s[number]) + size_bytes
        while target > block.sent_bytes[-1]:
            target -= block.sent_bytes[-1]
            number += 1
            self._reach(number)
            block = self._blocks[number]
        return max(start_s, self._starts_s[number] + block.when_sent(target))

    def sent_bytes(self, start_s: float, end_s: float) -> float:
        """The integral of the rate."""
        first, last = self._number_at(start_s), self._number_at(end_s)
        sent = self._blocks[first].sent_by(start_s - self._starts_s[first])
        return fsum(self._totals[first:last]) - sent + self._blocks[last].sent_by(end_s - self._starts_s[last])

    def _number_at(self, time_s: float) -> int:
        while time_s >= self._starts_s[-1]:
            self._reach(len(self._starts_s))
        return bisect_right(self._starts_s, time_s) - 1

    def _reach(self, number: int) -> None:
        """Learns where the block starts; the ones before it are known."""
        if number == len(self._starts_s):
            before = self._blocks[number - 1]
            self._starts_s.append(self._starts_s[-1] + before.edges_s[-1])
            self._totals.append(before.sent_bytes[-1])


def _drawn(draw: Draw, rng: np.random.Generator, number: int) -> _Block:
    lengths_s, rates = draw(rng, number)
    edges, sent = (np.concatenate(([0.0], np.cumsum(part))).tolist() for part in (lengths_s, lengths_s * rates))
    return _Block(edges, sent, rates.tolist())
