"""Distributions, files and draws."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splitexit.calibration import Calibration, Distribution, Rpc, ServiceTimes
from splitexit.copula import Dependence
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
        corun={0: 1.0, 1: 1.02, 2: 1.6},
        dependence=Dependence(0.42, 0.7),
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


BAD_CORUNS = ({}, {"1": 1.0}, {"0": 1.1}, {"0": 1.0, "2": 1.2, "1": 1.3}, {"0": 1.0, "1": 0.9}, {"0": 1.0, "x": 2}, 7)
BAD_DEPENDENCES = (
    3,
    {"within": 1.0},
    {"within": -0.1},
    {"within": float("nan")},
    {"within": "much"},
    {"within": None},
    {"lag1": 2.0},
    {"lag2": 0.1},
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
        *((lambda c, n=corun: c.update(corun=n), "not a calibration") for corun in BAD_CORUNS),
        *((lambda c, d=bad: c.update(dependence=d), "not a calibration") for bad in BAD_DEPENDENCES),
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


def test_an_older_calibration_gains_nothing_by_batching_and_depends_on_nothing(tmp_path: Path) -> None:
    model, path = synthetic.spec(), tmp_path / "calibration.json"
    synthetic.calibration(model).save(path)
    content = json.loads(path.read_text())
    for key in ("batch", "corun", "dependence"):
        del content[key]
    path.write_text(json.dumps(content))
    takes = Calibration.load(path, model)
    assert [takes.batch_factor(n) for n in (1, 2, 5, 32)] == [1.0, 2.0, 5.0, 32.0]
    assert [takes.corun_factor(n) for n in (0, 0.5, 7)] == [1.0, 1.0, 1.0]
    assert takes.dependence == Dependence()
    assert takes == synthetic.calibration(model)


def test_others_slow_a_pass_by_what_lies_between_the_measured_numbers() -> None:
    takes = replace(synthetic.calibration(synthetic.spec()), corun={0: 1.0, 1: 1.1, 2: 1.65})
    factors = [takes.corun_factor(n) for n in (0.0, 0.5, 1.0, 1.5, 2.0)]
    assert factors == pytest.approx([1.0, 1.05, 1.1, 1.375, 1.65])
    assert takes.corun_factor(5.0) == pytest.approx(1.65 * 6 / 3)  # six on the cores that three had
    assert takes.corun_factor(2.0 + 1e-9) == pytest.approx(1.65)


def test_slowed_is_every_computation_and_no_call() -> None:
    takes = replace(synthetic.calibration(synthetic.spec(), 0.01, 0.002, 0.003), batch={1: 1.0, 2: 1.5})
    slow = takes.slowed(1.5)
    assert [part.mean for part in (*slow.stages, *slow.exits)] == pytest.approx([0.015] * 3 + [0.003] * 3)
    assert [part.mean for part in (*slow.encode.values(), *slow.decode.values())] == pytest.approx([0.0045] * 4)
    assert (slow.rpc, slow.batch, slow.machine) == (takes.rpc, takes.batch, takes.machine)


def test_every_percentile_is_kept_and_the_mean_whatever_the_largest_was() -> None:
    rng = np.random.default_rng(0)
    seconds = np.append(rng.gamma(40.0, 1e-4, 299), 0.05)
    distribution = Distribution.measured(seconds)
    assert len(distribution.quantiles) == 101
    assert distribution.at(0.99) == pytest.approx(np.quantile(seconds, 0.99), rel=1e-9)
    assert distribution.mean == pytest.approx(seconds.mean(), rel=1e-9)
    assert distribution.quantiles[-2] < distribution.quantiles[-1] < 0.05
    assert np.diff(distribution.quantiles).min() >= 0


def test_what_never_varied_is_constant() -> None:
    assert set(Distribution.measured([0.1] * 7).quantiles) == {0.1}


DEPENDENCES = [Dependence(), Dependence(0.6, 0.9)]


@pytest.mark.parametrize("dependence", DEPENDENCES)
def test_draws_do_not_depend_on_the_order_of_use(dependence: Dependence) -> None:
    calibration = synthetic.calibration(synthetic.spec(), Distribution((0.001, 0.002, 0.009)))
    calibration = replace(calibration, dependence=dependence)

    def times() -> ServiceTimes:
        return ServiceTimes(calibration, lambda block: stream(7, DEVICE_TIMES, 0, block))

    in_order, jumping = times(), times()
    numbers = [0, 1, 511, 512, 2000]
    expected = {n: in_order.at(n) for n in numbers}
    for n in reversed(numbers):
        assert jumping.at(n) == expected[n]
    many = [in_order.at(n).stages[0] for n in range(8000)]
    assert np.mean(many) == pytest.approx(calibration.stages[0].mean, rel=0.06)
    assert in_order.at(5).run_s(0, 2) == pytest.approx(sum(in_order.at(5).stages[:2]))


def test_draws_without_dependence_are_what_they_always_were() -> None:
    """Uniform numbers of the block's stream, request by request: stages, heads, codecs, call."""
    calibration = synthetic.calibration(synthetic.spec(), Distribution((0.001, 0.002, 0.009)))
    calibration = replace(calibration, rpc=Rpc(0, 100, Distribution((0.0, 1.0, 3.0))))
    times = ServiceTimes(calibration, lambda block: stream(7, DEVICE_TIMES, 0, block))
    for request in (0, 3, 8, 511, 512, 700):
        u = stream(7, DEVICE_TIMES, 0, request // 512).random((512, 8))[request % 512]
        found = times.at(request)
        assert list(found.stages) == [float(calibration.stages[k].many(u[k])) for k in range(3)]
        assert (found.codec_u, found.rpc_s) == (u[6], float(calibration.rpc.seconds.many(u[7])))


def test_dependent_parts_keep_their_times_and_widen_their_sum() -> None:
    """The marginal quantiles stay; the deviation of a sum of three equal parts grows by √(1 + 2ρ)."""
    uniform = Distribution((0.0, 1.0))
    calibration = synthetic.calibration(synthetic.spec(), uniform)

    def stages(dependence: Dependence) -> np.ndarray:
        takes = replace(calibration, dependence=dependence)
        times = ServiceTimes(takes, lambda block: stream(1, DEVICE_TIMES, 0, block))
        return np.array([times.at(n).stages for n in range(40_000)])

    alone, together = stages(Dependence()), stages(Dependence(0.5, 0.3))
    for part in range(3):
        assert np.quantile(together[:, part], [0.05, 0.5, 0.99]) == pytest.approx([0.05, 0.5, 0.99], abs=0.01)
    rho = 6 / np.pi * np.arcsin(0.5 / 2)  # rank correlation of normal numbers whose correlation is 0.5
    widened = together.sum(axis=1).std() / alone.sum(axis=1).std()
    assert widened == pytest.approx(np.sqrt(1 + 2 * rho), rel=0.02)
