"""What every policy must hold, whatever it decides; for the policies of the table and for yours.

    from splitexit.contract import check_policy

    def test_contract() -> None:
        check_policy(MyPolicy, threshold=0.5)

`check_policy` raises AssertionError with a line that says what is broken. It runs CHECKS one after another, each a
function of a `Subject`, in a made-up world (`splitexit.contract.world`), or in an experiment of yours.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from splitexit import memory
from splitexit.confidence import fires
from splitexit.contract.world import made_up
from splitexit.decision import EdgeLoad, Observation, Outcome, Plan
from splitexit.errors import PolicyError
from splitexit.experiment import Experiment
from splitexit.policies import OmniscientPolicy, Policy
from splitexit.results import FALLBACK
from splitexit.scenario import Spec
from splitexit.scenario.signature import signature_model
from splitexit.sense import Sense
from splitexit.sim import simulate
from splitexit.streams import POLICY, stream

ASKED = 150
"""How often a policy is asked where it is asked outside a run."""


@dataclass(frozen=True)
class _Made(Spec):
    """Makes the class itself, wherever it comes from."""

    of: type[Policy]

    def create(self) -> Policy:
        return self.of(**self.parameters)


@dataclass(frozen=True)
class Subject:
    """A policy's class with its hyper-parameters, and the experiment that it is tried in."""

    of: type[Policy]
    arguments: Mapping[str, Any]
    world: Experiment

    @cached_property
    def experiment(self) -> Experiment:
        """The world, with the policy under the label `tried`."""
        spec = _Made("policy", self.of.__name__, dict(self.arguments), self.of)
        scenario = self.world.scenario.model_copy(update={"policies": {"tried": spec}})
        return Experiment(scenario, self.world.bundle, self.world.recording, self.world.host, self.world.subset)

    @property
    def knowing(self) -> bool:
        """Whether it decides with the truth."""
        return issubclass(self.of, OmniscientPolicy)

    def prepared(self, seed: int = 0) -> Policy:
        """A new one, ready to decide."""
        policy = self.of(**self.arguments)
        policy.prepare(self.world.setting(), stream(seed, POLICY, 0))
        return policy

    def observation(self, rng: np.random.Generator) -> Observation:
        """What a device might see, of what the policy reads; no exit was read yet."""
        sense = Sense(self.world.setting().link, self.of.reads)
        for request in range(int(rng.integers(0, 4))):
            sense.sent(request, 0.0)
            if rng.random() < 0.5:
                sense.replied(request, int(rng.integers(1, 9999)), float(rng.exponential(0.1)), EdgeLoad(3, 0.5))
        return sense.observe(float(rng.exponential(10)), (), int(rng.integers(0, 50)), float(rng.exponential(10)))

    def outcome(self, plan: Plan, sample: int, rng: np.random.Generator) -> Outcome:
        """How a request might end: the exits that were read, and the final exit on the edge."""
        part, final = self.world.recording.calibration, self.world.spec.final_exit
        readings = tuple(part.readings(check.exit)[sample] for check in plan.exits)
        fired = any(fires(check, [r]) for check, r in zip(plan.exits, readings, strict=True))
        last, response_s = part.readings(final)[sample], float(rng.exponential(0.1))
        if plan.split is None or fired:
            said = readings if fired else (*readings, last)
            return Outcome(plan, said, response_s, "device")
        if rng.random() < 0.1:
            return Outcome(plan, (*readings, last), response_s, "fallback", 900, response_s)
        return Outcome(plan, readings, response_s, "edge", 900, response_s / 2, 0.01, 0.02, last)

    def asked(self, policy: Policy, seed: int) -> list[Plan]:
        """Its plans, with what comes of them learned in between."""
        rng, plans = np.random.default_rng(seed), list[Plan]()
        for _ in range(ASKED):
            plan = policy.decide(self.observation(rng))
            policy.learn(self.outcome(plan, int(rng.integers(len(self.world.recording.calibration))), rng))
            plans.append(plan)
        return plans


Check = Callable[[Subject], None]


def check_policy(of: type[Policy], /, *, world: Experiment | None = None, **arguments: Any) -> None:
    """Raises AssertionError where a policy breaks the contract, and what the policy itself raises.

    Args:
        of: its class.
        world: an experiment to try it in; by default a made-up one with three stages, `jpeg` at split 0 and `uint8` at
            split 1.
        arguments: its hyper-parameters.
    """
    subject = Subject(of, arguments, world or made_up())
    for check in CHECKS:
        check(subject)


def _hold(condition: bool, subject: Subject, what: str) -> None:
    if not condition:
        raise AssertionError(f"{subject.of.__module__}.{subject.of.__name__}: {what}")


def is_a_policy(subject: Subject) -> None:
    """A subclass of Policy with a docstring, which reads only what an observation has."""
    _hold(issubclass(subject.of, Policy), subject, "expected a subclass of splitexit.policies.Policy")
    _hold(bool(subject.of.__doc__), subject, "says nothing of itself: give it a docstring")
    unknown = sorted(subject.of.reads - Observation.FIELDS)
    known = ", ".join(sorted(Observation.FIELDS))
    _hold(not unknown, subject, f"reads {', '.join(unknown)}, which no device measures; there are {known}")


def stores_its_hyper_parameters(subject: Subject) -> None:
    """Keywords with types, stored unchanged under their names: what makes them keys of a scenario."""
    parameters = [p for p in inspect.signature(subject.of).parameters.values() if p.name != "self"]
    for parameter in parameters:
        word = f"hyper-parameter {parameter.name!r}"
        _hold(parameter.kind is parameter.KEYWORD_ONLY, subject, f"{word} can be given without its name: put * first")
    policy = subject.of(**subject.arguments)
    for parameter in parameters:
        given = subject.arguments.get(parameter.name, parameter.default)
        kept = getattr(policy, parameter.name, None)
        changed = f"hyper-parameter {parameter.name!r} is not stored unchanged: given {given!r}, found {kept!r}"
        _hold(kept == given, subject, changed)
    signature_model(subject.of)  # raises InputError for types that no scenario can give


def plans_are_valid_for_any_observation(subject: Subject) -> None:
    """Whatever it sees, its plan is possible for the model, and sends what is on offer."""
    if subject.knowing:
        return
    policy, rng, offered = subject.prepared(), np.random.default_rng(0), subject.world.setting().codecs
    for _ in range(ASKED):
        plan = policy.decide(subject.observation(rng))
        try:
            plan.check(subject.world.spec)
        except PolicyError as error:
            raise AssertionError(f"{subject.of.__name__}: {error}") from error
        offer = plan.split is None or plan.codec in offered.get(plan.split, ())
        _hold(offer, subject, f"sends {plan.codec} at split {plan.split}; on offer are {dict(offered)}")


def equal_seeds_give_equal_rows(subject: Subject) -> None:
    """Chance comes from the generator that `prepare` is given, and from nowhere else."""
    first, second = (simulate(subject.experiment, "tried", 3, 60) for _ in range(2))
    _hold(repr(first) == repr(second), subject, "two runs with the same seed differ: draw only from prepare's rng")


def every_request_ends_in_one_row(subject: Subject) -> None:
    """Nothing is lost, and the parts of every response add up; a fallback may wait for the processor on top of them."""
    rows = simulate(subject.experiment, "tried", 1, 120)
    _hold(sorted(row.request for row in rows) == list(range(120)), subject, "not every request has one row")
    for row in rows:
        parts = (row.device_compute_s, row.encode_s, row.network_s, row.edge_wait_s, row.edge_compute_s)
        apart_s = row.response_s - (row.start_s - row.arrival_s + sum(parts))
        adds_up = abs(apart_s) < 1e-9 or (apart_s > 0 and row.answered_by == FALLBACK)
        _hold(adds_up and min(parts) >= 0, subject, f"request {row.request}: its parts do not add up")


def only_knowing_policies_see_the_truth(subject: Subject) -> None:
    """One that decides with the truth says so by its class, and does not decide without."""
    if not subject.knowing:
        return
    try:
        subject.of(**subject.arguments).decide(Observation())
    except TypeError:
        return
    _hold(False, subject, "is an OmniscientPolicy and decides without the truth")


def stateless_means_it(subject: Subject) -> None:
    """A stateless policy remembers nothing and gives the same plan for the same observation."""
    if not subject.of.stateless:
        return
    _hold(not subject.of.memory, subject, "is stateless and names a memory")
    _hold(subject.of.learn is Policy.learn, subject, "is stateless and learns")
    policy, seen = subject.prepared(), subject.observation(np.random.default_rng(1))
    plans = {repr(policy.decide(seen)) for _ in range(20)}
    _hold(len(plans) == 1, subject, "is stateless and decides differently about the same")


def memory_goes_on_elsewhere(subject: Subject) -> None:
    """Saved to a file and restored into a new one, it decides as if it had never stopped."""
    if subject.knowing or subject.of.stateless:
        return
    first, second = subject.prepared(), subject.prepared()
    subject.asked(first, 1)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "memory.json"
        memory.save(first, file)
        memory.load(second, file)
    same = subject.asked(first, 2) == subject.asked(second, 2)
    _hold(same, subject, f"remembers more than its memory {subject.of.memory}, or less")


CHECKS: tuple[Check, ...] = (
    is_a_policy,
    stores_its_hyper_parameters,
    plans_are_valid_for_any_observation,
    equal_seeds_give_equal_rows,
    every_request_ends_in_one_row,
    only_knowing_policies_see_the_truth,
    stateless_means_it,
    memory_goes_on_elsewhere,
)
"""In the order in which `check_policy` runs them."""
