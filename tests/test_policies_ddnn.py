"""DDNN's three tiers: who answers what, and the search for thresholds against brute force."""

from __future__ import annotations

from math import log
from pathlib import Path

import numpy as np
import pytest

from splitexit.decision import Observation, Plan, Setting
from splitexit.errors import InputError
from splitexit.experiment import Experiment
from splitexit.policies.ddnn import GRID, Ddnn
from splitexit.sim import simulate
from tests import random_settings, synthetic

RNG = np.random.default_rng(0)
UNIT = log(synthetic.CLASSES)


def plan_of(policy: Ddnn, setting: Setting) -> Plan:
    policy.prepare(setting, RNG)
    return policy.decide(Observation())


def with_pair(rng: np.random.Generator) -> tuple[Setting, int, str]:
    """A random model with something to send at a split that leaves an exit to both sides."""
    while True:
        setting = random_settings.setting(rng)
        there = [(s, c) for s, codecs in setting.codecs.items() for c in codecs if 0 < s < setting.spec.num_stages - 1]
        if there:
            return setting, *there[int(rng.integers(len(there)))]


def effects(setting: Setting, split: int, codec: str, local: int, edge: int) -> dict[tuple[float, float], tuple]:
    """Accuracy, share on the device and share on the edge, of every pair of thresholds, sample by sample."""
    part = setting.calibration
    here, pair = part.exits[local], part.pair(split, codec).exits
    found = {}
    for tau in GRID:
        for level in GRID:
            right = on_device = on_edge = 0
            for n, label in enumerate(part.label):
                if here.entropy[n] <= tau * UNIT:
                    on_device, said = on_device + 1, here
                elif pair[edge].entropy[n] <= level * UNIT:
                    on_edge, said = on_edge + 1, pair[edge]
                else:
                    said = pair[setting.spec.final_exit]
                right += said.prediction[n] == label
            found[tau, level] = (right / len(part), on_device / len(part), on_edge / len(part))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_the_search_is_brute_force(seed: int) -> None:
    """Ten models each: enough accuracy, then the most on the device, then on the edge."""
    rng = np.random.default_rng(seed)
    for _ in range(10):
        setting, split, codec = with_pair(rng)
        part, lose = random_settings.shortened(setting, 12), float(rng.choice([0.0, 0.1]))
        plan = plan_of(Ddnn(split=split, codec=codec, lose=lose), part)
        [local], [edge] = plan.exits, plan.edge_exits
        assert (local.exit, edge.exit) == (split - 1, part.spec.final_exit - 1)
        found = effects(part, split, codec, local.exit, edge.exit)
        enough = max(right for right, _, _ in found.values()) - lose
        best = max((here, there, right) for right, here, there in found.values() if right >= enough)
        right, here, there = found[round(local.threshold / UNIT * 20) / 20, round(edge.threshold / UNIT * 20) / 20]
        assert (here, there, right) == best


@pytest.fixture
def tiers(tmp_path: Path) -> Experiment:
    """Five stages: one on the device, up to the third on the edge, the rest in the cloud; an exit behind each."""
    model = synthetic.spec(5)
    pairs = {(1, "uint8"): 400, (3, "raw"): 900}
    link = {"name": "constant", "mbps": 8.0, "delay_ms": 5.0}
    ddnn = {"name": "ddnn", "split": 1, "codec": "uint8"}
    return synthetic.experiment(
        tmp_path,
        model=model,
        says=synthetic.recording(model, pairs=pairs),
        takes=synthetic.calibration(model, pairs=list(pairs)),
        cloud={"hardware": "host", "split": 3, "uplink": link, "downlink": link},
        requests=300,
        policies={
            "ddnn": ddnn | {"thresholds": [0.5, 0.4]},
            "all": ddnn | {"thresholds": [1.0, 1.0]},
            "none": ddnn | {"thresholds": [0.0, 0.0]},
            "searched": ddnn,
        },
    )


def test_every_tier_answers_what_it_is_sure_of(tiers: Experiment) -> None:
    """Sample by sample, from the columns of the recording."""
    part = tiers.recording.test
    behind, tested = part.pair(1, "uint8").exits, set()
    for row in simulate(tiers, "ddnn", 0):
        at = row.sample
        if part.exits[0].entropy[at] <= 0.5 * UNIT:
            expected = ("device", 0, part.exits[0].prediction[at])
        elif behind[2].entropy[at] <= 0.4 * UNIT:
            expected = ("edge", 2, behind[2].prediction[at])
        else:
            expected = ("cloud", 4, behind[4].prediction[at])
        assert (row.answered_by, row.exit, row.prediction) == expected
        tested.add(row.answered_by)
    assert tested == {"device", "edge", "cloud"}


def test_limits(tiers: Experiment) -> None:
    """Thresholds of 1 keep everything on the device; of 0 nothing that is unsure at all."""
    assert {row.answered_by for row in simulate(tiers, "all", 0)} == {"device"}
    assert {row.answered_by for row in simulate(tiers, "none", 0)} == {"cloud"}


def test_the_search_loses_no_more_than_it_may(tiers: Experiment) -> None:
    def accuracy(label: str) -> float:
        rows = simulate(tiers, label, 0)
        return sum(row.prediction == row.label for row in rows) / len(rows)

    assert accuracy("searched") >= accuracy("none") - 0.01 - 0.06, "other samples than those it was searched on"
    assert len({row.answered_by for row in simulate(tiers, "searched", 0)}) >= 2


def test_without_a_cloud_the_edge_ends_it() -> None:
    rng = np.random.default_rng(0)
    setting, split, codec = with_pair(rng)
    plan = plan_of(Ddnn(split=split, codec=codec, thresholds=[0.2, 0.3]), setting)
    assert plan.edge_exits[0].exit == setting.spec.final_exit - 1
    assert plan.exits[0].threshold == pytest.approx(0.2 * UNIT)
    image = list(setting.codecs.get(0, ()))
    if image:
        assert plan_of(Ddnn(split=0, codec=image[0], thresholds=[0.2, 0.3]), setting).exits == ()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"split": 1, "codec": "fp16"}, "not recorded"),
        ({"thresholds": [0.5]}, "expected two from 0 to 1"),
        ({"thresholds": [0.5, 1.5]}, "expected two from 0 to 1"),
        ({"local_exit": 1}, r"local_exit: exit 1 .* expected one of \[0\]"),
        ({"edge_exit": 3}, r"edge_exit: exit 3 .* stages 2 to 3; expected one of \[1, 2\]"),
    ],
)
def test_what_does_not_fit_is_refused(tiers: Experiment, arguments: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        plan_of(Ddnn(**({"split": 1, "codec": "uint8"} | arguments)), tiers.setting())
