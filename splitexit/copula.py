"""Uniform numbers that depend on one another as the parts of requests do: slow together, and slow for a while.

A Gaussian copula over an autoregressive factor, as in M. C. Cario and B. L. Nelson, "Autoregressive to anything:
time-series input processes for simulation", Operations Research Letters 19 (1996): with independent standard normal
e and w,

    z_t   = φ · z_{t−1} + √(1 − φ²) · e_t           one factor for request t, in its stationary law from the start
    x_t,k = √ρ · z_t + √(1 − ρ) · w_t,k              part k of request t
    u_t,k = Φ(x_t,k)

so every u is uniform, whatever ρ and φ are, and a part drawn as its quantile at u keeps the distribution that was
measured. Two parts of one request have normal scores of correlation ρ, those of requests that follow one another ρ·φ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

MOST = 0.999
"""The strongest correlation that is kept: at 1 all parts would be one."""

LONGEST = 0.95
"""The strongest autocorrelation that is kept: of a memory of more than some twenty requests, the few hundred that a
calibration takes can say nothing."""


@dataclass(frozen=True)
class Dependence:
    """How the times of parts depend on one another.

    within   ρ, in [0, 1): correlation among the parts of one request
    lag1     φ, in [0, 1): autocorrelation of what they share, from one request to the next
    """

    within: float = 0.0
    lag1: float = 0.0

    def __post_init__(self) -> None:
        if not (0.0 <= self.within < 1.0 and 0.0 <= self.lag1 < 1.0):
            raise ValueError(f"dependence must lie in [0, 1), found within {self.within}, lag1 {self.lag1}")

    @classmethod
    def measured(cls, parts: Sequence[Sequence[float]]) -> Dependence:
        """Fits ρ and φ to seconds: one sequence for every part, over the same requests in their order.

        ρ is such that the sum of all parts deviates as it was measured to: the correlation of ranks would say too much
        of that where slow phases are shared and interruptions are not. φ is such that the normal scores of the sums
        have the autocorrelation that was measured. Outliers do not count: sums are clipped to their 2.5 % and 97.5 %
        quantiles. What lies within two standard errors of none is none.
        """
        seconds = np.array(parts, dtype=float)
        if seconds.size == 0 or len(seconds) < 2:
            return cls()
        sums, model = seconds.sum(axis=0), _Model(seconds)
        if _spread(sums) <= (1.0 + 2.0 * _spread_error(sums)) * _spread(model.sums(0.0)):
            return cls()
        within = model.within(_spread(sums))
        scores = _scores(sums)
        after = float(np.mean(scores[1:] * scores[:-1]) / scores.var())
        certain = after > 2.0 / math.sqrt(sums.size)
        return cls(_kept(within, MOST), _kept(after / model.shared(within), LONGEST) if certain else 0.0)


class _Model:
    """Sums of parts that depend on one factor, each part with the times that were measured of it.

    Args:
        seconds: (parts, requests).
    """

    DRAWS, STEPS = 8000, 20

    def __init__(self, seconds: Array) -> None:
        rng = np.random.default_rng(0)
        self._sorted = np.sort(seconds, axis=1)
        self._factor, self._own = rng.standard_normal(self.DRAWS), rng.standard_normal((len(seconds), self.DRAWS))

    def sums(self, rho: float) -> Array:
        """(DRAWS,) with this correlation within."""
        from scipy.special import ndtr

        u = ndtr(math.sqrt(rho) * self._factor + math.sqrt(1.0 - rho) * self._own)
        at = np.linspace(0.0, 1.0, self._sorted.shape[1])
        parts = [np.interp(column, at, known) for column, known in zip(u, self._sorted, strict=True)]
        return np.asarray(np.sum(parts, axis=0))

    def within(self, spread_s: float) -> float:
        """The correlation under which sums spread so: they spread the more, the larger it is."""
        low, high = 0.0, MOST
        for _ in range(self.STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if _spread(self.sums(middle)) < spread_s else (low, middle)
        return high

    def shared(self, rho: float) -> float:
        """The part of the variance of the sums' normal scores that comes of the factor."""
        return float(np.corrcoef(self._factor, _scores(self.sums(rho)))[0, 1]) ** 2


def _clipped(values: Array) -> Array:
    return np.asarray(np.clip(values, *np.quantile(values, (0.025, 0.975))))


def _spread(values: Array) -> float:
    return float(_clipped(values).std())


def _spread_error(values: Array) -> float:
    """Relative standard error of `_spread`, from the fourth moment."""
    clipped = _clipped(values)
    if not (variance := float(clipped.var())):
        return 0.0
    kurtosis = float(((clipped - clipped.mean()) ** 4).mean()) / variance**2
    return math.sqrt(max(kurtosis - 1.0, 0.0) / (4 * values.size))


def _kept(value: float, most: float) -> float:
    return float(f"{min(value, most):.4g}")


def _scores(values: Array) -> Array:
    """Normal scores of ranks; equal values are ranked in their order."""
    from scipy.special import ndtri

    ranks = values.argsort(kind="stable").argsort()
    return np.asarray(ndtri((ranks + 0.5) / values.size))


class Uniforms:
    """The uniform numbers of one block of requests, row by row: the same whether taken at once or a few at a time.

    Args:
        dependence: without any, the numbers are those of the generator as it gives them.
        width: numbers for a request.
        alone: how many of them, at the end, depend on nothing.
        rng: of the block.
    """

    def __init__(self, dependence: Dependence, width: int, alone: int, rng: np.random.Generator) -> None:
        self._dependence, self._width, self._alone, self._rng = dependence, width, alone, rng
        self._factor = math.nan

    def take(self, requests: int) -> Array:
        """(requests, width) for the next ones."""
        if not self._dependence.within:
            return self._rng.random((requests, self._width))
        from scipy.special import ndtr

        rho, linked = self._dependence.within, self._width - self._alone
        normal = self._rng.standard_normal((requests, self._width + 1))
        factor = np.array(self._factors(normal[:, -1].tolist()))
        own = normal[:, :-1]
        own[:, :linked] *= math.sqrt(1.0 - rho)
        own[:, :linked] += math.sqrt(rho) * factor[:, None]
        return np.asarray(ndtr(own))

    def _factors(self, shocks: Sequence[float]) -> list[float]:
        """The factor of the next requests; the first of a block has the stationary law."""
        phi, factors, now = self._dependence.lag1, list[float](), self._factor
        rest = math.sqrt(1.0 - phi * phi)
        for shock in shocks:
            now = shock if math.isnan(now) else phi * now + rest * shock
            factors.append(now)
        self._factor = now
        return factors
