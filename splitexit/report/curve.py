"""Accuracy over cost as one exit threshold sweeps from "always" to "never".

Cost counts every stage that ran and every head that was read, in multiply-accumulates. Thresholds are
chosen on the calibration split; the test split is only reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from splitexit.bundle import ModelSpec
from splitexit.confidence import RULES
from splitexit.recording import Part
from splitexit.report.plots import COLOURS, figure

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Point:
    """One threshold: share of answers that are right, mean cost relative to the exit-free network, exit shares."""

    threshold: float
    accuracy: float
    cost: float
    exit_rates: tuple[float, ...]


def exit_costs(spec: ModelSpec) -> Array:
    """MACs spent by a sample that leaves at each exit, having read every head up to it."""
    stages = np.cumsum([stage.macs for stage in spec.stages])
    heads = np.cumsum([exit_.macs for exit_ in spec.exits])
    return np.asarray(stages[[at - 1 for at in spec.exit_stages]] + heads)


def point(part: Part, spec: ModelSpec, rule: str, threshold: float) -> Point:
    """What a device-only network with this rule and threshold at every early exit does on `part`."""
    fired = [
        [RULES[rule]([reading], threshold) for reading in part.readings(exit_)] for exit_ in range(spec.final_exit)
    ]
    leaves = np.argmax(np.array([*fired, [True] * len(part)]), axis=0)
    predictions = np.array([exit_.prediction for exit_ in part.exits])[leaves, np.arange(len(part))]
    shares = np.bincount(leaves, minlength=len(spec.exits)) / len(part)
    cost = float(shares @ exit_costs(spec)) / spec.macs
    return Point(threshold, float(np.mean(predictions == part.label)), cost, tuple(shares.tolist()))


def thresholds(rule: str, part: Part, count: int = 41) -> list[float]:
    """Thresholds from strict to lax: quantiles of what the early exits said on the calibration split."""
    said = np.concatenate([getattr(exit_, rule) for exit_ in part.exits[:-1]] or [np.zeros(1)])
    levels = np.quantile(said, np.linspace(0.0, 1.0, count)).astype(float).tolist()
    never = float(said.min()) - 1.0 if rule == "entropy" else 1.0 + 1e-6
    ordered = levels if rule == "entropy" else levels[::-1]
    return list(dict.fromkeys([never, *ordered]))


def curve(part: Part, spec: ModelSpec, rule: str, levels: Sequence[float]) -> list[Point]:
    """One point per threshold."""
    return [point(part, spec, rule, level) for level in levels]


def choose(points: Sequence[Point], lose: float) -> Point:
    """The cheapest point that loses at most `lose` of accuracy against never leaving early (the first point)."""
    enough = [p for p in points if p.accuracy >= points[0].accuracy - lose]
    return min(enough, key=lambda p: p.cost)


def draw(curves: dict[str, list[Point]], whole: Sequence[Point], path: Path, title: str) -> None:
    """Curves by rule, and every exit alone as a cross."""
    fig, axes = figure()
    for number, (rule, points) in enumerate(curves.items()):
        costs, accuracies = [p.cost for p in points], [100 * p.accuracy for p in points]
        axes.plot(costs, accuracies, ".-", color=COLOURS[number], label=f"leave early by {rule}", markersize=4)
    single = [p.cost for p in whole], [100 * p.accuracy for p in whole]
    axes.plot(*single, "x", color="#555555", label="one exit for all samples")
    axes.set_xlabel("mean cost, share of the exit-free network's multiply-accumulates")
    axes.set_ylabel("test accuracy in %")
    axes.set_title(title, fontsize=10)
    axes.set_xlim(left=0)
    axes.legend(fontsize=8, loc="lower right", frameon=False)
    fig.savefig(path)


def single_exits(part: Part, spec: ModelSpec) -> list[Point]:
    """Every exit as the only one: its head alone is read."""
    stages = np.cumsum([stage.macs for stage in spec.stages])
    return [
        Point(0.0, float(np.mean(said.prediction == part.label)), float(stages[e.stage - 1] + e.macs) / spec.macs, ())
        for said, e in zip(part.exits, spec.exits, strict=True)
    ]
