"""What every policy of the table must hold, whatever it decides."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

from splitexit import memory
from splitexit.confidence import fires
from splitexit.decision import Observation, Outcome, Plan
from splitexit.errors import ArtifactError, PolicyError
from splitexit.experiment import Experiment
from splitexit.inference import Decider
from splitexit.policies import POLICIES, OmniscientPolicy, Policy
from splitexit.sim import simulate
from splitexit.streams import POLICY, stream
from tests import synthetic

SETTINGS = {"threshold": {"threshold": 0.6, "split": 1, "codec": "uint8"}, "offload": {"split": 0, "codec": "jpeg"}}
SETTINGS["clio"] = {"split": 1, "codecs": ["uint8"]}
KNOWING = {"oracle", "splitee_s_oracle"}
"""Policies that decide with the truth."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    policies = {name: {"name": name, **SETTINGS.get(name, {})} for name in POLICIES.names()}
    return synthetic.experiment(tmp_path_factory.mktemp("world"), policies=policies, requests=200)


def any_observation(rng: np.random.Generator, reads: frozenset[str], world: Experiment) -> Observation:
    from splitexit.decision import EdgeLoad
    from splitexit.sense import Sense

    sense = Sense(world.setting().link, reads)
    for request in range(int(rng.integers(0, 4))):
        sense.sent(request, 0.0)
        if rng.random() < 0.5:
            sense.replied(request, int(rng.integers(1, 9999)), float(rng.exponential(0.1)), EdgeLoad(3, 0.5))
    return sense.observe(float(rng.exponential(10)), (), int(rng.integers(0, 50)), float(rng.exponential(10)))


@pytest.mark.parametrize("name", POLICIES.names())
def test_hyper_parameters_are_keywords_stored_unchanged(name: str) -> None:
    cls = POLICIES.load(name)
    parameters = [p for p in inspect.signature(cls).parameters.values() if p.name != "self"]
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters), "hyper-parameters are keyword-only"
    given = SETTINGS.get(name, {})
    policy = cls(**given)
    for parameter in parameters:
        assert getattr(policy, parameter.name) == given.get(parameter.name, parameter.default)


@pytest.mark.parametrize("name", POLICIES.names())
def test_it_declares_what_it_reads(name: str) -> None:
    cls = POLICIES.load(name)
    assert cls.reads <= Observation.FIELDS
    assert issubclass(cls, Policy)
    assert cls.__doc__


@pytest.mark.parametrize("name", [n for n in POLICIES.names() if n not in KNOWING])
def test_plans_are_valid_for_any_observation(name: str, world: Experiment) -> None:
    decider = world.decider(name, 0, 0)
    rng = np.random.default_rng(0)
    for _ in range(200):
        plan = decider.policy.decide(any_observation(rng, decider.policy.reads, world))
        plan.check(world.spec)
        if plan.split is not None:
            assert plan.codec in world.setting().codecs[plan.split]


@pytest.mark.parametrize("name", POLICIES.names())
def test_equal_seeds_give_equal_rows(name: str, world: Experiment) -> None:
    assert repr(simulate(world, name, 3, 60)) == repr(simulate(world, name, 3, 60))


@pytest.mark.parametrize("name", POLICIES.names())
def test_every_request_ends_in_one_row_whose_parts_add_up(name: str, world: Experiment) -> None:
    rows = simulate(world, name, 1, 120)
    assert sorted(row.request for row in rows) == list(range(120))
    for row in rows:
        parts = (row.device_compute_s, row.encode_s, row.network_s, row.edge_wait_s, row.edge_compute_s)
        assert row.response_s == pytest.approx(row.start_s - row.arrival_s + sum(parts), abs=1e-9)
        assert min(parts) >= 0
        assert row.deadline_met == (row.response_s <= world.scenario.devices.deadline_s)


@pytest.mark.parametrize("name", POLICIES.names())
def test_only_oracles_see_the_truth(name: str, world: Experiment) -> None:
    policy = POLICIES.load(name)(**SETTINGS.get(name, {}))
    assert isinstance(policy, OmniscientPolicy) == (name in KNOWING)
    if isinstance(policy, OmniscientPolicy):
        with pytest.raises(TypeError, match="truth"):
            policy.decide(Observation())


def ask(policy: Policy, world: Experiment, seed: int, requests: int) -> list[Plan]:
    """Decides and learns from replies that are drawn from the recording."""
    rng, plans = np.random.default_rng(seed), []
    for _ in range(requests):
        plan = policy.decide(any_observation(rng, policy.reads, world))
        sample = int(rng.integers(len(world.recording.calibration)))
        policy.learn(outcome(plan, world, sample, rng))
        plans.append(plan)
    return plans


def outcome(plan: Plan, world: Experiment, sample: int, rng: np.random.Generator) -> Outcome:
    """How a request might end: the exits that were read, and the final exit on the edge."""
    readings = tuple(world.recording.calibration.readings(check.exit)[sample] for check in plan.exits)
    fired = any(fires(check, [r]) for check, r in zip(plan.exits, readings, strict=True))
    final = world.recording.calibration.readings(world.spec.final_exit)[sample]
    response_s = float(rng.exponential(0.1))
    if plan.split is None or fired:
        said = readings if fired else (*readings, final)
        return Outcome(plan, said, response_s, "device")
    return Outcome(plan, readings, response_s, "edge", 900, response_s / 2, 0.01, 0.02, final)


@pytest.mark.parametrize("name", [n for n in POLICIES.names() if n not in KNOWING])
def test_memory_goes_on_elsewhere(name: str, world: Experiment, tmp_path: Path) -> None:
    """Saved to a file and restored into a fresh instance, a policy decides as if it had never stopped."""
    first, second = (world.decider(name, 0, 0).policy for _ in range(2))
    if first is second:
        pytest.skip("stateless: nothing to keep")
    ask(first, world, 1, 150)
    memory.save(first, tmp_path / "memory.json")
    memory.load(second, tmp_path / "memory.json")
    assert ask(first, world, 2, 150) == ask(second, world, 2, 150)
    if not first.memory:
        fresh = POLICIES.load(name)(**SETTINGS.get(name, {}))
        fresh.prepare(world.setting(), stream(0, POLICY, 0))
        assert ask(fresh, world, 2, 150) == ask(second, world, 2, 150), (
            "it remembers something that `memory` leaves out"
        )


def test_memory_that_does_not_fit_is_refused(world: Experiment, tmp_path: Path) -> None:
    policy = world.decider("random", 0, 0).policy
    document = memory.state(policy)
    for broken in (None, [], {**document, "format": 0}, {**document, "policy": "x"}, {**document, "memory": {}}):
        with pytest.raises(ArtifactError, match="save it anew"):
            memory.restore(policy, broken)
    with pytest.raises(ArtifactError, match="another model or setting"):
        memory.restore(policy, {**document, "memory": {"_rng": {}}})
    (tmp_path / "m.json").write_text("{")
    with pytest.raises(ArtifactError, match="m.json: not a policy's memory"):
        memory.load(policy, tmp_path / "m.json")


def test_an_undeclared_read_is_caught(world: Experiment) -> None:
    class Peeking(Policy):
        def decide(self, observation: Observation) -> Plan:
            return Plan(timeout_s=observation.queue_length)

    with pytest.raises(PolicyError, match="queue_length"):
        Decider(Peeking(), world.setting()).decide([], 0)


def test_random_draws_from_its_own_stream(world: Experiment) -> None:
    policy = POLICIES.load("random")()
    policy.prepare(world.setting(), stream(5, POLICY, 0))
    plans = {policy.decide(Observation()) for _ in range(200)}
    assert len(plans) == 1 + sum(len(codecs) for codecs in world.setting().codecs.values())
