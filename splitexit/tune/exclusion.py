"""Class exclusion on recorded logits (Wang, Li and Zhang, arXiv 2309.13443), and fitting its β to one split.

An exit excludes the classes whose probability is at most β times its largest one; splitexit.confidence.narrow says how,
for one reading. A sample leaves when one class is left, and the final exit chooses among the classes that are.
β = 0 excludes nothing.

Three methods:

    common   one β for all exits, the one of many that meets a goal best
    in-turn  the authors': from no exclusion, the dearest exit first, β of an exit is raised by 0.01 while the accuracy
             stays above what is asked for. It ends between 0.01 and 0.99 even where 0.01 is too much, so that the goal
             can be missed; and the exit that comes first can take all the accuracy that may be lost.
    greedy   from no exclusion, and from what `in-turn` finds, again and again the step that saves most cost for the
             accuracy that it loses, as long as the goal is kept; a step raises one exit's β, on a coarse grid first and
             then on a fine one (inferred)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf, log, nan
from typing import Any

import numpy as np
from scipy.special import softmax

from splitexit.confidence import NARROWING, NO_LOGITS
from splitexit.errors import InputError, UnknownNameError, UsageError
from splitexit.recording import ExitReadings, Part
from splitexit.tune.effects import Costs, Effect, Fit, Goal, Left, View, pick

Array = np.ndarray[Any, Any]

METHODS = ("common", "in-turn", "greedy")

STEPS = tuple(step / 100 for step in range(1, 100))
"""Every β that `in-turn` and `common` look at."""

GRID = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.55, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Every β that `greedy` looks at first, those that the authors give lying between 0.01 and 0.98; then at STEPS."""


@dataclass(frozen=True)
class Narrowed(Effect):
    """What class exclusion does to a split. By early exit, of the samples that have not left before it:

    wrongly_excluded  share of the samples whose own class is excluded; nan where none comes so far
    classes_left      how many classes remain on average, likewise
    """

    wrongly_excluded: tuple[float, ...] = ()
    classes_left: tuple[float, ...] = ()


@dataclass(frozen=True)
class Odds(View):
    """A split as class exclusion sees it; its levels are the β of the early exits.

    strict      excluded classes stay excluded
    log_p       (early exits, num_classes, n): logarithms of the sigmoids of the logits, so that none is too small
    most, best  (early exits, n): the largest of them, and its class
    final       (num_classes, n): logits of the final exit
    prediction  (n,): the class that the final exit chose from all
    label       (n,)
    """

    strict: bool
    log_p: Array
    most: Array
    best: Array
    final: Array
    prediction: Array
    label: Array

    @classmethod
    def of(cls, part: Part, rule: str) -> Odds:
        """Raises UnknownNameError, and InputError where the recording holds no logits."""
        if rule not in NARROWING:
            raise UnknownNameError("exclusion rule", rule, NARROWING)
        if len(part.exits) < 2:
            raise InputError("this network has no early exit, so there is no threshold to choose")
        *early, final = (_logits(said, rule) for said in part.exits)
        log_p = np.array([-np.logaddexp(0.0, -z) for z in early])
        return cls(
            rule == "exclusion_strict",
            log_p,
            log_p.max(axis=1),
            np.array([z.argmax(axis=0) for z in early]),
            final,
            part.exits[-1].prediction.astype(np.int64),
            part.label.astype(np.int64),
        )

    @property
    def never(self) -> Array:
        """Nothing is excluded."""
        return np.zeros(len(self.log_p))

    def remaining(self, levels: Array) -> Iterator[Array]:
        """Exit by exit the classes that it leaves of every sample, (num_classes, n) bool, also behind its own exit."""
        everyone = np.arange(len(self.label))
        kept = np.ones(self.final.shape, bool)
        for log_p, most, best, level in zip(self.log_p, self.most, self.best, levels.tolist(), strict=True):
            above = log_p > most + (log(level) if level > 0 else -inf)
            if self.strict:
                both = above & kept
                kept = np.where(both.any(axis=0), both, kept)
            else:
                readmitted = kept.copy()
                readmitted[best, everyone] = True
                kept = above & readmitted
            yield kept

    def leave(self, levels: Array) -> Left:
        """At the first exit that leaves one class, with that class."""
        exit_, prediction, _ = self._walk(levels)
        return Left(exit_, prediction == self.label)

    def confidence(self, levels: Array) -> Array:
        """1 where one class is left, else what the final exit says of its best among those left."""
        exit_, _, kept = self._walk(levels)
        found = np.ones(len(exit_))
        inside = exit_ == len(levels)
        found[inside] = softmax(np.where(kept, self.final, -inf)[:, inside], axis=0).max(axis=0, initial=0.0)
        return found

    def effect(self, levels: Array, costs: Costs) -> Narrowed:
        """What these β do."""
        left = self.leave(levels)
        wrong, classes = [], []
        for exit_, kept in enumerate(self.remaining(levels)):
            inside = left.exit >= exit_
            found = kept[:, inside]
            own = found[self.label[inside], np.arange(found.shape[1])]
            wrong.append(float(1 - own.mean()) if inside.any() else nan)
            classes.append(float(found.sum(axis=0).mean()) if inside.any() else nan)
        found_effect = Narrowed.of(left, costs, wrongly_excluded=tuple(wrong), classes_left=tuple(classes))
        assert isinstance(found_effect, Narrowed)
        return found_effect

    def _walk(self, levels: Array) -> tuple[Array, Array, Array]:
        """Exit and answer of every sample, (n,), and the classes left by the last early exit, (num_classes, n)."""
        exit_ = np.full(len(self.label), len(levels))
        prediction = np.empty_like(exit_)
        kept = np.ones(self.final.shape, bool)
        for e, kept in enumerate(self.remaining(levels)):
            alone = (exit_ == len(levels)) & (kept.sum(axis=0, dtype=np.uint16) == 1)
            exit_[alone] = e
            prediction[alone] = kept[:, alone].argmax(axis=0)
        inside = exit_ == len(levels)
        among = kept[:, inside]
        chosen = np.where(among, self.final[:, inside], -inf).argmax(axis=0)
        # Older recordings have logits of 16 bits, which may say another class than was read.
        prediction[inside] = np.where(among.all(axis=0), self.prediction[inside], chosen)
        return exit_, prediction, kept


def _logits(said: ExitReadings, rule: str) -> Array:
    """(num_classes, n) float64."""
    if said.logits is None:
        raise InputError(f"rule {rule}: {NO_LOGITS}")
    return np.ascontiguousarray(said.logits.T, np.float64)


class ExclusionTuner:
    """Fits the β of class exclusion.

    Args:
        part: the calibration split.
        rule: one of splitexit.confidence.NARROWING.
        costs: of the network.

    Raises what `Odds.of` raises.
    """

    def __init__(self, part: Part, rule: str, costs: Costs) -> None:
        self.rule, self.costs, self.odds = rule, costs, Odds.of(part, rule)
        self._whole = float((part.exits[-1].prediction == part.label).mean())

    def fit(self, method: str, goal: Goal | None = None, a: float | None = None) -> Fit:
        """β by one of METHODS.

        Args:
            goal: what to search for; `in-turn` takes an accuracy, no budget.
            a: must be None; no method of these has one.

        Raises UnknownNameError, and UsageError where these do not go together or the goal is out of reach.
        """
        if method not in METHODS:
            raise UnknownNameError(f"method of rule {self.rule}", method, METHODS)
        if a is not None or goal is None:
            raise UsageError(f"rule {self.rule}: it takes no a; give a budget or an accuracy")
        goal.check(self.costs)
        if method == "in-turn":
            return self._in_turn(goal)
        candidates = self._common() if method == "common" else self._greedy(goal)
        return pick(candidates, goal, self._whole)

    def _fit(self, method: str, levels: Array, parameter: float = nan) -> Fit:
        return Fit(self.rule, method, parameter, tuple(levels.tolist()), levels, self.odds.effect(levels, self.costs))

    def _common(self) -> Iterator[Fit]:
        for level in (0.0, *STEPS):
            yield self._fit("common", np.full(len(self.odds.log_p), level), level)

    def _in_turn(self, goal: Goal) -> Fit:
        if goal.budget:
            raise UsageError("method in-turn looks for an accuracy; for a budget take greedy")
        levels = self.odds.never
        for exit_ in np.argsort(-self.costs.macs[:-1]):
            enough = STEPS[0]
            for step in STEPS:
                levels[exit_] = step
                if not self.odds.leave(levels).right.mean() > goal.least(self._whole):
                    break
                enough = step
            levels[exit_] = enough
        return self._fit("in-turn", levels)

    def _greedy(self, goal: Goal) -> Iterator[Fit]:
        """Paths of steps, each of which makes it cheaper, until none keeps the goal."""
        yield from self._path(self.odds.never, goal)
        if not goal.budget:
            yield from self._path(self._in_turn(goal).levels, goal)

    def _path(self, start: Array, goal: Goal) -> Iterator[Fit]:
        least = goal.least(self._whole)
        fit = self._fit("greedy", start)
        yield fit
        for higher in (_on_grid, _up_to_grid):
            while not goal.budget or goal.cost(fit.reached) > goal.value:
                step = self._best_step(fit.levels, fit.reached, least, higher)
                if step is None:
                    break
                fit = self._fit("greedy", step)
                yield fit

    def _best_step(
        self, levels: Array, now: Effect, least: float, higher: Callable[[float], Sequence[float]]
    ) -> Array | None:
        """The step that saves most for what it loses; of those that lose nothing, the one that saves most."""
        best, merit = None, (0, 0.0)
        for exit_, level in enumerate(levels.tolist()):
            for value in higher(level):
                trial = levels.copy()
                trial[exit_] = value
                found = Effect.of(self.odds.leave(trial), self.costs)
                saved, lost = now.cost - found.cost, now.accuracy - found.accuracy
                if saved <= 0 or found.accuracy < least:
                    continue
                of_step = (1, saved) if lost <= 0 else (0, saved / lost)
                if of_step > merit:
                    best, merit = trial, of_step
        return best


def _on_grid(level: float) -> Sequence[float]:
    return [value for value in GRID if value > level]


def _up_to_grid(level: float) -> Sequence[float]:
    """The finer ones, up to the next on the grid."""
    return [value for value in STEPS if level < value <= min(_on_grid(level), default=level)]
