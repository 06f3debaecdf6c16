"""What a trained network says of images it was not trained on, and how it compares with its exit-free twin.

Choices (temperatures, thresholds) are made on the validation images that the training kept apart; the test images are
looked at once. Images pass through in batches: a reading differs from that of a live run by rounding alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.stats import bootstrap

from splitexit.bundle import Bundle, ModelSpec
from splitexit.models import data, multi_exit
from splitexit.models.evaluate import plain_batches
from splitexit.recording import ExitReadings, Part
from splitexit.report.curve import Point, curve, point, single_exits, thresholds

Array = np.ndarray[Any, Any]

HELD = 0.5
"""Points of accuracy that a method may lose against its twin: what the papers call "without loss"."""

BINS = 15
"""Of the expected calibration error (Guo et al., ICML 2017, arXiv 1706.04599)."""

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Said:
    """A network's readings of both splits.

    spec    what it is
    parts   calibration and test
    """

    spec: ModelSpec
    parts: Mapping[str, Part]

    @property
    def test(self) -> Part:
        """The test split."""
        return self.parts["test"]

    @property
    def calibration(self) -> Part:
        """The validation images of the training."""
        return self.parts["calibration"]


def listen(bundle: Bundle, validation: data.ImageSet, test: data.ImageSet, device: torch.device) -> Said:
    """Runs the network on both sets, in batches."""
    net = multi_exit.load(bundle).to(device)
    parts = {name: _part(name, net, images, device) for name, images in (("calibration", validation), ("test", test))}
    return Said(bundle.spec, parts)


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

    method, twin   what both said
    rule           the method's exit rule
    """

    method: Said
    twin: Said
    rule: str

    @cached_property
    def levels(self) -> list[float]:
        """Thresholds to try, from never leaving early on."""
        return thresholds(self.rule, self.method.calibration)

    @cached_property
    def chosen(self) -> Point:
        """The cheapest threshold that loses at most HELD points against the twin, on the calibration split."""
        enough = final_accuracy(self.twin.calibration) - HELD / 100.0
        points = curve(self.method.calibration, self.method.spec, self.rule, self.levels)
        held = [p for p in points if p.accuracy >= enough]
        return min(held, key=lambda p: p.cost) if held else max(points, key=lambda p: p.accuracy)

    @cached_property
    def found(self) -> Point:
        """What that threshold does on the test split."""
        return point(self.method.test, self.method.spec, self.rule, self.chosen.threshold)

    def document(self) -> dict[str, Any]:
        """Everything for tables and pictures, as plain data; accuracies in percent, costs as shares of the twin's."""
        test, spec = self.method.test, self.method.spec
        right = self._right_at(self.chosen.threshold)
        twin_right = test_right(self.twin.test)
        return {
            "twin_accuracy": 100.0 * final_accuracy(self.twin.test),
            "final_accuracy": 100.0 * final_accuracy(test),
            "final_difference": difference(test_right(test), twin_right),
            "exits": [{"cost": p.cost, "accuracy": 100.0 * p.accuracy} for p in single_exits(test, spec)],
            "ece": [100.0 * calibration_error(of, test.label) for of in test.exits],
            "rule": self.rule,
            "threshold": self.chosen.threshold,
            "accuracy": 100.0 * self.found.accuracy,
            "cost": self.found.cost,
            "exit_rates": list(self.found.exit_rates),
            "difference": difference(right, twin_right),
            "curve": [
                {"cost": p.cost, "accuracy": 100.0 * p.accuracy} for p in curve(test, spec, self.rule, self.levels)
            ],
            "parameters_macs": spec.macs,
        }

    def _right_at(self, threshold: float) -> Array:
        return answers(self.method.test, self.method.spec, self.rule, threshold) == self.method.test.label


def answers(part: Part, spec: ModelSpec, rule: str, threshold: float) -> Array:
    """(n,) predictions of a device that leaves by this rule and threshold."""
    from splitexit.confidence import RULES

    found = part.exits[-1].prediction.copy()
    left = np.zeros(len(part), dtype=bool)
    for exit_ in range(spec.final_exit):
        fires = np.array([RULES[rule]([said], threshold) for said in part.readings(exit_)])
        now = fires & ~left
        found[now] = part.exits[exit_].prediction[now]
        left |= now
    return found


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


def calibration_error(said: ExitReadings, labels: Array) -> float:
    """Expected calibration error: mean distance of confidence and accuracy over BINS equal bins of max_prob."""
    right = said.prediction == labels
    bins = np.minimum((said.max_prob * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=said.max_prob.astype(np.float64) - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))
