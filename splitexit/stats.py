"""What simulation output says, and how surely: intervals, moments, stopping, and whether a queue grows.

Sources:
    Law, Simulation Modeling and Analysis, 5th ed., 2015: replications (9.4.1), batch means (9.5.3), stopping (9.4.1).
    Welford, Technometrics 4 (1962) 419; Chan, Golub & LeVeque, The American Statistician 37 (1983) 242: moments.
    Schmeiser, Operations Research 30 (1982) 556: 10 to 30 batches are enough.
    Fishman, Management Science 24 (1978) 510; von Neumann, Ann. Math. Stat. 12 (1941) 367: are batches independent?
    Tafazzoli, Wilson, Lada & Steiger, INFORMS J. Computing 23 (2011) 297 (Skart), after Steiger & Wilson, Management
    Science 48 (2002) 1569 (ASAP): what correlation is left between batch means widens the interval.
    Asmussen & Glynn, Stochastic Simulation, 2007, III.5: sectioning, for quantiles of one run.
    Wilson, JASA 22 (1927) 209: shares that no replication disagrees on.
    Welch, in Lavenberg (ed.), Computer Performance Modeling Handbook, 1983: averaging over replications by time.
    Santer et al., J. Geophysical Research 105 (2000) 7337: a trend among correlated values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Statistic = Callable[[Array], float]

CONFIDENCE = 0.95
BATCHES, FEWEST_BATCHES = 32, 8
INDEPENDENT = 0.1
"""Batch means are taken as independent unless von Neumann's test refuses it at this level (Skart and ASAP use 0.2
and 0.1)."""

FEWEST_REPLICATIONS = 10
"""Replications before a sequential procedure may stop (Law, 9.4.1)."""


class Interval(NamedTuple):
    """An estimate and its confidence interval; low and high are NaN where nothing can be said."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half its width."""
        return (self.high - self.low) / 2

    @property
    def relative(self) -> float:
        """Half its width relative to the estimate; NaN where that is unknown."""
        if self.half == 0:
            return 0.0
        return self.half / abs(self.mean) if self.mean else math.inf


def student(values: Sequence[float] | Array, confidence: float = CONFIDENCE) -> Interval:
    """Mean of independent values with Student's t interval."""
    array = np.asarray(values, dtype=float)
    return _around(float(array.mean()), array, confidence)


def paired(values: Sequence[float], others: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Mean of values − others, of pairs that share their random numbers (Law, 10.2.1)."""
    return student(np.asarray(values, dtype=float) - np.asarray(others, dtype=float), confidence)


def share(shares: Sequence[float], trials: int, confidence: float = CONFIDENCE) -> Interval:
    """Mean of shares over replications; where they do not differ at all, Wilson's interval of `trials` altogether."""
    return within_shares(student(shares, confidence), trials, confidence)


def within_shares(found: Interval, trials: int, confidence: float) -> Interval:
    """A share's interval ends at 0 and 1; one without width becomes Wilson's."""
    if found.half == 0:
        return wilson(found.mean, trials, confidence)
    # A comparison with NaN is false, so that unknown limits stay unknown.
    return Interval(found.mean, 0.0 if found.low < 0.0 else found.low, 1.0 if found.high > 1.0 else found.high)


def wilson(portion: float, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a share among independent trials."""
    from scipy.special import ndtri

    z = float(ndtri(0.5 + confidence / 2))
    scale = 1 + z * z / trials
    centre = (portion + z * z / (2 * trials)) / scale
    half = z * math.sqrt(portion * (1 - portion) / trials + (z / (2 * trials)) ** 2) / scale
    return Interval(portion, min(portion, max(0.0, centre - half)), max(portion, min(1.0, centre + half)))


def _around(estimate: float, values: Array, confidence: float, inflation: float = 1.0) -> Interval:
    """Student's interval about `estimate` with the spread of `values` about it, its variance times `inflation`."""
    from scipy.special import stdtrit

    n = len(values)
    if n < 2:
        return Interval(estimate, math.nan, math.nan)
    variance = float(((values - estimate) ** 2).sum()) / (n - 1)
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * math.sqrt(variance * inflation / n)
    return Interval(estimate, estimate - half, estimate + half)


@dataclass(frozen=True)
class BatchMeans:
    """The interval of one long run.

    lag1            correlation of neighbouring batch means
    independent     von Neumann's test does not refuse it; where False, the run is too short for its correlation
    """

    interval: Interval
    batches: int
    size: int
    lag1: float
    independent: bool


def batch_means(values: Array, confidence: float = CONFIDENCE, statistic: Statistic | None = None) -> BatchMeans | None:
    """Interval of the mean (or another statistic) of one stationary, correlated series in the order of time.

    The fewest observations per batch are taken with which the batch means pass for independent, so 32 to 8
    batches. Correlation that is left widens the variance by (1 + r) / (1 − r), as Skart does. A statistic of the
    whole series stands in the middle, its spread is that of batches about it (sectioning; 16 to 8 batches, because
    a quantile of few values is biased).

    Returns:
        None where there are fewer than two values for each of 8 batches.
    """
    batches = BATCHES if statistic is None else BATCHES // 2
    while batches >= FEWEST_BATCHES:
        found = _batched(values, batches, confidence, statistic)
        if found is not None and found.independent:
            return found
        batches //= 2
    return found


def _batched(values: Array, batches: int, confidence: float, statistic: Statistic | None) -> BatchMeans | None:
    size = len(values) // batches
    if size < 2:
        return None
    # The run's beginning gives way where the values do not divide evenly.
    blocks = values[len(values) - size * batches :].reshape(batches, size)
    found = blocks.mean(axis=1) if statistic is None else np.array([statistic(block) for block in blocks])
    lag1, independent = _neighbours(found)
    inflation = (1 + lag1) / (1 - lag1) if 0 < lag1 < 1 else 1.0
    estimate = float(values.mean()) if statistic is None else statistic(values)
    return BatchMeans(_around(estimate, found, confidence, inflation), batches, size, lag1, independent)


def _neighbours(means: Array) -> tuple[float, bool]:
    """Correlation of neighbours by von Neumann's ratio, and whether it may be none (one-sided test)."""
    from scipy.special import ndtr

    spread = float(((means - means.mean()) ** 2).sum())
    if spread == 0:
        return 0.0, True
    n = len(means)
    ratio = 1 - float((np.diff(means) ** 2).sum()) / (2 * spread)
    significance = 1 - float(ndtr(ratio / math.sqrt((n - 2) / (n * n - 1))))
    ends = ((means[0] - means.mean()) ** 2 + (means[-1] - means.mean()) ** 2) / (2 * spread)
    return min(0.99, max(-0.99, ratio - float(ends))), significance >= INDEPENDENT


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of values that need not be kept; parts merge exactly."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: Array) -> Moments:
        """Of an array."""
        if not len(values):
            return cls()
        mean = float(values.mean())
        return cls(len(values), mean, float(((values - mean) ** 2).sum()))

    def add(self, value: float) -> Moments:
        """With one more value."""
        count, step = self.count + 1, value - self.mean
        mean = self.mean + step / count
        return Moments(count, mean, self.squares + step * (value - mean))

    def merge(self, other: Moments) -> Moments:
        """Of both parts together."""
        if not (count := self.count + other.count):
            return self
        step = other.mean - self.mean
        mean = self.mean + step * other.count / count
        return Moments(count, mean, self.squares + other.squares + step**2 * self.count * other.count / count)

    @property
    def variance(self) -> float:
        """Sample variance; NaN of fewer than two values."""
        return self.squares / (self.count - 1) if self.count > 1 else math.nan


def precise(interval: Interval, precision: float, replications: int) -> bool:
    """Whether replications may end: the estimate is within `precision` of the truth, relative to it, at its confidence.

    The half width may be precision / (1 + precision) of the estimate, which is less than of the truth (Law, 9.4.1).
    """
    return replications >= FEWEST_REPLICATIONS and interval.relative <= precision / (1 + precision)
