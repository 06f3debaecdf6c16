"""Has what is measured changed? Bayesian online change-point detection (Adams & MacKay, arXiv 0710.3742).

Measurements come in runs. Within a run they are Gaussian, their mean and variance unknown; with probability `hazard` a
new run begins after any of them. The posterior of the run length r, how many measurements the present run has, follows

    P(r + 1, x) ∝ P(r) p(x | run of r) (1 − hazard)        P(0, x) ∝ hazard Σ_r P(r) p(x | run of r)

where p(x | run of r) is Student's t: what a normal-inverse-gamma prior predicts after r measurements (Murphy, Conjugate
Bayesian analysis of the Gaussian distribution, 2007, section 3).
"""

from __future__ import annotations

from math import lgamma, log
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

LONGEST = 200
"""Run lengths are told apart up to here; a longer run counts as this long and slowly forgets."""

PROBABILITY, MEAN, SQUARES, KNOWN = range(4)
"""The rows of a state. For every run length: its probability, its mean, and half its sum of squared deviations with the
prior's. The last row begins with what is known of the present run, `SINCE`, `LEVEL` and `NOISE`."""

SINCE, LEVEL, NOISE = range(3)
"""Measurements since it began; its mean and standard deviation, when it was the most likely one last."""


class ChangeDetector:
    """Tells when measurements whose noise is roughly known have moved to another level.

    A run is taken to be the present one where runs shorter than `recent` have a probability above `sure` together, and
    it is the most likely of them, has at least `confirm` measurements and began after the present one. It is a change
    if its mean is off by more than `apart` standard errors. So a step is declared once, and an outlier, after which
    things are as they were, never. Meant for logarithms, in which 10 % of noise is the same at every level.

    Args:
        hazard: probability that a run ends after a measurement [inferred].
        noise: standard deviation of measurements within a run, as far as is known beforehand [inferred: 10 %].
        floor: what that is never taken to be below, however alike measurements were [inferred: half the 5 % by which
            an estimate must move in SPINN, MobiCom 2020, before anything is planned anew].
        reach: standard deviation of the levels of runs around the first one [inferred: a factor of ten].
        recent, sure, confirm, apart: see above [measured: see `benchmarks/changes.py`].

    A stream's state is an array that the caller keeps: `begin` makes it, `observe` carries it on in place.
    """

    def __init__(
        self,
        *,
        hazard: float = 0.01,
        noise: float = 0.1,
        floor: float = 0.025,
        reach: float = log(10.0),
        recent: int = 20,
        sure: float = 0.9995,
        confirm: int = 2,
        apart: float = 3.0,
    ) -> None:
        self.hazard, self.noise, self.floor, self.reach = hazard, noise, floor, reach
        self.recent, self.sure, self.confirm, self.apart = recent, sure, confirm, apart
        lengths = np.arange(LONGEST + 1)
        self._weight = (noise / reach) ** 2 + lengths
        self._shape = 2.0 + lengths / 2.0  # 2: the variance of the first prediction is finite
        self._widening = (self._weight + 1.0) / self._weight
        self._least = self._shape * floor**2
        self._constant = np.array([lgamma(a + 0.5) - lgamma(a) for a in self._shape])

    def begin(self, level: float, length: int = 20) -> Array:
        """The state, (4, LONGEST + 1), as after `length` measurements of the expected noise around `level`.

        So a first level that proves wrong is a change like any other.
        """
        state = np.zeros((4, LONGEST + 1))
        state[PROBABILITY, [0, length]] = self.hazard, 1.0 - self.hazard
        state[MEAN] = level
        state[SQUARES] = self._shape * self.noise**2
        state[KNOWN, [SINCE, LEVEL, NOISE]] = length, level, self.noise
        return state

    def observe(self, state: Array, value: float) -> bool:
        """One more measurement, finite; whether a change is declared with it."""
        probability, mean, squares, _ = state
        joint = probability * self._predicted(value - mean, squares)
        grown = self._grown(state, value)
        grown[PROBABILITY, 1:] = joint[:-1]
        grown[PROBABILITY, -1] += joint[-1]
        grown[PROBABILITY] *= 1.0 - self.hazard
        grown[PROBABILITY, 0] = self.hazard * joint.sum()
        grown[PROBABILITY] /= grown[PROBABILITY].sum()
        grown[KNOWN, SINCE] += 1.0
        state[:] = grown
        return self._declare(state)

    def level(self, state: Array) -> float:
        """The mean of the present run."""
        return float(state[KNOWN, LEVEL])

    def _predicted(self, off: Array, squares: Array) -> Array:
        """Student's t densities, but for a common factor; (LONGEST + 1,)."""
        spread = 2.0 * self._widening * np.maximum(squares, self._least)
        density: Array = np.exp(self._constant - 0.5 * np.log(spread) - (self._shape + 0.5) * np.log1p(off**2 / spread))
        return density

    def _grown(self, state: Array, value: float) -> Array:
        """Every run with one measurement more; of the two that are then the longest, what the likelier one knows."""
        _, mean, squares, _ = state
        off, grown = value - mean, state.copy()
        more, wider = mean + off / (self._weight + 1.0), squares + 0.5 * off**2 / self._widening
        grown[MEAN, 1:], grown[SQUARES, 1:] = more[:-1], wider[:-1]
        if state[PROBABILITY, -1] > state[PROBABILITY, -2]:
            grown[MEAN, -1], grown[SQUARES, -1] = more[-1], wider[-1] * self._shape[-1] / (self._shape[-1] + 0.5)
        return grown

    def _declare(self, state: Array) -> bool:
        since, level, noise = state[KNOWN, :3].tolist()
        likeliest = int(state[PROBABILITY].argmax())
        if likeliest >= min(since, LONGEST) - 1:  # when exactly a run began may remain open
            self._learn(state, likeliest)
            return False
        recent = state[PROBABILITY, : self.recent]
        length = int(recent.argmax())
        if recent.sum() <= self.sure or not self.confirm <= length < since:
            return False
        state[KNOWN, SINCE] = length
        self._learn(state, length)
        return bool(abs(state[KNOWN, LEVEL] - level) > self.apart * noise / length**0.5)

    def _learn(self, state: Array, length: int) -> None:
        """The present run is of about this length."""
        state[KNOWN, LEVEL] = state[MEAN, length]
        state[KNOWN, NOISE] = max(self.floor, (state[SQUARES, length] / self._shape[length]) ** 0.5)
