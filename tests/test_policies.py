"""What single policies decide, against brute force and limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from splitexit.decision import EdgeLoad, LinkEstimate, Observation, Plan
from splitexit.errors import InputError
from splitexit.experiment import Experiment
from splitexit.results import column, to_table, utilities
from splitexit.sim import compiled, simulate
from tests import learned, synthetic


def neurosurgeon(world: Experiment, rate_bps: float, rtt_s: float, wait_s: float = 0.0) -> Plan:
    decider = world.decider("neurosurgeon", 0, 0)
    return decider.policy.decide(Observation(link=LinkEstimate(rate_bps, rtt_s), edge_load=EdgeLoad(0, wait_s)))


def test_neurosurgeon_equals_brute_force(tmp_path: Path) -> None:
    """policies.md §0: T(p, κ) for every pair, over 200 random links."""
    world = synthetic.experiment(tmp_path)
    setting, rng = world.setting(), np.random.default_rng(0)
    for _ in range(200):
        link = LinkEstimate(10 ** rng.uniform(3, 9), 10 ** rng.uniform(-4, 0))
        wait_s = float(rng.exponential(0.02))
        times = {Plan(): setting.local_s()}
        for split, codecs in setting.codecs.items():
            for codec in codecs:
                times[Plan(split=split, codec=codec)] = setting.offload_s(split, codec, link, wait_s)
        chosen = neurosurgeon(world, link.rate_bps, link.rtt_s, wait_s)
        assert times[chosen] == pytest.approx(min(times.values()))


def test_neurosurgeon_at_its_limits(tmp_path: Path) -> None:
    world = synthetic.experiment(tmp_path)
    assert neurosurgeon(world, 1e-3, 0.0) == Plan()
    assert neurosurgeon(world, 1e9, 10.0) == Plan()
    assert neurosurgeon(world, 1e9, 0.0, wait_s=10.0) == Plan()


def test_the_oracle_is_unbeatable_without_contention(tmp_path: Path) -> None:
    """No policy has a higher utility on any single request, queues being empty."""
    world = synthetic.experiment(
        tmp_path,
        requests=150,
        devices__arrivals={"name": "periodic", "rate_hz": 0.5},
        utility={"accuracy": 1.0, "latency_per_s": 4.0, "miss": 0.0},
    )
    best = utilities(to_table(simulate(world, "oracle", 0)), world.scenario.utility)
    for label in world.scenario.policies:
        table = to_table(simulate(world, label, 0))
        assert (utilities(table, world.scenario.utility) <= best + 1e-9).all(), label


def test_threshold_reads_all_or_nothing_at_its_ends(tmp_path: Path) -> None:
    policies = {
        "first": {"name": "threshold", "threshold": 0.0},
        "never": {"name": "threshold", "threshold": 1.1},
        "local": {"name": "local"},
    }
    world = synthetic.experiment(tmp_path, policies=policies)
    assert (column(to_table(simulate(world, "first", 0)), "exit") == 0).all()
    never, local = (to_table(simulate(world, label, 0)) for label in ("never", "local"))
    np.testing.assert_array_equal(column(never, "prediction"), column(local, "prediction"))


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"name": "offload", "split": 1, "codec": "fp16"}, "not recorded"),
        ({"name": "offload", "split": 9, "codec": "fp16"}, r"splits 0\.\.2"),
        ({"name": "threshold", "split": 1}, "without codec"),
        ({"name": "threshold", "thresholds": [0.5]}, "1 given for the 2 exits"),
        ({"name": "threshold", "exits": [9]}, "exit 9"),
        ({"name": "threshold", "rule": "confidence"}, "exit 0 learned none; its head is 'pooled'"),
        ({"name": "threshold", "rule": "max_logit"}, "splitexit record BUNDLE --logits"),
        ({"name": "threshold", "rule": "patience"}, "threshold 0.8; expected a whole number"),
        ({"name": "threshold", "rule": "patience", "thresholds": [1, 0]}, "threshold 0; expected a whole number"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, policy: dict[str, object], says: str) -> None:
    world = synthetic.experiment(tmp_path, policies={"bad": policy}, devices__policy="bad")
    with pytest.raises(InputError, match=says):
        world.decider("bad", 0, 0)


RULES: dict[str, dict[str, object]] = {
    "confidence": {"threshold": 0.7},
    "patience": {"threshold": 1},
    "max_logit": {"thresholds": [2.5, 3.5, 4.0]},
}
BEHIND: dict[str, object] = {"split": 1, "codec": "uint8", "edge_exits": True}


@pytest.fixture
def confident(tmp_path: Path) -> Experiment:
    """Four exits, of which three learned a confidence; every rule alone, and with the edge."""
    model = synthetic.spec(4)
    alone = {rule: {"name": "threshold", "rule": rule} | more for rule, more in RULES.items()}
    shared = {
        f"{rule}-edge": {"name": "threshold", "rule": rule, "threshold": more.get("threshold", 3)} | BEHIND
        for rule, more in RULES.items()
    }
    return synthetic.experiment(
        tmp_path, model=model, says=learned.recording(model), requests=300, policies=alone | shared
    )


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_leaves_where_it_says(confident: Experiment, rule: str) -> None:
    """Sample by sample, from the columns of the recording."""
    part, levels = confident.recording.test, RULES[rule].get("thresholds", [RULES[rule].get("threshold")] * 3)
    left = set()
    for row in simulate(confident, rule, 0):
        at = row.sample
        predictions = [said.prediction[at] for said in part.exits]
        sure = {
            "confidence": [said.confidence is not None and said.confidence[at] >= 0.7 for said in part.exits[:3]],
            "patience": [False, predictions[0] == predictions[1], predictions[1] == predictions[2]],
            "max_logit": [said.logits[at].max() >= level for said, level in zip(part.exits, levels, strict=False)],
        }[rule]
        assert row.exit == ([*sure, True]).index(True)
        assert row.prediction == predictions[row.exit]
        left.add(row.exit)
    assert len(left) >= 3


def test_the_edge_leaves_by_its_own_confidences(confident: Experiment) -> None:
    """Behind the split its heads read decoded features."""
    behind = confident.recording.test.pair(1, "uint8").exits
    rows = [row for row in simulate(confident, "confidence-edge", 0) if row.answered_by == "edge"]
    for row in rows:
        sure = [behind[e].confidence[row.sample] >= 0.7 for e in (1, 2)]
        assert row.exit == 1 + ([*sure, True]).index(True)
    assert {row.exit for row in rows} == {1, 2, 3}


@pytest.mark.parametrize("policy", [name + edge for name in RULES for edge in ("", "-edge")])
def test_the_compiled_engine_gives_the_same_rows(confident: Experiment, policy: str) -> None:
    pytest.importorskip("numba")
    expected, found = to_table(simulate(confident, policy, 1)), compiled.simulate(confident, policy, 1)
    assert found.drop_columns(["energy_j"]).equals(expected.drop_columns(["energy_j"]))
