"""Policies that weigh times, energy and queues decide on the live pair what they decide in the simulator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from splitexit.bundle import Bundle
from tests.live_bundle import open_experiment
from tests.parity.test_pair import REQUESTS, WORLDS, assert_same, both

POLICIES: dict[str, dict[str, Any]] = {
    "dads": {"name": "dads"},
    "throughput": {"name": "dads", "objective": "throughput"},
    "adaptive": {"name": "dads", "objective": "adaptive"},
    "energy": {"name": "neurosurgeon", "objective": "energy"},
    "queue_aware": {"name": "queue_aware"},
    "dynasplit": {"name": "dynasplit", "lose": 0.5, "qos_ms": 80.0},
    "ddnn": {"name": "ddnn", "split": 1, "codec": "uint8", "thresholds": [0.5, 0.6]},
    "searched": {"name": "ddnn", "split": 1, "codec": "uint8", "lose": 0.2},
}
ENERGY = {"radio": "wifi", "compute_w": 5.0, "idle_w": 2.0}


@pytest.mark.parametrize("world", ["calm", "busy", "three apart"])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_rows(live_bundle: Bundle, tmp_path: Path, policy: str, world: str) -> None:
    """Decisions, bytes and predictions are identical, times to a nanosecond."""
    changes = {"policies": POLICIES, "devices__policy": policy, "devices__energy": ENERGY}
    simulated, live = both(open_experiment(live_bundle, tmp_path, **changes, **WORLDS[world]), policy, live_bundle)
    assert len(live) == REQUESTS * WORLDS[world].get("devices__count", 1)
    assert_same(live, simulated)
