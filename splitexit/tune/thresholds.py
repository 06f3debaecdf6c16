"""Fitting the thresholds of an exit rule to one split, and what thresholds do to a split.

Four methods:

    common    one threshold for all exits, the one of many that meets a goal best
    mean      exit i has a times the mean confidence of the samples that it gets right
              (after Passalis et al., MMSP 2020, doi 10.1109/MMSP48831.2020.9287150; the formula is inferred)
    balanced  exit i has the threshold at which a share of the samples in proportion to a^i leaves there; with a = 1
              every exit answers as many (the aim of Passalis et al.; thresholds by quantiles as in `budgeted`)
    budgeted  the same, with the a that meets a goal: the search of MSDNet's budgeted batch classification
              (Huang et al., ICLR 2018, arXiv 1703.09844)

All early exits are read, and what follows the last one runs on the same machine. A sample that leaves at an exit has
paid for every stage and every head up to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, isfinite, isnan, log, nan
from typing import Any, Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import entr

from splitexit.bundle import ModelSpec
from splitexit.calibration import Calibration
from splitexit.confidence import NO_LOGITS, RULES
from splitexit.errors import InputError, UnknownNameError, UsageError
from splitexit.recording import Part
from splitexit.report.curve import exit_costs

Array = np.ndarray[Any, Any]

METHODS = ("common", "mean", "balanced", "budgeted")

NEVER = {"max_prob": 2.0, "entropy": -1.0, "margin": 2.0, "confidence": 2.0, "max_logit": 1e6}
"""Thresholds that no reading meets; finite, because a scenario takes finite numbers."""

LEVELS = 401
"""Thresholds, or multiples of the mean, that a search looks at: so many quantiles of what the exits said."""

RATIOS = tuple(np.geomspace(0.05, 20.0, 121).tolist())
"""Ratios of successive shares that a search looks at. MSDNet's are 0.05 to 1.95; networks with few exits need more."""


@dataclass(frozen=True)
class Seen:
    """A split as a rule sees it.

    sure   (early exits, n): the surer the larger, so entropy has its sign turned; of `patience`, how many exits up to
           this one agreed with the one before them
    right  (exits, n): whether each exit, the final one too, is right
    """

    sure: Array
    right: Array

    @classmethod
    def of(cls, part: Part, rule: str) -> Seen:
        """Raises UnknownNameError, and InputError where the recording lacks what the rule looks at."""
        if rule not in RULES:
            raise UnknownNameError("exit rule", rule, RULES)
        if len(part.exits) < 2:
            raise InputError("this network has no early exit, so there is no threshold to choose")
        predictions = np.array([said.prediction for said in part.exits])
        return cls(_sure(part, rule, predictions), predictions == part.label)


def _sure(part: Part, rule: str, predictions: Array) -> Array:
    early = part.exits[:-1]
    if rule == "patience":
        return _agreeing(predictions[:-1])
    if rule == "max_logit":
        logits = [said.logits for said in early if said.logits is not None]
        if len(logits) < len(early):
            raise InputError(f"rule max_logit: {NO_LOGITS}")
        return np.array([z.max(axis=1) for z in logits], np.float64)
    columns = [getattr(said, rule) for said in early]
    if any(column is None for column in columns):
        lacking = next(e for e, column in enumerate(columns) if column is None)
        raise InputError(f"rule {rule}: exit {lacking} learned none; its head has no such branch")
    return sign(rule) * np.array(columns, np.float64)


def _agreeing(predictions: Array) -> Array:
    """How many exits in a row, up to each, said what the one before them said: PABEE's counter."""
    counts = np.zeros(predictions.shape)
    for e in range(1, len(predictions)):
        counts[e] = np.where(predictions[e] == predictions[e - 1], counts[e - 1] + 1, 0)
    return counts


def sign(rule: str) -> float:
    """-1 where a smaller number is surer."""
    return -1.0 if rule == "entropy" else 1.0


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

    @property
    def balance(self) -> float:
        """Entropy of the shares relative to that of equal ones: 0 where one exit answers all, 1 where all do alike."""
        return float(entr(self.shares).sum() / log(len(self.shares)))


def leaving(seen: Seen, levels: Array) -> Array:
    """(n,) the exit at which each sample leaves under these levels of `Seen.sure`, one for every early exit."""
    fired = np.vstack([seen.sure >= levels[:, None], np.ones(seen.right.shape[1], bool)])
    first: Array = np.argmax(fired, axis=0)
    return first


def effect(seen: Seen, levels: Array, costs: Costs) -> Effect:
    """What these levels of `Seen.sure`, one for every early exit, do."""
    leaves = leaving(seen, levels)
    right = seen.right[leaves, np.arange(len(leaves))]
    counts = np.bincount(leaves, minlength=len(seen.right))
    hits = np.bincount(leaves, weights=right, minlength=len(seen.right))
    shares = counts / len(leaves)
    return Effect(
        float(right.mean()),
        float(shares @ costs.macs),
        float(shares @ costs.seconds),
        tuple(shares.tolist()),
        tuple(hit / count if count else nan for hit, count in zip(hits.tolist(), counts.tolist(), strict=True)),
    )


@dataclass(frozen=True)
class Goal:
    """What thresholds are to achieve on the split that they are fitted to.

    lose     at most this share of accuracy is lost against never leaving early, as cheaply as possible
    macs     a mean cost of at most this, in MACs relative to the exit-free network, as accurately as possible
    seconds  likewise in seconds
    """

    kind: Literal["lose", "macs", "seconds"]
    value: float

    def costs(self, costs: Costs) -> Array:
        """By exit, in the goal's unit."""
        return costs.seconds if self.kind == "seconds" else costs.macs

    def shown(self, cost: float) -> str:
        """A cost in the goal's unit."""
        return f"{1e3 * cost:.3f} ms" if self.kind == "seconds" else f"{cost:.1%} of the exit-free network"


@dataclass(frozen=True)
class Fit:
    """Thresholds for all early exits, in the rule's own sense.

    parameter  the a of `mean`, `balanced` and `budgeted`, the threshold of `common`
    reached    what they do to the split that they were fitted to
    """

    rule: str
    method: str
    parameter: float
    thresholds: tuple[float, ...]
    reached: Effect

    @property
    def levels(self) -> Array:
        """In the sense of `Seen.sure`."""
        return sign(self.rule) * np.array(self.thresholds)

    def policy(self) -> dict[str, Any]:
        """An entry of a scenario's `policies`."""
        return {"name": "threshold", "rule": self.rule, "thresholds": list(self.thresholds)}


class Tuner:
    """Fits thresholds.

    Args:
        part: the calibration split.
        rule: one of splitexit.confidence.RULES.
        costs: of the network.

    Raises what `Seen.of` raises.
    """

    def __init__(self, part: Part, rule: str, costs: Costs) -> None:
        self.rule, self.costs, self.seen = rule, costs, Seen.of(part, rule)

    def fit(self, method: str, goal: Goal | None = None, a: float | None = None) -> Fit:
        """Thresholds by one of METHODS.

        Args:
            goal: what to search for; not with `a`, and not with `balanced`.
            a: of `mean` and `balanced` (there 1 by default), with which nothing is searched.

        Raises UnknownNameError, UsageError where these do not go together or the goal is out of reach, and InputError
        where `mean` has no mean to go by.
        """
        self._check(method, goal, a)
        if method == "balanced":
            return self._balanced(method, 1.0 if a is None else a)
        if a is not None:
            return self._mean(a)
        assert goal is not None
        if method == "budgeted" and goal.kind != "lose":
            return self._balanced(method, self._ratio(goal))
        return self._pick(self._candidates(method), goal)

    def _check(self, method: str, goal: Goal | None, a: float | None) -> None:
        if method not in METHODS:
            raise UnknownNameError("method", method, METHODS)
        if self.rule == "patience" and method != "common":
            raise UsageError(f"method {method}: patience is one whole number for all exits; take the method common")
        if method == "balanced" and goal is not None:
            raise UsageError("method balanced has its shares from a; the method budgeted looks for a goal")
        if a is not None and (goal is not None or method not in ("mean", "balanced")):
            raise UsageError(f"method {method}: a is for mean and balanced, and then there is no goal to look for")
        if a is not None and not (isfinite(a) and a >= 0):
            raise UsageError(f"a = {a:g}: expected a number of at least 0")
        if goal is None and a is None and method != "balanced":
            raise UsageError(f"method {method} looks for a goal: a budget, or the accuracy that may be lost")
        if goal is not None and isnan(goal.costs(self.costs)[0]):
            raise UsageError("a budget of seconds needs a calibration; `splitexit calibrate` makes one")

    def _fit(self, method: str, parameter: float, levels: Array) -> Fit:
        own = [NEVER[self.rule] if level == inf else sign(self.rule) * level for level in levels.tolist()]
        return Fit(self.rule, method, parameter, tuple(own), effect(self.seen, levels, self.costs))

    def _candidates(self, method: str) -> Iterable[Fit]:
        if method == "common":
            return [self._common(level) for level in self._levels()]
        if method == "mean":
            return [self._mean(a) for a in self._multiples()]
        return [self._balanced(method, ratio) for ratio in (*RATIOS, inf)]

    def _common(self, level: float) -> Fit:
        fit = self._fit("common", 0.0, np.full(len(self.seen.sure), level))
        return replace(fit, parameter=fit.thresholds[0])

    def _levels(self) -> list[float]:
        """For `common`, from never leaving to always leaving at the first exit."""
        if self.rule == "patience":
            return [float(count) for count in range(len(self.seen.sure), 0, -1)]
        return [inf, *_quantiles(self.seen.sure)[::-1]]

    def _mean(self, a: float) -> Fit:
        return self._fit("mean", a, a * self._means)

    @cached_property
    def _means(self) -> Array:
        """Mean sureness of the samples that each early exit gets right, (early exits,)."""
        right = self.seen.right[:-1]
        means = (self.seen.sure * right).sum(axis=1) / np.maximum(right.sum(axis=1), 1)
        if not (sign(self.rule) * means > 0).all():
            raise InputError(f"method mean: an exit whose {self.rule} is not above 0 on average has no multiple of it")
        return np.asarray(means)

    def _multiples(self) -> list[float]:
        """For `mean`: those at which one sample more leaves somewhere, between none and all."""
        found = _quantiles(self.seen.sure / self._means[:, None])
        beyond = 1e-6  # more than rounding takes away
        return [found[0] - beyond, *found, found[-1] + beyond]

    def _balanced(self, method: str, a: float) -> Fit:
        return self._fit(method, a, balanced(self.seen.sure, shares(a, len(self.seen.right))))

    def _ratio(self, goal: Goal) -> float:
        """The ratio of successive shares at which the mean cost is the goal's; the cost rises with it."""
        costs = goal.costs(self.costs)
        if goal.value < costs[0]:
            raise UsageError(f"out of reach: leaving at the first exit alone costs {goal.shown(costs[0])}")

        def excess(exponent: float) -> float:
            return float(shares(np.exp(exponent), len(costs)) @ costs) - goal.value

        widest = 40.0  # e^±40: all but 4e-18 of the samples leave at one end
        if excess(-widest) >= 0:
            return 0.0
        if excess(widest) <= 0:
            return inf
        return float(np.exp(brentq(excess, -widest, widest)))

    def _pick(self, candidates: Iterable[Fit], goal: Goal) -> Fit:
        """The best that meets the goal."""
        candidates = list(candidates)
        if goal.kind == "lose":
            least = self.seen.right[-1].mean() - goal.value
            enough = [fit for fit in candidates if fit.reached.accuracy >= least]
            if not enough:
                raise UsageError(f"out of reach: no thresholds of this method lose at most {goal.value:.2%}")
            return min(enough, key=lambda fit: fit.reached.cost)
        cheap = [fit for fit in candidates if _cost(fit, goal) <= goal.value]
        if not cheap:
            least = min(_cost(fit, goal) for fit in candidates)
            raise UsageError(f"out of reach: the cheapest thresholds of this method cost {goal.shown(least)}")
        return max(cheap, key=lambda fit: (fit.reached.accuracy, -_cost(fit, goal)))


def _cost(fit: Fit, goal: Goal) -> float:
    return fit.reached.seconds if goal.kind == "seconds" else fit.reached.cost


def _quantiles(values: Array) -> list[float]:
    """Distinct ones, ascending, each of them a value that occurs."""
    found: list[float] = np.unique(np.quantile(values, np.linspace(0.0, 1.0, LEVELS), method="nearest")).tolist()
    return found


def shares(a: float, exits: int) -> Array:
    """(exits,) in proportion to a^0, a^1, …, with sum 1; a = inf: all at the last."""
    if a == inf:
        return np.asarray(np.eye(exits)[-1])
    powers = np.arange(exits) - (exits - 1 if a > 1 else 0)  # of 1 at most, so that nothing overflows
    weights = np.float64(a) ** powers
    return np.asarray(weights / weights.sum())


def balanced(sure: Array, wanted: Sequence[float] | Array) -> Array:
    """Levels at which the `wanted` shares of the samples leave, exit by exit, the surest first.

    Args:
        sure: (early exits, n).
        wanted: of every exit, the final one too; sum 1.

    Returns:
        (early exits,), inf where none is to leave. Of equally sure samples all leave, and fewer at the exits behind.
        Where no two are equally sure, shares are as wanted to 1/n.
    """
    count = sure.shape[1]
    levels: list[float] = []
    inside = np.ones(count, bool)
    gone_by = np.rint(np.cumsum(wanted) * count).astype(int)[:-1]
    for of_exit, until in zip(sure, gone_by, strict=True):
        still = np.sort(of_exit[inside])[::-1]
        leaving = until - (count - len(still))
        levels.append(still[leaving - 1] if leaving > 0 else inf)
        inside &= of_exit < levels[-1]
    return np.array(levels, np.float64)
