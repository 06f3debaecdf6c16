"""Accuracy over cost: counted by hand, smooth, chosen on the calibration split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from splitexit.report import curve
from tests import synthetic

MODEL = synthetic.spec(3)
SAYS = synthetic.recording(MODEL, samples=400)


def test_costs_count_every_stage_and_every_head_up_to_the_exit() -> None:
    """Three stages of 100 MACs, heads of 10."""
    np.testing.assert_array_equal(curve.exit_costs(MODEL), [110, 220, 330])


@pytest.mark.parametrize("rule", ["max_prob", "entropy", "margin"])
def test_the_ends_are_never_and_always(rule: str) -> None:
    points = curve.curve(SAYS.test, MODEL, rule, curve.thresholds(rule, SAYS.test))
    assert points[0].exit_rates == (0.0, 0.0, 1.0)
    assert points[0].cost == pytest.approx(330 / 310)
    assert points[-1].exit_rates == (1.0, 0.0, 0.0)
    assert points[-1].accuracy == np.mean(SAYS.test.exits[0].prediction == SAYS.test.label)
    costs = [point.cost for point in points]
    assert costs == sorted(costs, reverse=True), "a laxer threshold never costs more"


def test_a_point_by_brute_force() -> None:
    """Sample by sample, the first exit that is sure enough answers."""
    right = 0
    for row in range(len(SAYS.test)):
        said = [SAYS.test.readings(e)[row] for e in range(3)]
        leaves = next((r for r in said[:-1] if r.max_prob >= 0.7), said[-1])
        right += leaves.prediction == SAYS.test.label[row]
    assert curve.point(SAYS.test, MODEL, "max_prob", 0.7).accuracy == pytest.approx(right / len(SAYS.test))


def test_the_choice_is_the_cheapest_that_loses_little() -> None:
    points = curve.curve(SAYS.calibration, MODEL, "max_prob", curve.thresholds("max_prob", SAYS.calibration))
    chosen = curve.choose(points, 0.02)
    assert chosen.accuracy >= points[0].accuracy - 0.02
    assert all(p.cost >= chosen.cost or p.accuracy < points[0].accuracy - 0.02 for p in points)


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    points = {"max_prob": curve.curve(SAYS.test, MODEL, "max_prob", [0.9, 0.5])}
    curve.draw(points, curve.single_exits(SAYS.test, MODEL), tmp_path / "curve.png", "synthetic")
    assert (tmp_path / "curve.png").stat().st_size > 1000
