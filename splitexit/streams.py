"""Random streams: one for every entity of a run, independent of every other and of the order of use."""

from __future__ import annotations

import numpy as np

ARRIVALS, SAMPLES, DEVICE_TIMES, EDGE_TIMES, UPLINK, DOWNLINK, POLICY = range(7)
CELL_UPLINK, CELL_DOWNLINK, CLOUD_UPLINK, CLOUD_DOWNLINK, CLOUD_TIMES = range(7, 12)


def stream(seed: int, kind: int, device: int = 0, block: int = 0) -> np.random.Generator:
    """The stream of one entity.

    Args:
        seed: of the run.
        kind: one of the above.
        device: its number, or that of the access point.
        block: for what is drawn block by block.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(kind, device, block)))
