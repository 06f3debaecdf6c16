"""What every policy of the table must hold, whatever it decides."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from splitexit import contract, memory
from splitexit.contract import check_policy
from splitexit.decision import Observation, Plan, Truth
from splitexit.errors import ArtifactError, PolicyError
from splitexit.experiment import Experiment
from splitexit.inference import Decider
from splitexit.policies import POLICIES, OmniscientPolicy, Policy
from splitexit.streams import POLICY, stream
from tests import synthetic, tiny_actor

SETTINGS = {"threshold": {"threshold": 0.6, "split": 1, "codec": "uint8"}, "offload": {"split": 0, "codec": "jpeg"}}
SETTINGS["ddnn"] = {"split": 1, "codec": "uint8"}
SETTINGS["clio"] = {"split": 1, "codecs": ["uint8"]}
SETTINGS["sac_d"] = {"weights": str(tiny_actor.FILE)}
ENERGY = {"radio": "wifi", "compute_w": 5.0, "idle_w": 2.0}
KNOWING = {"oracle", "splitee_s_oracle"}
"""Policies that decide with the truth."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    policies = {name: {"name": name, **SETTINGS.get(name, {})} for name in POLICIES.names()}
    return synthetic.experiment(
        tmp_path_factory.mktemp("world"), policies=policies, requests=200, devices__energy=ENERGY
    )


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", POLICIES.names())
def test_it_keeps_the_contract(name: str, check: contract.Check, world: Experiment) -> None:
    """Each of `splitexit.contract`; with the parameters as a scenario gives them."""
    check(contract.Subject(POLICIES.load(name), world.scenario.policies[name].parameters, world))


@pytest.mark.parametrize("name", POLICIES.names())
def test_only_oracles_see_the_truth(name: str) -> None:
    assert issubclass(POLICIES.load(name), OmniscientPolicy) == (name in KNOWING)


class Sound(Policy):
    """Nothing is wrong with it; those below each break one thing."""

    def __init__(self, *, level: float = 0.5) -> None:
        self.level = level
        self._rng = np.random.default_rng(0)
        self._asked = 0

    def decide(self, observation: Observation) -> Plan:
        return Plan()


class Positional(Sound):
    """Takes its hyper-parameter without a name."""

    def __init__(self, level: float = 0.5) -> None:
        super().__init__(level=level)


class Changing(Sound):
    """Keeps another number than it is given."""

    def __init__(self, *, level: float = 0.5) -> None:
        super().__init__(level=2 * level)


class Imagining(Sound):
    """Reads what nobody measures."""

    reads: ClassVar[frozenset[str]] = frozenset({"weather"})


class Beyond(Sound):
    """Splits where the model has no stage."""

    def decide(self, observation: Observation) -> Plan:
        return Plan(split=9, codec="jpeg")


class Unrecorded(Sound):
    """Sends what is not on offer."""

    def decide(self, observation: Observation) -> Plan:
        return Plan(split=1, codec="jpeg")


_dice = np.random.default_rng(0)


class Unseeded(Sound):
    """Draws from a generator that is not its own."""

    def decide(self, observation: Observation) -> Plan:
        return Plan() if _dice.random() < 0.5 else Plan(split=0, codec="jpeg")


class Forgetful(Sound):
    """Counts, and does not say that it remembers."""

    def decide(self, observation: Observation) -> Plan:
        self._asked += 1
        return Plan() if self._asked < 200 else Plan(split=0, codec="jpeg")


class Pretending(Forgetful):
    """Counts, and says that it does not."""

    stateless: ClassVar[bool] = True

    def decide(self, observation: Observation) -> Plan:
        self._asked += 1
        return Plan() if self._asked % 2 else Plan(split=0, codec="jpeg")


class Guessing(OmniscientPolicy):
    """Says that it needs the truth, and does not."""

    def decide_knowing(self, observation: Observation, truth: Truth) -> Plan:
        return Plan()

    def decide(self, observation: Observation) -> Plan:
        return Plan()


@pytest.mark.parametrize(
    ("of", "what"),
    [
        (Positional, "'level' can be given without its name"),
        (Changing, "'level' is not stored unchanged: given 0.5, found 1.0"),
        (Imagining, "reads weather, which no device measures; there are context, cpu_load"),
        (Beyond, r"split 9 with codec 'jpeg' is not in 0\.\.2"),
        (Unrecorded, "sends jpeg at split 1; on offer are {0: .'jpeg',., 1: .'uint8',.}"),
        (Unseeded, "two runs with the same seed differ"),
        (Forgetful, r"remembers more than its memory \(\), or less"),
        (Pretending, "is stateless and decides differently about the same"),
        (Guessing, "decides without the truth"),
    ],
)
def test_what_is_broken_is_said(of: type[Policy], what: str) -> None:
    with pytest.raises(AssertionError, match=what) as caught:
        check_policy(of)
    assert of.__name__ in str(caught.value)


def test_a_sound_policy_passes_with_any_parameters() -> None:
    check_policy(Sound)
    check_policy(Sound, level=0.25)


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
