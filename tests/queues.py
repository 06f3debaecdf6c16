"""A single-server queue in numpy: Lindley's recursion, for tests of what simulation output is worth."""

from __future__ import annotations

import numpy as np


def m_m_1(rng: np.random.Generator, requests: int, load: float) -> tuple[np.ndarray, np.ndarray]:
    """Arrival and departure times of M/M/1 with mean service 1, beginning empty."""
    arrival = np.cumsum(rng.exponential(1 / load, requests))
    service = rng.exponential(1.0, requests)
    worked = np.cumsum(service)
    return arrival, worked + np.maximum.accumulate(arrival - (worked - service))


def responses(rng: np.random.Generator, requests: int, load: float, warm_up: int) -> np.ndarray:
    """Response times of `requests` requests behind a warm-up."""
    arrival, done = m_m_1(rng, requests + warm_up, load)
    return (done - arrival)[warm_up:]
