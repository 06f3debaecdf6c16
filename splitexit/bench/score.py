"""What a trained network says of images it was not trained on, and how it compares with its exit-free twin.

Choices (temperatures, thresholds) are made on the validation images that the training kept apart; the test images are
looked at once. Images pass through in batches: a reading differs from that of a live run by rounding alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.stats import bootstrap

from splitexit.bundle import Bundle, ModelSpec
from splitexit.errors import UsageError
from splitexit.models import data, multi_exit
from splitexit.models.evaluate import plain_batches
from splitexit.recording import ExitReadings, Part, Recording
from splitexit.report.curve import single_exits
from splitexit.tune.temperature import temper
from splitexit.tune.thresholds import Costs, Fit, Goal, Seen, Tuner, effect, leaving

Array = np.ndarray[Any, Any]

HELD = 0.5
"""Points of accuracy that a method may lose against its twin: what the papers call "without loss"."""

COMPARED = ("max_prob", "entropy", "margin", "patience")
"""Rules that every method is used with at the cost of its own."""

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
        """The cheapest thresholds that lose at most HELD points against the twin, on the calibration split.

        Where none do, those of never leaving early.
        """
        spare = final_accuracy(self.method.calibration) - final_accuracy(self.twin.calibration) + HELD / 100.0
        try:
            return self._tuner(self.rule).fit("common", Goal("lose", spare))
        except UsageError:
            return self._tuner(self.rule).fit("common", Goal("lose", 0.0))

    def document(self) -> dict[str, Any]:
        """Everything for tables and pictures, as plain data; accuracies in percent, costs as shares of the twin's."""
        test, spec = self.method.test, self.spec
        seen, twin_right = Seen.of(test, self.rule), test_right(self.twin.test)
        found = effect(seen, self.chosen.levels, self._costs)
        leaves = leaving(seen, self.chosen.levels)
        tempered = temper(self.method.calibration, test)
        return {
            "twin_accuracy": 100.0 * final_accuracy(self.twin.test),
            "final_accuracy": 100.0 * final_accuracy(test),
            "final_difference": difference(test_right(test), twin_right),
            "exits": [{"cost": p.cost, "accuracy": 100.0 * p.accuracy} for p in single_exits(test, spec)],
            "ece": [100.0 * of_exit.ece[0] for of_exit in tempered],
            "ece_tempered": [100.0 * of_exit.ece[1] for of_exit in tempered],
            "rule": self.rule,
            "threshold": self.chosen.parameter,
            "accuracy": 100.0 * found.accuracy,
            "cost": found.cost,
            "exit_rates": list(found.shares),
            "difference": difference(seen.right[leaves, np.arange(len(leaves))], twin_right),
            "curve": self._curve(seen),
            "rules": {rule: self._at_equal_cost(rule, self.chosen.reached.cost) for rule in COMPARED},
            "macs": spec.macs,
        }

    def _curve(self, seen: Seen) -> list[dict[str, float]]:
        """Over one threshold for all exits; the levels are quantiles of what was said on the calibration split."""
        said = Seen.of(self.method.calibration, self.rule).sure
        levels = [np.inf, *np.unique(np.quantile(said, np.linspace(0.0, 1.0, LEVELS))).tolist()[::-1]]
        found = [effect(seen, np.full(len(said), level), self._costs) for level in levels]
        return [{"cost": one.cost, "accuracy": 100.0 * one.accuracy} for one in found]

    def _at_equal_cost(self, rule: str, budget: float) -> dict[str, float] | None:
        """What another rule does on the test split within the same cost on the calibration split."""
        try:
            fit = self._tuner(rule).fit("common", Goal("macs", budget))
        except UsageError:  # patience leaves at the second exit at the earliest
            return None
        found = effect(Seen.of(self.method.test, rule), fit.levels, self._costs)
        return {"accuracy": 100.0 * found.accuracy, "cost": found.cost}

    def _tuner(self, rule: str) -> Tuner:
        return Tuner(self.method.calibration, rule, self._costs)

    @cached_property
    def _costs(self) -> Costs:
        return Costs.of(self.spec, None)


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
    found = bootstrap(
        (each,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        batch=100,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return {"points": float(each.mean()), "low": float(found.low), "high": float(found.high)}
