"""The simulator and the live code decide alike: same plans, same exits, same predictions, same times.

The live side is a device and an edge in one process that compute with torch and speak the wire format; the
calibration gives both worlds their seconds. 1,000 recorded samples per policy (house.md §3, "parity").
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("grpc")

from splitexit.experiment import Experiment
from splitexit.results import Completion
from splitexit.scenario import load
from splitexit.sim import simulate

QUICKSTART = Path(__file__).resolve().parents[2] / "scenarios" / "quickstart.yaml"
REQUESTS = 1000
"""The bundle ships fewer images than that: they come round again, at other times and in other queues."""


def outcomes(rows: list[Completion]) -> dict[int, tuple[object, ...]]:
    return {r.request: (r.sample, r.split, r.codec, r.exit, r.answered_by, r.prediction) for r in rows}


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    from splitexit.live.images import open_images

    scenario = load(QUICKSTART, [f"requests={REQUESTS}"])
    from splitexit.bundle import Bundle

    return Experiment.open(scenario, subset=tuple(open_images(Bundle.open(scenario.bundle))))


def labels() -> list[str]:
    from splitexit.demo import live_policies

    return live_policies(load(QUICKSTART))


@pytest.mark.parametrize("policy", labels())
def test_same_decisions_same_predictions(experiment: Experiment, policy: str) -> None:
    """At most one sample in 500 may differ: where logits of another machine round across a threshold."""
    from splitexit.live.images import open_images
    from splitexit.live.pair import run_pair

    live = outcomes(run_pair(experiment, policy, 0, open_images(experiment.bundle)))
    simulated = outcomes(simulate(experiment, policy, 0))
    assert live.keys() == simulated.keys() == set(range(REQUESTS))
    different = [number for number in live if live[number] != simulated[number]]
    assert len(different) <= REQUESTS // 500, [(live[n], simulated[n]) for n in different[:3]]


def test_same_times(experiment: Experiment) -> None:
    """With one clock and one calibration, response times agree to the nanosecond."""
    from splitexit.live.images import open_images
    from splitexit.live.pair import run_pair

    policy = labels()[-1]
    live = {r.request: r for r in run_pair(experiment, policy, 0, open_images(experiment.bundle), requests=200)}
    simulated = {r.request: r for r in simulate(experiment, policy, 0, 200)}
    same = [
        n for n in live if live[n].payload_bytes == simulated[n].payload_bytes and live[n].exit == simulated[n].exit
    ]
    assert len(same) > 190
    np.testing.assert_allclose(
        [live[n].response_s for n in same], [simulated[n].response_s for n in same], rtol=0, atol=1e-9
    )
