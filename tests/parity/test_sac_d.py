"""A network that was trained in the simulator decides the same in the live pair, on the same observations."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("grpc")

from splitexit.bundle import Bundle
from tests import tiny_actor
from tests.live_bundle import open_experiment
from tests.parity.test_pair import WORLDS, assert_same, both


@pytest.mark.parametrize(("world", "stochastic"), [("calm", False), ("busy", True)])
def test_the_same_rows(live_bundle: Bundle, tmp_path: Path, world: str, stochastic: bool) -> None:
    """Decisions, bytes and predictions are identical, times to a nanosecond."""
    path = tmp_path / "actor.safetensors"
    tiny_actor.actor(open_experiment(live_bundle, tmp_path).setting(), seed=16).save(path)
    policies = {"learned": {"name": "sac_d", "weights": str(path), "stochastic": stochastic}}
    changes = WORLDS[world] | {"policies": policies, "devices__policy": "learned"}
    experiment = open_experiment(live_bundle, tmp_path, **changes)
    simulated, live = both(experiment, "learned", live_bundle)
    assert_same(live, simulated)
    assert len({(row.split, row.codec, row.exit) for row in simulated}) > 1
