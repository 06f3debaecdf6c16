"""Distributions, files and draws."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splitexit.calibration import Calibration, Distribution, ServiceTimes
from splitexit.errors import ArtifactError
from splitexit.streams import DEVICE_TIMES, stream
from tests import synthetic


def test_a_distribution_is_its_quantiles() -> None:
    distribution = Distribution((1.0, 2.0, 4.0))
    assert [distribution.at(u) for u in (0.0, 0.25, 0.5, 0.75, 1.0)] == [1.0, 1.5, 2.0, 3.0, 4.0]
    assert distribution.mean == pytest.approx((1.5 + 3.0) / 2)
    assert distribution.median == 2.0
    np.testing.assert_allclose(distribution.many(np.array([0.1, 0.9])), [distribution.at(0.1), distribution.at(0.9)])


def test_measured_seconds_keep_mean_and_median() -> None:
    seconds = np.random.default_rng(0).gamma(4.0, 0.001, 5000)
    distribution = Distribution.measured(seconds)
    assert distribution.mean == pytest.approx(seconds.mean(), rel=0.02)
    assert distribution.median == pytest.approx(np.median(seconds), rel=1e-6)


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    model = synthetic.spec()
    calibration = replace(
        synthetic.calibration(model, Distribution((0.001, 0.002, 0.009)), head=0.0001, codec=0.003),
        batch={1: 1.0, 2: 1.25, 8: 3.5},
    )
    calibration.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json", model) == calibration


BAD_BATCHES = (
    {},
    {"2": 2.0},
    {"1": 0.9, "2": 2.0},
    {"1": 1.0, "4": 2.0, "2": 1.5},
    {"1": 1.0, "2": 0.8},
    {"1": 1.0, "2": float("nan")},
    {"1": 1.0, "2": float("inf")},
    {"1": 1.0, "01": 2.0},
    {"1": 1.0, "two": 2.0},
    {"1": 1.0, "2": None},
    [1.0, 2.0],
    3,
)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.pop("stages_s"), "'stages_s' is missing"),
        (lambda c: c.update(stages_s=[[0.1]] * 3), "at least two"),
        (lambda c: c["stages_s"].__setitem__(0, [0.2, 0.1]), "ascending"),
        (lambda c: c["stages_s"].__setitem__(0, [-0.2, 0.1]), "ascending"),
        (lambda c: c["stages_s"].__setitem__(0, [0.1, float("nan")]), "ascending"),
        (lambda c: c["stages_s"].pop(), "2 stages"),
        (lambda c: c.update(rpc=3), "not a calibration"),
        (lambda c: c.update(encode_s=[{"split": 0}]), "missing"),
        *((lambda c, b=batch: c.update(batch=b), "not a calibration") for batch in BAD_BATCHES),
    ],
)
def test_a_corrupt_calibration_is_one_line(tmp_path: Path, change: object, says: str) -> None:
    model, path = synthetic.spec(), tmp_path / "calibration.json"
    synthetic.calibration(model).save(path)
    content = json.loads(path.read_text())
    change(content)  # type: ignore[operator]
    path.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=says) as caught:
        Calibration.load(path, model)
    assert "\n" not in str(caught.value)
    assert "splitexit calibrate" in str(caught.value)


def test_a_batch_costs_what_lies_between_the_measured_sizes() -> None:
    takes = replace(synthetic.calibration(synthetic.spec()), batch={1: 1.0, 2: 1.2, 8: 3.0})
    assert [takes.batch_factor(n) for n in (1, 2, 4, 8, 16, 20)] == pytest.approx([1.0, 1.2, 1.8, 3.0, 6.0, 7.5])


def test_an_older_calibration_gains_nothing_by_batching(tmp_path: Path) -> None:
    model, path = synthetic.spec(), tmp_path / "calibration.json"
    synthetic.calibration(model).save(path)
    content = json.loads(path.read_text())
    del content["batch"]
    path.write_text(json.dumps(content))
    takes = Calibration.load(path, model)
    assert [takes.batch_factor(n) for n in (1, 2, 5, 32)] == [1.0, 2.0, 5.0, 32.0]
    assert takes == synthetic.calibration(model)


def test_draws_do_not_depend_on_the_order_of_use() -> None:
    calibration = synthetic.calibration(synthetic.spec(), Distribution((0.001, 0.002, 0.009)))

    def times() -> ServiceTimes:
        return ServiceTimes(calibration, lambda block: stream(7, DEVICE_TIMES, 0, block))

    in_order, jumping = times(), times()
    numbers = [0, 1, 511, 512, 2000]
    expected = {n: in_order.at(n) for n in numbers}
    for n in reversed(numbers):
        assert jumping.at(n) == expected[n]
    many = [in_order.at(n).stages[0] for n in range(4000)]
    assert np.mean(many) == pytest.approx(calibration.stages[0].mean, rel=0.03)
    assert in_order.at(5).run_s(0, 2) == pytest.approx(sum(in_order.at(5).stages[:2]))
