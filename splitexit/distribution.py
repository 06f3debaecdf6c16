"""Measured seconds as a distribution: drawn from, scaled, averaged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Distribution:
    """Seconds, as quantiles at equally spaced probabilities 0, 1/(n−1), …, 1; linear in between."""

    quantiles: tuple[float, ...]

    @classmethod
    def measured(cls, seconds: Sequence[float], points: int = 101) -> Distribution:
        """The empirical distribution of `seconds`, kept as `points` quantiles: by default every percentile.

        The last one is not the largest time, which of some hundred is chance, and to which a straight line would
        lead: it is put where the mean is that of `seconds`, or as close to that as an ascending line allows.
        """
        quantiles = np.quantile(seconds, np.linspace(0.0, 1.0, points)).tolist()
        if quantiles[0] < quantiles[-1]:
            before = math.fsum(quantiles[:-1]) - quantiles[0] / 2
            quantiles[-1] = max(quantiles[-2], 2.0 * ((points - 1) * float(np.mean(seconds)) - before))
        return cls(tuple(quantiles))

    @classmethod
    def constant(cls, seconds: float) -> Distribution:
        """Always the same time."""
        return cls((seconds, seconds))

    @cached_property
    def mean(self) -> float:
        """Mean of the piecewise linear quantile function."""
        q = self.quantiles
        return (sum(q) - (q[0] + q[-1]) / 2) / (len(q) - 1)

    @cached_property
    def variance(self) -> float:
        """Variance of the piecewise linear quantile function, in s²."""
        q = self.quantiles
        square = sum(a * a + a * b + b * b for a, b in pairwise(q)) / (3 * (len(q) - 1))
        return max(0.0, square - self.mean**2)

    @property
    def median(self) -> float:
        """Quantile at one half."""
        return self.at(0.5)

    def at(self, u: float) -> float:
        """Quantile at probability u in [0, 1]."""
        q = self.quantiles
        last = len(q) - 1
        position = u * last
        low = int(position)
        if low == last:
            return q[low]
        below = q[low]
        return below + (q[low + 1] - below) * (position - low)

    def many(self, u: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """`at` for an array."""
        return np.asarray(np.interp(u, *self._line))

    @cached_property
    def _line(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Probabilities and their quantiles."""
        return np.linspace(0.0, 1.0, len(self.quantiles)), np.array(self.quantiles)

    def scaled(self, factor: float) -> Distribution:
        """Every time multiplied by `factor`."""
        return Distribution(tuple(q * factor for q in self.quantiles))
