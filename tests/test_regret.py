"""Regret in the same state: what it is, that looking on changes nothing, and what the commands say of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest

from splitexit.bundle import ModelSpec
from splitexit.cli import run
from splitexit.compare import compare
from splitexit.decision import Observation, Plan, Truth
from splitexit.errors import UsageError
from splitexit.experiment import Experiment
from splitexit.inference import Decider
from splitexit.policies import Policy
from splitexit.policies.oracle import Oracle, candidates
from splitexit.recording import PairReadings, Recording
from splitexit.results import SCHEMA, column, rows_sha256, to_table, utilities
from splitexit.sim import simulate
from splitexit.sim.regret import judged
from splitexit.sim.truth import LookAhead
from tests import synthetic

SEED = 3
CROWD: dict[str, Any] = {"devices__count": 6, "devices__arrivals": {"name": "poisson", "rate_hz": 12.0}}
WORLDS: dict[str, dict[str, Any]] = {
    "alone": {"devices__arrivals": {"name": "periodic", "rate_hz": 0.5}},
    "crowd": CROWD,
    "cell": CROWD | {"access_points": {"cell": {"sharing": "processor"}}, "devices__access_point": "cell"},
    "jitter": CROWD
    | {"uplink": {"name": "constant", "mbps": 2.0, "delay_ms": 5.0, "jitter_ms": 3.0}, "edge__queue": 2},
    "tcp": CROWD | {"uplink": {"name": "constant", "mbps": 3.0, "delay_ms": 9.0, "transport": "tcp"}},
    "batches": CROWD | {"edge__batching": {"max_size": 4, "max_wait_ms": 10.0}},
    "outage": CROWD | {"events": [{"kind": "outage", "at_s": 1.0, "for_s": 2.0}], "devices__retries": 1},
    "radio": CROWD | {"uplink": {"name": "gilbert-elliott", "mbps": 3.0, "delay_ms": 2.0, "p": 0.05, "r": 0.2}},
}


def world(folder: Path, name: str, requests: int = 60, **changes: Any) -> Experiment:
    utility = {"accuracy": 1.0, "latency_per_s": 4.0, "miss": 0.5}
    given = {"requests": requests, "utility": utility, "devices__deadline_ms": 300.0} | WORLDS[name] | changes
    model = synthetic.spec()
    return synthetic.experiment(folder, model=model, says=with_lossless(model), **given)


def with_lossless(model: ModelSpec) -> Recording:
    """A recording where the edge can leave early: behind a lossless pair too."""
    said = synthetic.recording(model, pairs={(0, "jpeg"): 900, (1, "uint8"): 400})
    for part in said.parts.values():
        part.pairs[1, "uint8"] = PairReadings(part.pairs[1, "uint8"].payload_bytes, {}, lossless=True)
    return said


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("policy", ["threshold", "neurosurgeon", "random", "oracle"])
def test_looking_on_changes_nothing(tmp_path: Path, name: str, policy: str) -> None:
    """Every row is the same to the last bit: links, edges and random numbers do not notice what is tried out."""
    experiment = world(tmp_path, name)
    table = judged(experiment, policy, SEED).table
    assert table.column_names == [*SCHEMA.names, "regret", "switched"]
    assert rows_sha256(table.select(SCHEMA.names)) == rows_sha256(to_table(simulate(experiment, policy, SEED)))


@pytest.mark.parametrize("name", WORLDS)
def test_the_oracle_regrets_nothing_and_chance_the_most(tmp_path: Path, name: str) -> None:
    experiment = world(tmp_path, name, requests=100)
    regret = {label: column(judged(experiment, label, SEED).table, "regret") for label in ("oracle", "random", "local")}
    assert (regret["oracle"] == 0.0).all()
    assert regret["random"].mean() > 0
    assert (regret["local"] >= 0).all()


def test_chance_regrets_more_than_a_model_of_latency(tmp_path: Path) -> None:
    comparison = compare(world(tmp_path, "crowd"), ["random", "neurosurgeon", "oracle"], range(4), regret=True)
    random, neurosurgeon, oracle = (comparison.summaries[label]["regret"] for label in comparison.policies)
    assert random > neurosurgeon > oracle == 0.0


@pytest.mark.parametrize("policy", ["local", "offload", "split", "threshold", "neurosurgeon", "random"])
def test_alone_it_is_what_the_oracle_has_more(tmp_path: Path, policy: str) -> None:
    """Without contention both runs find the same states, so the regret of a request is the difference of its rows."""
    experiment = world(tmp_path, "alone", requests=150)
    best, own = to_table(simulate(experiment, "oracle", SEED)), judged(experiment, policy, SEED).table
    worth = [utilities(table, experiment.scenario.utility) for table in (best, own)]
    np.testing.assert_allclose(column(own, "regret"), worth[0] - worth[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", WORLDS)
def test_leaving_candidates_out_leaves_the_best_in(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle's shortcut finds what trying out every candidate finds, the first of equals."""
    experiment, tried = world(tmp_path, name), [0, 0]
    plans = candidates(experiment.setting())

    def decide(self: Oracle, observation: Observation, truth: Truth) -> Plan:
        tried[1] = 0
        plan, worth = truth.best(plans)
        tried[0] += tried[1]
        every = {number: truth.utility(plan) for number, plan in enumerate(plans)}
        best = max(every, key=every.__getitem__)
        assert (plan, worth) == (plans[best], every[best])
        return plan

    count = LookAhead._tried

    def counted(self: LookAhead, plan: Plan) -> tuple[float, float]:
        tried[1] += 1
        return count(self, plan)

    monkeypatch.setattr(Oracle, "decide_knowing", decide)
    monkeypatch.setattr(LookAhead, "_tried", counted)
    rows = simulate(experiment, "oracle", SEED)
    assert len(plans) == 8
    assert tried[0] < 0.9 * len(plans) * len(rows)


def test_candidates_leave_early_on_the_edge_only_where_that_was_recorded(tmp_path: Path) -> None:
    setting = world(tmp_path, "alone").setting()
    assert sum(bool(plan.edge_exits) for plan in candidates(setting)) == 3  # jpeg@0: exits 0, 1; uint8@1: exit 1
    del setting.calibration.pairs[0, "jpeg"].exits[1]
    assert sum(bool(plan.edge_exits) for plan in candidates(setting)) == 2


class Alternating(Policy):
    """Once local, twice offloaded, twice local, and so on."""

    plans: ClassVar[tuple[Plan, ...]] = (Plan(), Plan(split=0, codec="jpeg"))

    def __init__(self) -> None:
        self.asked = 0

    def decide(self, observation: Observation) -> Plan:
        self.asked += 1
        return self.plans[self.asked % 4 // 2]


def test_switches_are_changes_from_one_request_to_the_next(tmp_path: Path) -> None:
    changes = {"policies": {"mine": {"name": "tests.test_regret:Alternating"}}}
    experiment = world(tmp_path, "crowd", requests=40, devices__policy="mine", **changes)
    table = judged(experiment, "mine", SEED).table
    for device in range(6):
        switched = column(table, "switched")[column(table, "device") == device]
        assert switched.tolist() == [False, True] * 20
    summary = compare(experiment, ["mine"], [SEED], regret=True).summaries["mine"]
    assert summary["switch_rate"] == pytest.approx(20 / 40)


def test_decisions_are_timed_with_the_clock_that_is_given(tmp_path: Path) -> None:
    ticks: Iterator[int] = iter(range(0, 10**9, 7))
    experiment = world(tmp_path, "crowd", requests=20)
    assert judged(experiment, "random", SEED, clock_ns=lambda: next(ticks)).decide_ns.tolist() == [7] * 120
    assert not len(judged(experiment, "random", SEED).decide_ns)


def test_a_timed_decider_decides_the_same(tmp_path: Path) -> None:
    decider, took = world(tmp_path, "alone").decider("local", 0, 0), list[int]()
    timed = decider.timed(took.append, iter(range(100)).__next__)
    assert timed.decide([], 0) is decider.decide([], 0)
    assert took == [1]
    assert isinstance(timed, Decider)
    assert timed.policy is decider.policy


def test_the_commands_show_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world(tmp_path, "crowd")
    scenario, out = str(tmp_path / "scenario.yaml"), tmp_path / "out"
    assert run(["compare", scenario, "--policies", "local,oracle", "--regret", "--json", "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)["policies"]
    assert found["oracle"]["regret"] == 0.0 < found["local"]["regret"]
    assert found["local"]["intervals"]["regret"]["low"] > 0
    assert {"regret", "switched"} <= set(pq.read_table(out / "requests.parquet").column_names)
    assert run(["simulate", scenario, "--regret", "--out", str(out)]) == 0
    assert "regret" in capsys.readouterr().out
    assert run(["simulate", scenario, "--out", str(out)]) == 0
    assert "regret" not in capsys.readouterr().out


def test_the_compiled_engine_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = world(tmp_path, "alone", engine="compiled")
    with pytest.raises(UsageError, match="take --engine simpy"):
        compare(experiment, ["local"], [0], regret=True)
    more = ["--no-rows", "--engine", "compiled", "--regret"]
    assert run(["simulate", str(tmp_path / "scenario.yaml"), *more]) == 2
    assert "leave out --no-rows" in capsys.readouterr().err
