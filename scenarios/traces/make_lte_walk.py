"""Writes `lte_walk.up`, a made-up LTE uplink in mahimahi's format: python make_lte_walk.py > lte_walk.up

The logarithm of the rate is a first-order autoregressive process around log 5.85 Mbit/s (the 4G uplink of
Eshratifar et al., "BottleNet", ISLPED 2019), drawn every 100 ms; spread and memory are chosen, not fitted,
so that the second-to-second swing is like that of the public LTE drives: a factor of two either way.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

SEED, SECONDS, MEDIAN_MBPS = 1, 20, 5.85
STEP_MS, MEMORY_S, SPREAD = 100, 2.0, 0.7
PACKET_BITS = 1500 * 8


def rates_mbps() -> Iterator[float]:
    """One rate per step. Normal numbers as sums of twelve uniform ones, which no Python version changes."""
    uniform = random.Random(SEED).random
    keep = math.exp(-STEP_MS / 1000.0 / MEMORY_S)
    log_swing = 0.0
    for _ in range(SECONDS * 1000 // STEP_MS):
        normal = sum(uniform() for _ in range(12)) - 6.0
        log_swing = keep * log_swing + math.sqrt(1.0 - keep * keep) * SPREAD * normal
        yield MEDIAN_MBPS * math.exp(log_swing)


def opportunities_ms() -> Iterator[int]:
    """The time of every 1500 bytes that the rate makes room for, and one at the very end: the period."""
    bits, now_ms = 0.0, 0
    for rate in rates_mbps():
        for _ in range(STEP_MS):
            now_ms += 1
            bits += rate * 1000.0
            while bits >= PACKET_BITS:
                bits -= PACKET_BITS
                yield now_ms
    yield now_ms


if __name__ == "__main__":
    print(*opportunities_ms(), sep="\n")
