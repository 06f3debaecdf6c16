"""On the shipped bundle, the simulator and the live code decide alike.

The live side is a device and an edge in one process: they compute with torch on real images and speak the wire
format, while the calibration gives both worlds their seconds. Parity (house.md §3) is: given the same clock and link,
identical decisions and identical predictions, outside a numerical margin.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("grpc")

from splitexit.bundle import Bundle
from splitexit.calibration import Pair
from splitexit.demo import live_policies
from splitexit.experiment import Experiment
from splitexit.live.images import Images, open_images
from splitexit.live.model import LiveModel
from splitexit.live.pair import run_pair
from splitexit.results import Completion
from splitexit.scenario import load
from splitexit.sim import simulate

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "scenarios" / "quickstart.yaml"
WHOLE_TEST_SET = ROOT.parent / "shared" / "data" / "cifar10_test.parquet"
REQUESTS = 1000
MARGIN = REQUESTS // 500
"""Requests that may differ: a machine with other vector units computes other last bits, and a confidence beside a
threshold, or a value beside a quantiser's step, then falls on the other side."""


class World:
    """The quickstart, opened for both sides: the whole test set where it lies beside the checkout, else the samples."""

    def __init__(self) -> None:
        scenario = load(QUICKSTART, [f"requests={REQUESTS}"])
        source = str(WHOLE_TEST_SET) if WHOLE_TEST_SET.exists() else None
        self.images: Images = open_images(Bundle.open(scenario.bundle), source)
        self.experiment = Experiment.open(scenario, subset=tuple(self.images))
        pairs: list[Pair] = [(s, c) for s, codecs in self.experiment.setting().codecs.items() for c in codecs]
        self.model = LiveModel.open(self.experiment.bundle, pairs)

    def live(self, policy: str, requests: int) -> dict[int, Completion]:
        rows = run_pair(self.experiment, policy, 0, self.model, self.images, requests)
        return {row.request: row for row in rows}

    def simulated(self, policy: str, requests: int) -> dict[int, Completion]:
        return {row.request: row for row in simulate(self.experiment, policy, 0, requests)}


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def outcome(row: Completion) -> tuple[object, ...]:
    return row.sample, row.split, row.codec, row.exit, row.answered_by, row.prediction


@pytest.mark.parametrize("policy", live_policies(load(QUICKSTART)))
def test_same_decisions_and_predictions_on_a_thousand_samples(world: World, policy: str) -> None:
    live, simulated = world.live(policy, REQUESTS), world.simulated(policy, REQUESTS)
    assert live.keys() == simulated.keys() == set(range(REQUESTS))
    different = [(live[n], simulated[n]) for n in live if outcome(live[n]) != outcome(simulated[n])]
    assert len(different) <= MARGIN, different[:3]


def test_same_times(world: World) -> None:
    """Where payloads are equal, so are response times, to the nanosecond."""
    live, simulated = world.live("exit-or-split", 200), world.simulated("exit-or-split", 200)
    same = [n for n in live if live[n].payload_bytes == simulated[n].payload_bytes]
    assert len(same) > 190
    response_s = [[rows[n].response_s for n in same] for rows in (live, simulated)]
    np.testing.assert_allclose(*response_s, rtol=0, atol=1e-9)
