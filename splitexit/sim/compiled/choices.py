"""Which journey every request makes: the policy's decisions for a group of devices, taken beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from splitexit.decision import Plan
from splitexit.experiment import Experiment
from splitexit.fleet import Group
from splitexit.inference import Decider
from splitexit.recording import Part
from splitexit.sim.compiled.journeys import Given, Journey, Path, journey
from splitexit.sim.compiled.layout import Array
from splitexit.sim.compiled.requests import Positions

EVERY_SAMPLE = 4
"""With one request in so many samples, every sample is driven without looking which are used."""


@dataclass
class Choices:
    """The journeys of a group.

    Journey number n is that of plan n // samples for the sample at position n % samples.

    plan        per device, the plan of each request; None where one plan (or policy) serves all
    journeys    by number; only those that are needed
    paths       the distinct ones among them
    """

    samples: int
    plans: int
    plan: dict[int, Array] | None
    journeys: dict[int, Journey]

    @property
    def paths(self) -> list[Path]:
        """The distinct paths, in order of first use."""
        return list(dict.fromkeys(found.path for found in self.journeys.values()))

    def numbers(self, device: int, first: int, positions: Array) -> Array:
        """Journey numbers of a device's requests from `first` on, which fall on these samples."""
        if self.plan is None:
            return positions
        return self.plan[device][first : first + len(positions)] * self.samples + positions


def choose(experiment: Experiment, policy: str, seed: int, group: Group, requests: int) -> Choices:
    """Takes all decisions of a group whose policy is predictable (splitexit.sim.compiled.support)."""
    decider = experiment.decider(policy, seed, group.first)
    if not decider.policy.stateless:
        return _asked_in_order(experiment, policy, seed, group, requests)
    key = ("choices", policy, group.number)
    known: Choices = experiment.known.setdefault(key, Choices(len(experiment.recording.test), 1, None, {}))
    for number in _wanted(experiment, seed, group, requests).tolist():
        if number not in known.journeys:
            known.journeys[number] = journey(decider, experiment.recording.test, number)
    return known


def _wanted(experiment: Experiment, seed: int, group: Group, requests: int) -> Array:
    """Positions of the samples that requests fall on, or all where that is about as many."""
    pool = experiment.pool
    if EVERY_SAMPLE * group.count * requests >= len(pool):
        return pool
    used = [Positions(pool, seed, device).take(requests) for device in group.devices]
    return np.unique(np.concatenate(used))


def _asked_in_order(experiment: Experiment, policy: str, seed: int, group: Group, requests: int) -> Choices:
    """A policy with a memory of its own, but no eyes: every device's instance is asked once per request."""
    part, plans = experiment.recording.test, dict[Plan, int]()
    plan, used = dict[int, Array](), set[int]()
    for device in group.devices:
        decider = experiment.decider(policy, seed, device)
        said = (decider.decide([], 0) for _ in range(requests))
        plan[device] = np.fromiter((plans.setdefault(one, len(plans)) for one in said), np.int32, requests)
        positions = Positions(experiment.pool, seed, device).take(requests)
        used.update(np.unique(plan[device] * len(part) + positions).tolist())
    return Choices(len(part), len(plans), plan, _driven(decider, list(plans), part, used))


def _driven(decider: Decider, plans: list[Plan], part: Part, numbers: set[int]) -> dict[int, Journey]:
    given = [Given(decider, plan) for plan in plans]
    driven = {}
    for number in sorted(numbers):
        plan, position = divmod(number, len(part))
        driven[number] = journey(given[plan], part, position)
    return driven
