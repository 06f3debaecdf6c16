"""Fitting the thresholds of an exit rule to one split. Rules that exclude classes are in exclusion.py.

Five methods:

    common      one threshold for all exits, the one of many that meets a goal best
    mean        exit i has a times the mean confidence of the samples that it gets right
                (after Passalis et al., MMSP 2020, doi 10.1109/MMSP48831.2020.9287150; the formula is inferred)
    mean-logit  exit i has a times the mean of all its logits, for the rule max_logit: Bag-of-Features exits as in the
                code of Passalis et al. (Pattern Recognition 105:107346, 2020), which calls the factor β
    balanced    exit i has the threshold at which a share of the samples in proportion to a^i leaves there; with a = 1
                every exit answers as many (the aim of Passalis et al.; thresholds by quantiles as in `budgeted`)
    budgeted    the same, with the a that meets a goal: the search of MSDNet's budgeted batch classification
                (Huang et al., ICLR 2018, arXiv 1703.09844)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, isfinite
from typing import Any

import numpy as np
from scipy.optimize import brentq

from splitexit.confidence import NO_LOGITS, RULES
from splitexit.errors import InputError, UnknownNameError, UsageError
from splitexit.recording import Part
from splitexit.tune.effects import Costs, Fit, Goal, Left, View, pick

Array = np.ndarray[Any, Any]

METHODS = ("common", "mean", "mean-logit", "balanced", "budgeted")

MULTIPLES = ("mean", "mean-logit")
"""Those whose thresholds are multiples of something."""

NEVER = {"max_prob": 2.0, "entropy": -1.0, "margin": 2.0, "confidence": 2.0, "max_logit": 1e6}
"""Thresholds that no reading meets; finite, because a scenario takes finite numbers."""

LEVELS = 401
"""Thresholds, or multiples of the mean, that a search looks at: so many quantiles of what the exits said."""

RATIOS = tuple(np.geomspace(0.05, 20.0, 121).tolist())
"""Ratios of successive shares that a search looks at. MSDNet's are 0.05 to 1.95; networks with few exits need more."""


@dataclass(frozen=True)
class Seen(View):
    """A split as a rule sees it; its levels are thresholds of `sure`.

    sure      (early exits, n): the surer the larger, so entropy has its sign turned; of `patience`, how many exits up
              to this one agreed with the one before them
    right     (exits, n): whether each exit, the final one too, is right
    max_prob  (exits, n): the largest class probability
    """

    sure: Array
    right: Array
    max_prob: Array

    @classmethod
    def of(cls, part: Part, rule: str) -> Seen:
        """Raises UnknownNameError, and InputError where the recording lacks what the rule looks at."""
        if rule not in RULES:
            raise UnknownNameError("exit rule", rule, RULES)
        if len(part.exits) < 2:
            raise InputError("this network has no early exit, so there is no threshold to choose")
        predictions = np.array([said.prediction for said in part.exits])
        max_prob = np.array([said.max_prob for said in part.exits])
        return cls(_sure(part, rule, predictions), predictions == part.label, max_prob)

    @property
    def never(self) -> Array:
        """Above whatever is said."""
        return np.full(len(self.sure), inf)

    def leave(self, levels: Array) -> Left:
        """At the first exit that is sure enough."""
        fired = np.vstack([self.sure >= levels[:, None], np.ones(self.right.shape[1], bool)])
        first = np.argmax(fired, axis=0)
        return Left(first, self.right[first, np.arange(len(first))])

    def confidence(self, levels: Array) -> Array:
        """What each sample's exit says."""
        first = self.leave(levels).exit
        found: Array = self.max_prob[first, np.arange(len(first))]
        return found


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


class Tuner:
    """Fits thresholds.

    Args:
        part: the calibration split.
        rule: one of splitexit.confidence.RULES that excludes no classes.
        costs: of the network.

    Raises what `Seen.of` raises.
    """

    def __init__(self, part: Part, rule: str, costs: Costs) -> None:
        self.rule, self.costs, self.seen, self._part = rule, costs, Seen.of(part, rule), part

    def fit(self, method: str, goal: Goal | None = None, a: float | None = None) -> Fit:
        """Thresholds by one of METHODS.

        Args:
            goal: what to search for; not with `a`, and not with `balanced`.
            a: of MULTIPLES and `balanced` (there 1 by default), with which nothing is searched.

        Raises UnknownNameError, UsageError where these do not go together or the goal is out of reach, and InputError
        where a mean to go by is not above 0.
        """
        self._check(method, goal, a)
        if method == "balanced":
            return self._balanced(method, 1.0 if a is None else a)
        if a is not None:
            return self._multiple(method, a)
        assert goal is not None
        if method == "budgeted" and goal.budget:
            return self._balanced(method, self._ratio(goal))
        return pick(self._candidates(method), goal, float(self.seen.right[-1].mean()))

    def _check(self, method: str, goal: Goal | None, a: float | None) -> None:
        if method not in METHODS:
            raise UnknownNameError("method", method, METHODS)
        if self.rule == "patience" and method != "common":
            raise UsageError(f"method {method}: patience is one whole number for all exits; take the method common")
        if method == "mean-logit" and self.rule != "max_logit":
            raise UsageError(f"method mean-logit is for the rule max_logit; for {self.rule} take the method mean")
        if method == "balanced" and goal is not None:
            raise UsageError("method balanced has its shares from a; the method budgeted looks for a goal")
        if a is not None and (goal is not None or method not in (*MULTIPLES, "balanced")):
            known = "mean, mean-logit and balanced"
            raise UsageError(f"method {method}: a is for {known}, and then there is no goal to look for")
        if a is not None and not (isfinite(a) and a >= 0):
            raise UsageError(f"a = {a:g}: expected a number of at least 0")
        if goal is None and a is None and method != "balanced":
            raise UsageError(f"method {method} looks for a goal: a budget, or the accuracy that may be lost")
        if goal is not None:
            goal.check(self.costs)

    def _fit(self, method: str, parameter: float, levels: Array) -> Fit:
        own = [NEVER[self.rule] if level == inf else sign(self.rule) * level for level in levels.tolist()]
        return Fit(self.rule, method, parameter, tuple(own), levels, self.seen.effect(levels, self.costs))

    def _candidates(self, method: str) -> Iterable[Fit]:
        if method == "common":
            return [self._common(level) for level in self._levels()]
        if method in MULTIPLES:
            return [self._multiple(method, a) for a in self._multiples(method)]
        return [self._balanced(method, ratio) for ratio in (*RATIOS, inf)]

    def _common(self, level: float) -> Fit:
        fit = self._fit("common", 0.0, np.full(len(self.seen.sure), level))
        return replace(fit, parameter=fit.thresholds[0])

    def _levels(self) -> list[float]:
        """For `common`, from never leaving to always leaving at the first exit."""
        if self.rule == "patience":
            return [float(count) for count in range(len(self.seen.sure), 0, -1)]
        return [inf, *_quantiles(self.seen.sure)[::-1]]

    def _multiple(self, method: str, a: float) -> Fit:
        return self._fit(method, a, a * self._means(method))

    def _means(self, method: str) -> Array:
        """What the thresholds of one of MULTIPLES are multiples of, (early exits,)."""
        return self._logits if method == "mean-logit" else self._rights

    @cached_property
    def _rights(self) -> Array:
        """Mean sureness of the samples that each early exit gets right."""
        right = self.seen.right[:-1]
        means = (self.seen.sure * right).sum(axis=1) / np.maximum(right.sum(axis=1), 1)
        if not (sign(self.rule) * means > 0).all():
            raise InputError(f"method mean: an exit whose {self.rule} is not above 0 on average has no multiple of it")
        return np.asarray(means)

    @cached_property
    def _logits(self) -> Array:
        """Mean of all logits of each early exit; a mean below 0 would turn the sense of the factor round."""
        said = [exit_.logits for exit_ in self._part.exits[:-1]]
        means = np.array([z.mean(dtype=np.float64) for z in said if z is not None])
        for exit_, mean in enumerate(means):
            if mean <= 0:
                raise InputError(
                    f"method mean-logit: the logits of exit {exit_} are {mean:.3g} on average, and multiples of what "
                    "is not above 0 do not go from lax to strict; take the method mean"
                )
        return means

    def _multiples(self, method: str) -> list[float]:
        """Those at which one sample more leaves somewhere, between none and all."""
        found = _quantiles(self.seen.sure / self._means(method)[:, None])
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
