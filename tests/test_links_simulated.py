"""Links within a simulation: what the oracle foresees is what happens, and a seed decides everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from splitexit.results import rows_sha256, to_table, utilities
from splitexit.sim import simulate
from tests import synthetic

UPLINKS: dict[str, dict[str, Any]] = {
    "jitter": {"name": "constant", "mbps": 8.0, "delay_ms": 30.0, "jitter_ms": 12.0, "jitter": "pareto-normal"},
    "markov": {"name": "markov", "mbps": [0.2, 2.0, 8.0], "dwell_ms": 100.0, "jitter_ms": 2.0},
    "fading": {"name": "fading", "bandwidth_mhz": 0.5, "coherence_ms": 5.0},
    "token-bucket": {"name": "token-bucket", "mbps": 1.0, "depth_kb": 4.0, "peak_mbps": 8.0},
    "tcp": {"name": "constant", "mbps": 8.0, "delay_ms": 30.0, "transport": "tcp"},
    "lte": {"name": "lte", "jitter_ms": 4.0, "jitter": "uniform"},
}


@pytest.mark.parametrize("name", UPLINKS)
def test_the_oracle_is_unbeatable_without_contention(tmp_path: Path, name: str) -> None:
    """Which holds only if looking ahead and sending agree."""
    world = synthetic.experiment(
        tmp_path,
        requests=60,
        uplink=UPLINKS[name],
        downlink={"name": "wifi", "jitter_ms": 3.0},
        devices__arrivals={"name": "periodic", "rate_hz": 0.5},
        utility={"accuracy": 1.0, "latency_per_s": 4.0, "miss": 0.0},
    )

    best = utilities(to_table(simulate(world, "oracle", 0)), world.scenario.utility)
    for label in ("offload", "split", "threshold", "neurosurgeon", "random"):
        found = utilities(to_table(simulate(world, label, 0)), world.scenario.utility)
        assert (found <= best + 1e-9).all(), label
    first, again, other = (rows_sha256(to_table(simulate(world, "offload", seed))) for seed in (1, 1, 2))
    assert first == again != other
