"""What bandits learn, and so decide, is the same in the simulator and in the live pair."""

from __future__ import annotations

from pathlib import Path

import pytest

from splitexit.bundle import Bundle
from tests.live_bundle import open_experiment
from tests.parity.test_pair import REQUESTS, WORLDS, assert_same, both

POLICIES = {
    "splitee": {"name": "splitee", "alpha": 0.5, "c": 0.3, "offload": 0.2},
    "splitee_s": {"name": "splitee_s", "alpha": 0.5, "c": 0.3, "offload": 0.2},
    "i_splitee": {"name": "i_splitee", "lambda1": 0.05},
    "hi_lcb": {"name": "hi_lcb", "cost": 0.9, "alpha": 0.01},
    "ans": {"name": "ans"},
}


@pytest.mark.parametrize("world", ["calm", "busy"])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_rows(live_bundle: Bundle, tmp_path: Path, policy: str, world: str) -> None:
    """Decisions, bytes and predictions are identical, times to a nanosecond; and it does not always do the same."""
    changes = WORLDS[world] | {"policies": POLICIES, "devices__policy": policy}
    simulated, live = both(open_experiment(live_bundle, tmp_path, **changes), policy, live_bundle)
    assert len(live) == len(simulated) == REQUESTS
    assert_same(live, simulated)
    assert len({(row.split, row.exit) for row in live}) > 1
