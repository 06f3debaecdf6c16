"""What a trained network says of images it was not trained on, and how it compares with its exit-free twin.

Choices (temperatures, thresholds) are made on the validation images that the training kept apart; the test images are
looked at once. Images pass through in batches: a reading differs from that of a live run by rounding alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any

import numpy as np
import torch
from scipy.stats import bootstrap

from splitexit.bundle import Bundle, ModelSpec
from splitexit.confidence import NARROWING
from splitexit.errors import InputError, UsageError
from splitexit.models import data, multi_exit
from splitexit.models.evaluate import plain_batches
from splitexit.recording import ExitReadings, Part, Recording
from splitexit.report.curve import single_exits
from splitexit.tune.effects import Costs, Effect, Fit, Goal, View
from splitexit.tune.exclusion import Narrowed
from splitexit.tune.rules import AnyTuner, tuner, view
from splitexit.tune.temperature import temper
from splitexit.tune.thresholds import Seen

Array = np.ndarray[Any, Any]

FORMAT = 4
"""Of the document; to be raised with every change of what is in it, so that scores that are kept are made again."""

HELD = 0.5
"""Points of accuracy that a method may lose against its twin: what the papers call "without loss"."""

SMALL = 0.2
"""The share of the twin's cost at which EENets are said to be as accurate (arXiv 2409.05336, abstract)."""

COMPARED = ("max_prob", "entropy", "margin", "patience")
"""Rules that every method is used with at the cost of its own."""

SPREAD = ("common", "mean", "budgeted")
"""Methods of fitting thresholds whose exit shares are compared: one threshold for all exits, or one for each."""

TOLERANCES = (0.0, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
"""Shares of accuracy that may be lost on the calibration split: the points of the curve of class exclusion."""

LEVELS = 41
RESAMPLES = 2000
CONFIDENCE = 0.95


def listen(bundle: Bundle, validation: data.ImageSet, test: data.ImageSet, device: torch.device) -> Recording:
    """What the network says of both sets, run in batches, with logits."""
    net = multi_exit.load(bundle).to(device)
    parts = {name: _part(name, net, images, device) for name, images in (("calibration", validation), ("test", test))}
    return Recording(parts, bundle.spec.num_classes, {})


@torch.inference_mode()
def _part(name: str, net: multi_exit.MultiExitNet, images: data.ImageSet, device: torch.device) -> Part:
    outputs: list[list[Array]] = [[] for _ in net.heads]
    for pixels, _ in plain_batches(images, device):
        for kept, output in zip(outputs, net(pixels), strict=True):
            kept.append(output.float().cpu().numpy())
    exits = tuple(ExitReadings.of_outputs(np.concatenate(of), net.spec.num_classes, keep=True) for of in outputs)
    return Part(name, np.arange(len(images)), images.labels, exits, {})


@dataclass(frozen=True)
class Comparison:
    """A method beside its twin, on the same test images.

    spec           of the method
    method, twin   what both said
    rule           the method's exit rule
    """

    spec: ModelSpec
    method: Recording
    twin: Recording
    rule: str

    @cached_property
    def chosen(self) -> Fit:
        """The cheapest thresholds of its own rule that lose at most HELD points against the twin; see `_holding`."""
        return self._holding(self.rule)

    def document(self) -> dict[str, Any]:
        """Everything for tables and pictures, as plain data; accuracies in percent, costs as shares of the twin's."""
        test, spec, levels = self.method.test, self.spec, self.chosen.levels
        twin_right = test_right(self.twin.test)
        found = self._seen.effect(levels, self._costs)
        tempered = temper(self.method.calibration, test)
        exits = [{"cost": p.cost, "accuracy": 100.0 * p.accuracy} for p in single_exits(test, spec)]
        return {
            "twin_accuracy": 100.0 * final_accuracy(self.twin.test),
            "final_accuracy": 100.0 * final_accuracy(test),
            "final_difference": difference(test_right(test), twin_right),
            "exits": exits,
            "mean_first_half": float(np.mean([e["accuracy"] for e in exits[: ceil(len(exits) / 2)]])),
            "ece": [100.0 * of_exit.ece[0] for of_exit in tempered],
            "ece_tempered": [100.0 * of_exit.ece[1] for of_exit in tempered],
            "ece_leaving": [100.0 * error for error in self._seen.ece(levels)],
            "threshold": self.chosen.parameter,
            "thresholds": list(self.chosen.thresholds),
            **_numbers(found),
            "exit_rates": list(found.shares),
            "difference": difference(self._right, twin_right),
            "curve": self._curve(),
            "rules": {rule: self._at_equal_cost(rule) for rule in COMPARED},
            "small": {rule: self._at_small_cost(rule) for rule in (self.rule, *COMPARED)},
            "held": {rule: self._at_equal_loss(rule) for rule in (self.rule, *COMPARED)},
            "spread": self._at_equal_accuracy(),
            "exclusion": _excluded(found),
            "macs": spec.macs,
        }

    def _holding(self, rule: str) -> Fit:
        """The cheapest thresholds that lose at most HELD points against the twin, on the calibration split.

        Where none do, those of never leaving early.
        """
        spare = final_accuracy(self.method.calibration) - final_accuracy(self.twin.calibration) + HELD / 100.0
        try:
            return self._fit(spare, rule)
        except UsageError:
            return self._fit(0.0, rule)

    def _fit(self, spare: float, rule: str) -> Fit:
        """The cheapest thresholds that lose no more than this share of accuracy."""
        return self._tuner(rule).fit(_way(rule), Goal("lose", spare))

    def _curve(self) -> list[dict[str, float]]:
        """Over one threshold for all exits, of class exclusion over TOLERANCES.

        The thresholds are quantiles of what was said on the calibration split.
        """
        if self.rule in NARROWING:
            levels = [self._seen.never, *(self._fit(spare, self.rule).levels for spare in TOLERANCES)]
        else:
            said = Seen.of(self.method.calibration, self.rule).sure
            ends = [np.inf, *np.unique(np.quantile(said, np.linspace(0.0, 1.0, LEVELS))).tolist()[::-1]]
            levels = [np.full(len(said), level) for level in ends]
        found = [self._seen.effect(of_all, self._costs) for of_all in levels]
        return [{"cost": one.cost, "accuracy": 100.0 * one.accuracy} for one in found]

    def _at_equal_cost(self, rule: str) -> dict[str, Any] | None:
        """What a rule does within the cost of the method's own; `difference` is to that one, too."""
        return self._within(rule, self.chosen.reached.cost, self._right)

    def _at_small_cost(self, rule: str) -> dict[str, Any] | None:
        """What a rule does within SMALL; `difference` is to the twin."""
        return self._within(rule, SMALL, test_right(self.twin.test))

    def _within(self, rule: str, cost: float, other: Array) -> dict[str, Any] | None:
        """The thresholds most accurate within a cost on the calibration split, on the test split; None: none are."""
        try:
            fit = self._tuner(rule).fit(_way(rule), Goal("macs", cost))
        except UsageError:  # the first exit costs more, or patience, which leaves at the second at the earliest
            return None
        return self._on_test(rule, fit, other)

    def _at_equal_loss(self, rule: str) -> dict[str, Any]:
        """What a rule does on the test split at the cheapest thresholds that hold; `difference` is to the twin."""
        fit = self.chosen if rule == self.rule else self._holding(rule)
        return self._on_test(rule, fit, test_right(self.twin.test))

    def _on_test(self, rule: str, fit: Fit, other: Array) -> dict[str, Any]:
        seen = view(self.method.test, rule)
        apart = difference(seen.leave(fit.levels).right, other)
        return {**_numbers(seen.effect(fit.levels, self._costs)), "difference": apart}

    def _at_equal_accuracy(self) -> dict[str, Any]:
        """How evenly exits are used under SPREAD, at no less than the method's own accuracy on the calibration split.

        By the method's own rule where that has thresholds for every exit, else by max_prob.
        """
        rule = "max_prob" if self.rule in NARROWING or self.rule == "patience" else self.rule
        spare = final_accuracy(self.method.calibration) - self.chosen.reached.accuracy
        goal = Goal("lose", spare + 1e-9)  # a share of samples is coarser than that, rounding finer
        found: dict[str, Any] = {"rule": rule}
        for method in SPREAD:
            try:
                fit = self._tuner(rule).fit(method, goal)
            except InputError:  # a mean that has no multiples
                found[method] = None
                continue
            found[method] = _numbers(view(self.method.test, rule).effect(fit.levels, self._costs))
        return found

    def _tuner(self, rule: str) -> AnyTuner:
        return tuner(self.method.calibration, rule, self._costs)

    @cached_property
    def _seen(self) -> View:
        """The test images as the method's rule sees them."""
        return view(self.method.test, self.rule)

    @cached_property
    def _right(self) -> Array:
        """(n,) whether the answers given at the chosen thresholds are right."""
        return self._seen.leave(self.chosen.levels).right

    @cached_property
    def _costs(self) -> Costs:
        return Costs.of(self.spec, None)


def _way(rule: str) -> str:
    """Of fitting its thresholds."""
    return "greedy" if rule in NARROWING else "common"


def _numbers(found: Effect) -> dict[str, float]:
    return {"accuracy": 100.0 * found.accuracy, "cost": found.cost, "balance": found.balance}


def _excluded(found: Effect) -> dict[str, list[float]] | None:
    """What class exclusion leaves, by early exit; None of other rules."""
    if not isinstance(found, Narrowed):
        return None
    return {"wrongly_excluded": list(found.wrongly_excluded), "classes_left": list(found.classes_left)}


def test_right(part: Part) -> Array:
    """(n,) whether the final exit is right."""
    right: Array = part.exits[-1].prediction == part.label
    return right


def final_accuracy(part: Part) -> float:
    """Share that the final exit gets right."""
    return float(test_right(part).mean())


def difference(right: Array, other: Array, seed: int = 0) -> dict[str, float]:
    """Points of accuracy between two on the same images, with a bootstrap interval over the images."""
    each = 100.0 * (right.astype(np.float64) - other.astype(np.float64))
    if not each.any():
        return {"points": 0.0, "low": 0.0, "high": 0.0}
    return {"points": float(each.mean()), **interval(each, np.mean, 100, seed)}


def interval(samples: Array, statistic: Callable[..., Any], batch: int, seed: int) -> dict[str, float]:
    """The bootstrap interval of a statistic over the first axis of the samples, so many resamples at a time."""
    found = bootstrap(
        (samples,),
        statistic,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        batch=batch,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return {"low": float(found.low), "high": float(found.high)}
