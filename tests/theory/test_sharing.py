"""Processor sharing against the closed forms of M/G/1-PS, within the 99.9 % interval.

Mean response E[S] / (1 - ρ) whatever the distribution of the service S, and of a message of service x, x / (1 - ρ)
(Kleinrock, Queueing Systems II, 1976, section 4.4). Intervals come from independent runs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import stdtrit

from splitexit.links.constant import Constant
from splitexit.links.sharing import Sharing

RUNS, MESSAGES, WARM_UP = 12, 12_000, 1_000
LOADS = [0.3, 0.6, 0.8]
MEAN_BYTES = 1000.0
RATE = 1e6
"""Bytes per second."""

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
SIZES: dict[str, Callable[[np.random.Generator], Floats]] = {
    "deterministic": lambda rng: np.full(MESSAGES, 1.0),
    "exponential": lambda rng: rng.exponential(size=MESSAGES),
    "two sizes": lambda rng: np.where(rng.random(MESSAGES) < 0.9, 0.5, 5.5),
}
"""In units of the mean; the coefficients of variation are 0, 1 and 1.5."""


def run(load: float, sizes: str, seed: int) -> tuple[Floats, Floats]:
    """Service times alone on the link, and response times, of one run after its warm-up."""
    rng = np.random.default_rng([seed, int(10 * load)])
    size_bytes = SIZES[sizes](rng) * MEAN_BYTES
    arrivals_s = np.cumsum(rng.exponential(MEAN_BYTES / RATE / load, MESSAGES))
    sharing, response_s = Sharing(Constant(mbps=8 * RATE / 1e6)), np.empty(MESSAGES)
    for number in range(MESSAGES + 1):
        now_s = float(arrivals_s[number]) if number < MESSAGES else np.inf
        while sharing.next_s() <= now_s and sharing.next_s() < np.inf:
            one = sharing.take()
            response_s[one.key] = one.sent_s - one.start_s
        if number < MESSAGES:
            sharing.offer(now_s, float(size_bytes[number]), number)
    return size_bytes[WARM_UP:] / RATE, response_s[WARM_UP:]


def assert_within(means: list[float], expected: float) -> None:
    """The mean of the runs' means, by Student's t."""
    half = stdtrit(RUNS - 1, 0.9995) * np.std(means, ddof=1) / np.sqrt(RUNS)
    assert abs(np.mean(means) - expected) <= half, (np.mean(means), expected, half)
    assert half < 0.25 * expected, "the interval is too wide to test anything"


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("sizes", SIZES)
def test_mean_response_depends_on_the_load_alone(sizes: str, load: float) -> None:
    """E[S] / (1 - ρ)."""
    means = [run(load, sizes, seed)[1].mean() for seed in range(RUNS)]
    assert_within(means, MEAN_BYTES / RATE / (1 - load))


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("sizes", ["exponential", "two sizes"])
def test_everyone_is_slowed_down_alike(sizes: str, load: float) -> None:
    """Small and large messages take 1 / (1 - ρ) times as long as alone."""
    runs = [run(load, sizes, seed) for seed in range(RUNS)]
    for small in (True, False):
        chosen = [(service < MEAN_BYTES / RATE) == small for service, _ in runs]
        slowdowns = [r[c].sum() / s[c].sum() for (s, r), c in zip(runs, chosen, strict=True)]
        assert_within(slowdowns, 1 / (1 - load))
