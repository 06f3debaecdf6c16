"""What thresholds do to a split: who leaves where, how often rightly, and what that costs.

All early exits are read, and what follows the last one runs on the same machine. A sample that leaves at an exit has
paid for every stage and every head up to it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from math import log, nan
from typing import Any, Literal

import numpy as np
from scipy.special import entr

from splitexit.bundle import ModelSpec
from splitexit.calibration import Calibration
from splitexit.errors import UsageError
from splitexit.report.curve import exit_costs
from splitexit.tune.temperature import ece

Array = np.ndarray[Any, Any]
Kind = Literal["lose", "accuracy", "macs", "seconds"]


@dataclass(frozen=True)
class Costs:
    """What a sample costs that leaves at each exit: (exits,).

    macs     multiply-accumulates relative to the exit-free network
    seconds  mean on the calibrated machine; nan without calibration
    """

    macs: Array
    seconds: Array

    @classmethod
    def of(cls, spec: ModelSpec, calibration: Calibration | None) -> Costs:
        """Of a network that runs on one machine."""
        macs = exit_costs(spec) / spec.macs
        if calibration is None:
            return cls(macs, np.full(len(macs), nan))
        stages = np.cumsum([stage.mean for stage in calibration.stages])
        heads = np.cumsum([head.mean for head in calibration.exits])
        return cls(macs, stages[np.array(spec.exit_stages) - 1] + heads)


@dataclass(frozen=True)
class Left:
    """Where each of n samples left, and whether its answer was right: (n,) each."""

    exit: Array
    right: Array


@dataclass(frozen=True)
class Effect:
    """What thresholds do to a split.

    accuracy    share of right answers
    cost        mean, in MACs relative to the exit-free network; `seconds` as in Costs
    shares      of the samples that leave at each exit
    accuracies  among those; nan where none leaves
    """

    accuracy: float
    cost: float
    seconds: float
    shares: tuple[float, ...]
    accuracies: tuple[float, ...]

    @classmethod
    def of(cls, left: Left, costs: Costs, **more: Any) -> Effect:
        """Of samples that left so; `more` are fields that a subclass adds."""
        exits = len(costs.macs)
        counts = np.bincount(left.exit, minlength=exits)
        hits = np.bincount(left.exit, weights=left.right, minlength=exits)
        shares = counts / len(left.exit)
        return cls(
            float(left.right.mean()),
            float(shares @ costs.macs),
            float(shares @ costs.seconds),
            tuple(shares.tolist()),
            tuple(hit / count if count else nan for hit, count in zip(hits.tolist(), counts.tolist(), strict=True)),
            **more,
        )

    @property
    def balance(self) -> float:
        """Entropy of the shares relative to that of equal ones: 0 where one exit answers all, 1 where all do alike."""
        return float(entr(self.shares).sum() / log(len(self.shares)))

    def document(self) -> dict[str, Any]:
        """As plain data."""
        return vars(self) | {"balance": self.balance}


class View(ABC):
    """A split as an exit rule sees it.

    A rule has one `level` for every early exit, the higher the stricter or, for class exclusion, the laxer.
    """

    @property
    @abstractmethod
    def never(self) -> Array:
        """Levels, (early exits,), with which no sample leaves early."""

    @abstractmethod
    def leave(self, levels: Array) -> Left:
        """Who leaves where under these levels, (early exits,)."""

    @abstractmethod
    def confidence(self, levels: Array) -> Array:
        """(n,) the largest class probability of the answers that are given under these levels."""

    def effect(self, levels: Array, costs: Costs) -> Effect:
        """What these levels do."""
        return Effect.of(self.leave(levels), costs)

    def ece(self, levels: Array) -> tuple[float, ...]:
        """Expected calibration error of the answers of every exit, over the samples that leave there; nan for none."""
        left, confidence = self.leave(levels), self.confidence(levels)
        of_exit = [left.exit == exit_ for exit_ in range(len(levels) + 1)]
        return tuple(ece(confidence[who], left.right[who]) if who.any() else nan for who in of_exit)


@dataclass(frozen=True)
class Goal:
    """What thresholds are to achieve on the split that they are fitted to.

    lose      at most this share of accuracy is lost against never leaving early, as cheaply as possible
    accuracy  at least this share of the answers is right, as cheaply as possible
    macs      a mean cost of at most this, in MACs relative to the exit-free network, as accurately as possible
    seconds   likewise in seconds
    """

    kind: Kind
    value: float

    @property
    def budget(self) -> bool:
        """Whether it is the cost that is given."""
        return self.kind in ("macs", "seconds")

    def least(self, whole: float) -> float:
        """The accuracy that is needed where that of never leaving early is `whole`; none for a budget."""
        return {"lose": whole - self.value, "accuracy": self.value}.get(self.kind, 0.0)

    def costs(self, costs: Costs) -> Array:
        """By exit, in the goal's unit."""
        return costs.seconds if self.kind == "seconds" else costs.macs

    def cost(self, found: Effect) -> float:
        """Mean, in the goal's unit."""
        return found.seconds if self.kind == "seconds" else found.cost

    def shown(self, cost: float) -> str:
        """A cost in the goal's unit."""
        return f"{1e3 * cost:.3f} ms" if self.kind == "seconds" else f"{cost:.1%} of the exit-free network"

    def check(self, costs: Costs) -> None:
        """Raises UsageError where the costs do not have the goal's unit."""
        if np.isnan(self.costs(costs)[0]):
            raise UsageError("a budget of seconds needs a calibration; `splitexit calibrate` makes one")


@dataclass(frozen=True)
class Fit:
    """Thresholds for all early exits, in the rule's own sense.

    parameter  the one number that they follow from, where there is one (see the methods); else nan
    levels     the same thresholds as a View takes them
    reached    what they do to the split that they were fitted to
    exits      the early exits that they are of; empty for all
    """

    rule: str
    method: str
    parameter: float
    thresholds: tuple[float, ...]
    levels: Array
    reached: Effect
    exits: tuple[int, ...] = ()

    def policy(self) -> dict[str, Any]:
        """An entry of a scenario's `policies`."""
        chosen = {"exits": list(self.exits)} if self.exits else {}
        return {"name": "threshold", "rule": self.rule, **chosen, "thresholds": list(self.thresholds)}


def pick(candidates: Iterable[Fit], goal: Goal, whole: float) -> Fit:
    """The best that meets the goal; `whole` is the accuracy without leaving early. Raises UsageError without any."""
    candidates = list(candidates)
    if not goal.budget:
        enough = [fit for fit in candidates if fit.reached.accuracy >= goal.least(whole)]
        if not enough:
            asked = "lose at most" if goal.kind == "lose" else "are right in at least"
            raise UsageError(f"out of reach: no thresholds of this method {asked} {goal.value:.2%}")
        return min(enough, key=lambda fit: fit.reached.cost)
    cheap = [fit for fit in candidates if goal.cost(fit.reached) <= goal.value]
    if not cheap:
        least = min(goal.cost(fit.reached) for fit in candidates)
        raise UsageError(f"out of reach: the cheapest thresholds of this method cost {goal.shown(least)}")
    return max(cheap, key=lambda fit: (fit.reached.accuracy, -goal.cost(fit.reached)))
