"""A one-way delay that changes at random.

The delay is a function of time alone, so that the same link asked twice, a fork of it, and a proxy that
cuts a message into pieces all meet the same one; that nothing overtakes is up to the discipline.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal, get_args

import numpy as np

from splitexit.errors import InputError
from splitexit.links._chance import BLOCK, Blocks

Distribution = Literal["normal", "pareto-normal", "uniform"]

HOLD_S = 0.010
"""How long a delay stays: a radio frame of LTE and 5G (3GPP TS 36.211 and TS 38.211, section 4)."""

WIDEST = 4.0
"""netem's tables are 16-bit numbers in units of 1/8192 of the spread, so none is more than 4 spreads off."""

PARETO_SHAPE = 3.0


class Jitter:
    """delay(t) = max(0, delay + spread x), x drawn anew every 10 ms.

    Distributions of x, as in netem (tc-netem(8); iproute2, netem/normal.c, paretonormal.c, sch_netem.c):

    normal         N(0, 1)
    pareto-normal  with u uniform in (0, 1]: 1/4 Φ⁻¹(1 - u) + 3/4 · 4/3 (u^(-1/3) - 3/2), long to the right
    uniform        in [-1, 1]

    with each part cut at 4 in size. Means are 0, but for the cut: pareto-normal -0.025.

    Args:
        delay_s: the delay around which it varies.
        spread_s: netem's JITTER.
        distribution: of x.
        rng: gives the seed.
    """

    def __init__(self, delay_s: float, spread_s: float, distribution: Distribution, rng: np.random.Generator) -> None:
        if distribution not in get_args(Distribution):
            raise InputError(f"jitter {distribution!r}: expected one of {', '.join(get_args(Distribution))}")
        self._delay_s, self._spread_s, self._distribution = delay_s, spread_s, distribution
        self._reach = math.ceil(2 * WIDEST * spread_s / HOLD_S)
        self._delays = Blocks(rng, self._draw)

    def _draw(self, rng: np.random.Generator, number: int) -> list[float]:
        delays: list[float] = np.maximum(0.0, self._delay_s + self._spread_s * _shape(self._distribution, rng)).tolist()
        return delays

    def arrive_s(self, start_s: float, sent_s: float) -> float:
        """When a message is complete at the far end whose bytes were sent from `start_s` to `sent_s`.

        Its last byte waits for those before it: the maximum of t + delay(t) over that time.
        """
        last = int(sent_s / HOLD_S)
        arrive_s = sent_s + self._at(last)
        for frame in range(max(int(start_s / HOLD_S), last - self._reach), last):
            arrive_s = max(arrive_s, (frame + 1) * HOLD_S + self._at(frame))
        return arrive_s

    def _at(self, frame: int) -> float:
        return self._delays[frame // BLOCK][frame % BLOCK]


def _shape(distribution: Distribution, rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """A block of x."""
    if distribution == "normal":
        return np.clip(rng.standard_normal(BLOCK), -WIDEST, WIDEST)
    if distribution == "uniform":
        return rng.uniform(-1.0, 1.0, BLOCK)
    return np.array([_pareto_normal(1.0 - one) for one in rng.random(BLOCK).tolist()])


def _pareto_normal(u: float) -> float:
    """x at u in (0, 1], one quantile of both parts."""
    normal = NormalDist().inv_cdf(1.0 - u) if u < 1.0 else -WIDEST
    pareto = (math.pow(u, -1.0 / PARETO_SHAPE) - 1.5) * 4.0 / 3.0
    return 0.25 * min(max(normal, -WIDEST), WIDEST) + 0.75 * min(pareto, WIDEST)
