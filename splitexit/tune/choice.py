"""Which exits to read: LEIME's question, for a network that has been trained.

LEIME (2021) places exits offline where the expected completion time is least, given how many samples leave at each.
Here the exits are those of a bundle: every choice of so many of them gets thresholds for the goal on the calibration
split, and the cheapest one wins. An exit that is not read costs nothing; what it would have answered goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, islice
from math import comb, isnan

from splitexit.bundle import ModelSpec
from splitexit.calibration import Calibration
from splitexit.errors import UsageError
from splitexit.recording import Part
from splitexit.tune.effects import Costs, Fit, Goal
from splitexit.tune.rules import tuner

MOST = 1000
"""Choices that are tried."""


def only(part: Part, exits: tuple[int, ...]) -> Part:
    """A split with some of its exits, in ascending order, and nothing that was sent."""
    return Part(part.name, part.sample, part.label, tuple(part.exits[e] for e in exits), {})


def costs_of(spec: ModelSpec, calibration: Calibration | None, exits: tuple[int, ...]) -> Costs:
    """What leaving costs where only these exits are read, the final one last."""
    times = None if calibration is None else replace(calibration, exits=tuple(calibration.exits[e] for e in exits))
    return Costs.of(replace(spec, exits=tuple(spec.exits[e] for e in exits)), times)


def choose_exits(
    count: int,
    part: Part,
    spec: ModelSpec,
    calibration: Calibration | None,
    rule: str,
    method: str,
    goal: Goal | None,
    a: float | None = None,
) -> Fit:
    """The best choice of `count` early exits with their thresholds.

    Of those that meet the goal, that with the least mean time, or cost where nothing was calibrated; for a budget, the
    most accurate one.

    Raises UsageError where there are not so many exits, too many choices, or none that meets the goal.
    """
    early = spec.final_exit
    if not 1 <= count <= early or comb(early, count) > MOST:
        raise UsageError(
            f"--choose-exits {count}: the model has {early} early exits; expected 1 to {early}, with no more than "
            f"{MOST} choices"
        )
    found, refused = list[Fit](), UsageError("these exits add to one another, so none of so many can be read alone")
    for chosen in _choices(spec, count):
        exits = (*chosen, spec.final_exit)
        try:
            fit = tuner(only(part, exits), rule, costs_of(spec, calibration, exits)).fit(method, goal, a)
        except UsageError as error:
            refused = error
            continue
        found.append(replace(fit, exits=chosen))
    if not found:
        raise refused
    return min(found, key=lambda fit: _worth(fit, goal))


def _choices(spec: ModelSpec, count: int) -> Iterator[tuple[int, ...]]:
    """Those in which every exit that adds to another has that one before it."""
    for chosen in islice(combinations(range(spec.final_exit), count), MOST):
        if all({*spec.evidence(exit_)} <= {*chosen} for exit_ in chosen):
            yield chosen


def _worth(fit: Fit, goal: Goal | None) -> tuple[float, float]:
    """The less, the better."""
    reached = fit.reached
    cost = reached.cost if isnan(reached.seconds) else reached.seconds
    return (-reached.accuracy, cost) if goal is not None and goal.budget else (cost, -reached.accuracy)
