"""What a network with per-pixel exits says of scenes: mean intersection over union, exit by exit and leaving early."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splitexit.bench.scenes import CLASSES, Scenes
from splitexit.bench.score import interval
from splitexit.models.multi_exit import MultiExitNet
from splitexit.report.curve import exit_costs

Array = np.ndarray[Any, Any]

LEVELS = 41
"""Thresholds that are tried: quantiles of the mean confidence on the validation scenes."""

NEVER = 2.0
"""A threshold that no confidence reaches."""

HELD = 1.0
"""Points of mIoU that may be lost against the final exit by leaving early."""


def pixels(scenes: Scenes) -> Tensor:
    """B×3×SIZE×SIZE in [0, 1]."""
    return torch.from_numpy(scenes.images).permute(0, 3, 1, 2).float().div_(255)


def miou(confusion: Array) -> Array:
    """(…, K, K) pixels by true class and answered class -> (…): mean intersection over union in percent.

    The mean is over the classes that occur or are answered.
    """
    both = np.diagonal(confusion, axis1=-2, axis2=-1)
    either = confusion.sum(axis=-2) + confusion.sum(axis=-1) - both
    shares = np.divide(both, either, out=np.full(both.shape, np.nan), where=either > 0)
    mean: Array = 100.0 * np.nanmean(shares, axis=-1)
    return mean


@dataclass(frozen=True)
class Outcome:
    """What every exit says of n scenes.

    confusion   (exits, n, K, K): pixels of each scene by true class and answered class
    confidence  (exits, n): mean over the pixels of the largest probability
    """

    confusion: Array
    confidence: Array

    def at(self, exits: Array) -> Array:
        """(n, K, K) the confusion of scene i at exit `exits[i]`."""
        found: Array = self.confusion[exits, np.arange(self.confusion.shape[1])]
        return found

    def miou(self, exits: Array) -> float:
        """Of the pixels of all scenes together, in percent, where scene i leaves at `exits[i]`."""
        return float(miou(self.at(exits).sum(axis=0)))

    def leaving(self, threshold: float) -> Array:
        """(n,) the exit at which each scene leaves: the first whose confidence reaches the threshold, else the last."""
        fired = self.confidence >= threshold
        fired[-1] = True
        first: Array = np.argmax(fired, axis=0)
        return first


@torch.inference_mode()
def evaluate(net: MultiExitNet, scenes: Scenes, size: int = 50) -> Outcome:
    """Runs the network on all scenes, in single precision."""
    confusions, confidences = [], []
    for start in range(0, len(scenes), size):
        part = scenes.take(slice(start, start + size))
        outputs = net(pixels(part))
        confusions.append(np.stack([_confusion(output.argmax(1).numpy(), part.masks) for output in outputs]))
        confidences.append(np.stack([output.softmax(1).amax(1).mean(dim=(1, 2)).numpy() for output in outputs]))
    return Outcome(np.concatenate(confusions, axis=1), np.concatenate(confidences, axis=1))


@torch.inference_mode()
def answers(net: MultiExitNet, scenes: Scenes) -> Array:
    """(exits, n, SIZE, SIZE) the class that every exit gives each pixel."""
    return np.stack([output.argmax(1).numpy() for output in net(pixels(scenes))])


def _confusion(answered: Array, true: Array) -> Array:
    """(n, K, K) pixels of every scene by true and answered class."""
    classes = len(CLASSES)
    flat = true.reshape(len(true), -1) * classes + answered.reshape(len(true), -1)
    return np.stack([np.bincount(scene, minlength=classes**2).reshape(classes, classes) for scene in flat])


def score(net: MultiExitNet, held: Outcome, seen: Outcome, twin: Outcome) -> dict[str, Any]:
    """Everything for tables and pictures, as plain data: mIoU in percent, costs as shares of the exit-free network's.

    The threshold is the cheapest that loses at most HELD points on the validation scenes.

    Args:
        held, seen: what the network says of the validation scenes and of the test scenes.
        twin: what the exit-free network says of the test scenes.
    """
    costs, last = exit_costs(net.spec) / net.spec.macs, net.spec.final_exit
    levels = [NEVER, *np.quantile(held.confidence, np.linspace(1.0, 0.0, LEVELS)).tolist()]
    enough = held.miou(held.leaving(NEVER)) - HELD
    sound = [level for level in levels if held.miou(held.leaving(level)) >= enough]
    threshold = min(sound, key=lambda level: float(costs[held.leaving(level)].mean()))
    exits, scenes = seen.leaving(threshold), seen.confusion.shape[1]
    of_twin = twin.at(np.full(scenes, -1))
    return {
        "twin_miou": float(miou(of_twin.sum(axis=0))),
        "exits": [
            {"cost": cost, "miou": seen.miou(np.full(scenes, exit_))} for exit_, cost in enumerate(net.relative_costs())
        ],
        "threshold": threshold,
        "miou": seen.miou(exits),
        "cost": float(costs[exits].mean()),
        "exit_rates": (np.bincount(exits, minlength=last + 1) / scenes).tolist(),
        "difference": difference(seen.at(exits), of_twin),
        "final_difference": difference(seen.at(np.full(scenes, last)), of_twin),
        "curve": [
            {"cost": float(costs[leaves].mean()), "miou": seen.miou(leaves)} for leaves in map(seen.leaving, levels)
        ],
        "macs": net.spec.macs,
    }


def difference(confusion: Array, other: Array, seed: int = 0) -> dict[str, float]:
    """Points of mIoU between two on the same scenes, both (n, K, K), with a paired bootstrap interval over scenes."""
    points = float(miou(confusion.sum(axis=0)) - miou(other.sum(axis=0)))
    if (confusion == other).all():
        return {"points": points, "low": 0.0, "high": 0.0}

    def of(scenes: Array, axis: int) -> Array:
        return miou(confusion[scenes].sum(axis=axis - 2)) - miou(other[scenes].sum(axis=axis - 2))

    return {"points": points, **interval(np.arange(len(confusion)), of, 20, seed)}
