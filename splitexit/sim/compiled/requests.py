"""The requests of one device, stretch by stretch, from the streams that Experiment.workload draws from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from splitexit.arrivals import Arrivals, Intensity, Periodic, Poisson
from splitexit.sim.compiled.jit import SOURCES, entry
from splitexit.sim.compiled.layout import Array
from splitexit.streams import ARRIVALS, SAMPLES, stream


class Positions:
    """Positions in the recording's test part, round after round, in stretches of any length."""

    def __init__(self, pool: Array, seed: int, device: int) -> None:
        self._pool, self._rng = pool, stream(seed, SAMPLES, device)
        # The rest of a round is kept by every device: as small as it can be.
        self._type = np.min_scalar_type(int(pool.max()))
        self._rest = np.empty(0, self._type)

    def take(self, count: int) -> Array:
        """The next `count`."""
        rounds = max(0, -(-(count - len(self._rest)) // len(self._pool)))
        more = np.tile(self._pool, (rounds, 1))
        self._rng.permuted(more, axis=1, out=more)  # draws what a permutation of each would
        joined = np.concatenate([self._rest, more.ravel()])
        self._rest = joined[count:].astype(self._type)
        return joined[:count]


class Arriving:
    """Arrival times of an open process in stretches of any length, `total` of them.

    Args:
        arrivals: the process.
        intensity: what events make of it; None for nothing.
    """

    def __init__(self, arrivals: Arrivals, intensity: Intensity | None, seed: int, device: int, total: int) -> None:
        self._arrivals, self._intensity = arrivals, intensity
        self._rng = stream(seed, ARRIVALS, device)
        self._total, self._taken, self._last_s = total, 0, 0.0
        self._all: Array | None = None

    def take(self, count: int) -> Array:
        """The next `count`; fewer where events leave no time for the rest."""
        times_s = self._unwarped(count)
        self._taken += count
        return times_s if self._intensity is None else self._intensity.warp(times_s)

    def _unwarped(self, count: int) -> Array:
        kind = type(self._arrivals)
        if kind is Periodic:
            return np.asarray(np.arange(self._taken, self._taken + count) / self._arrivals.rate_hz)  # type: ignore[attr-defined]
        if kind is Poisson:
            return self._poisson(count)
        if self._all is None:
            self._all = self._arrivals.times_s(self._total, self._rng)
        return self._all[self._taken : self._taken + count]

    def _poisson(self, count: int) -> Array:
        times_s = self._rng.standard_exponential(count)
        self._last_s = add_up(times_s, 1.0 / self._arrivals.rate_hz, self._last_s)  # type: ignore[attr-defined]
        return times_s


def _build(sources: int) -> Callable[[Array, float, float], float]:
    @entry
    def add_up(gaps_s: Array, scale: float, last_s: float) -> float:
        for number in range(len(gaps_s) if sources else 0):
            last_s += gaps_s[number] * scale
            gaps_s[number] = last_s
        return last_s

    return add_up


add_up = _build(SOURCES)
"""add_up(gaps_s, scale, last_s): makes scaled gaps the times after `last_s`, in place; returns the last one.

What numpy.cumsum does, to the bit, in a third of the time.
"""
