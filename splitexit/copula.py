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
"""The strongest dependence that is kept: at 1 all parts would be one."""


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

        Both come from the mean of the parts' normal scores (of ranks, so that no outlier counts for more than its
        rank), weighted by the parts' spread, because what matters is the spread of their sum. With weights v that
        add up to 1 and V = Σ v², the model gives that mean the variance V + ρ (1 − V) and the autocovariance ρ φ.
        What lies within two standard errors of none is none.
        """
        seconds = np.array(parts, dtype=float)
        spread = np.subtract(*np.quantile(seconds, (0.84, 0.16), axis=1)) if seconds.size else np.zeros(0)
        if not spread.sum():
            return cls()
        weights = spread / spread.sum()
        own, requests = float((weights**2).sum()), seconds.shape[1]
        if own > MOST:
            return cls()  # one part is all there is
        mean = weights @ _scores(seconds)
        within = (float(mean.var()) - own) / (1.0 - own)
        if within < 2.0 * math.sqrt(2.0 / requests) * own / (1.0 - own):
            return cls()
        centred = mean - mean.mean()
        after = float((centred[1:] * centred[:-1]).mean())
        certain = after > 2.0 / math.sqrt(requests) * float(mean.var())
        return cls(_kept(within), _kept(after / within) if certain else 0.0)


def _kept(value: float) -> float:
    return float(f"{min(value, MOST):.4g}")


def _scores(seconds: Array) -> Array:
    """Normal scores of each row's ranks; equal values are ranked in their order."""
    from scipy.special import ndtri

    ranks = seconds.argsort(axis=1, kind="stable").argsort(axis=1)
    return np.asarray(ndtri((ranks + 0.5) / seconds.shape[1]))


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
