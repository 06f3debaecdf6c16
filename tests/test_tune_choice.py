"""Which exits to read, against every choice with every threshold, and as the command prints it."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from math import inf
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml
from typer.testing import CliRunner

from splitexit.bundle import ModelSpec
from splitexit.cli import tune as cli
from splitexit.distribution import Distribution
from splitexit.errors import UsageError
from splitexit.recording import Part
from splitexit.results import column, to_table
from splitexit.sim import simulate
from splitexit.tune.choice import choose_exits
from splitexit.tune.effects import Goal
from tests import synthetic


def model(rng: np.random.Generator) -> ModelSpec:
    """Three to five early exits whose heads cost anything between nothing and a stage."""
    spec = synthetic.spec(int(rng.integers(4, 7)))
    return replace(spec, exits=tuple(replace(e, macs=int(rng.integers(0, 100))) for e in spec.exits))


def effect(spec: ModelSpec, part: Part, exits: tuple[int, ...], threshold: float) -> tuple[float, float]:
    """Accuracy and mean MACs, sample by sample."""
    right = spent = 0
    for n, label in enumerate(part.label):
        macs, stage = 0, 0
        for e in (*exits, spec.final_exit):
            macs += sum(s.macs for s in spec.stages[stage : e + 1]) + spec.exits[e].macs
            stage = e + 1
            if e == spec.final_exit or part.exits[e].max_prob[n] >= threshold:
                right += part.exits[e].prediction[n] == label
                break
        spent += macs
    return right / len(part), spent / len(part) / spec.macs


@pytest.mark.parametrize("seed", range(20))
def test_the_choice_is_brute_force(seed: int) -> None:
    """Ten models each; goals of accuracy and of cost."""
    rng = np.random.default_rng(seed)
    for _ in range(10):
        spec = model(rng)
        part = synthetic.recording(spec, samples=9, pairs={}, seed=int(rng.integers(2**32))).calibration
        count = int(rng.integers(1, spec.final_exit + 1))
        whole = float((part.exits[-1].prediction == part.label).mean())
        every = [
            (*effect(spec, part, exits, threshold), exits)
            for exits in combinations(range(spec.final_exit), count)
            for threshold in [inf, *{float(x) for e in exits for x in part.exits[e].max_prob}]
        ]
        lose = float(rng.choice([0.0, 0.12, 0.5]))
        cheapest = min(cost for right, cost, _ in every if right >= whole - lose)
        fit = choose_exits(count, part, spec, None, "max_prob", "common", Goal("lose", lose))
        assert fit.reached.cost == pytest.approx(cheapest)
        assert (fit.reached.accuracy, fit.reached.cost) == pytest.approx(
            effect(spec, part, fit.exits, fit.thresholds[0])
        )
        budget = float(np.median([cost for _, cost, _ in every]))
        best = max(right for right, cost, _ in every if cost <= budget)
        fit = choose_exits(count, part, spec, None, "max_prob", "common", Goal("macs", budget))
        assert fit.reached.accuracy == pytest.approx(best)


def test_with_a_calibration_it_is_time_that_counts() -> None:
    """Two exits that say the same; the head that multiplies less takes longer here."""
    spec = synthetic.spec(3)
    spec = replace(spec, exits=tuple(replace(e, macs=m) for e, m in zip(spec.exits, (50, 10, 10), strict=True)))
    part = synthetic.recording(spec, samples=100, pairs={}).calibration
    part.exits = (part.exits[1], part.exits[1], part.exits[2])
    slow = synthetic.calibration(spec)
    heads = tuple(Distribution.constant(s) for s in (0.0, 0.05, 0.0))
    goal = Goal("lose", 0.05)
    found = choose_exits(1, part, spec, replace(slow, exits=heads), "max_prob", "common", goal)
    assert found.exits == (0,)
    dear_first = tuple(Distribution.constant(s) for s in (0.05, 0.0, 0.0))
    assert choose_exits(1, part, spec, replace(slow, exits=dear_first), "max_prob", "common", goal).exits == (1,)


def test_exits_that_add_up_are_chosen_together() -> None:
    spec = synthetic.spec(5)
    additive = tuple(replace(e, additive=k in (2, 3)) for k, e in enumerate(spec.exits))
    spec = replace(spec, exits=additive)
    part = synthetic.recording(spec, samples=50, pairs={}).calibration
    fit = choose_exits(2, part, spec, None, "max_prob", "common", Goal("lose", 1.0))
    assert fit.exits in {(0, 1), (1, 2)}


def test_too_many_or_too_few_are_refused() -> None:
    spec = synthetic.spec(4)
    part = synthetic.recording(spec, samples=20, pairs={}).calibration
    for count in (0, 4):
        with pytest.raises(UsageError, match="the model has 3 early exits; expected 1 to 3"):
            choose_exits(count, part, spec, None, "max_prob", "common", Goal("lose", 0.1))
    with pytest.raises(UsageError, match="out of reach"):
        choose_exits(2, part, spec, None, "max_prob", "common", Goal("accuracy", 1.01))
    with pytest.raises(UsageError, match="no more than 1000 choices"):
        deep = synthetic.spec(16)
        choose_exits(7, synthetic.recording(deep, samples=2).calibration, deep, None, "max_prob", "common", None)


def test_the_command_prints_a_policy_that_does_what_it_says(tmp_path: Path) -> None:
    """Read from its output, simulated on a device alone: no other exit answers, and it takes the time that was said."""
    spec = synthetic.spec(5)
    takes = synthetic.calibration(spec, stage=0.01, head=0.004)
    bundle = synthetic.write_bundle(tmp_path / "bundle", spec, synthetic.recording(spec, samples=300), takes)
    app = typer.Typer()
    cli.register(app)
    arguments = [str(bundle), "--choose-exits", "2", "--lose", "5"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    policy = yaml.safe_load(shown.stdout[shown.stdout.index("policies:") :].rpartition("paste")[0])["policies"]["tuned"]
    said = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert said["policy"] == policy
    assert len(policy["exits"]) == len(policy["thresholds"]) == 2
    assert f"\n{policy['exits'][0]} " in shown.stdout
    assert "\nfinal " in shown.stdout
    world = synthetic.experiment(
        tmp_path,
        model=spec,
        says=synthetic.recording(spec, samples=300),
        takes=takes,
        policies={"tuned": policy},
        requests=300,
        devices__arrivals={"name": "periodic", "rate_hz": 1.0},
    )
    table = to_table(simulate(world, "tuned", 0))
    assert set(column(table, "exit").tolist()) <= {*policy["exits"], spec.final_exit}
    assert column(table, "device_compute_s").mean() == pytest.approx(said["test"]["seconds"], rel=1e-9)
