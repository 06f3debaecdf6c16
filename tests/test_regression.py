"""Regressions per type of layer: laws found again, held-out errors, what a policy makes of them, and their files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splitexit.calibration import Calibration
from splitexit.decision import LinkEstimate
from splitexit.errors import ArtifactError, InputError
from splitexit.policies.neurosurgeon import Neurosurgeon
from splitexit.regression import Layer, Pass, Regression, argmin_regret
from tests import random_settings, synthetic


def layers(rng: np.random.Generator, count: int = 40) -> list[Layer]:
    """Convolutions of all sizes."""
    return [Layer("conv", tuple(np.exp(rng.uniform((6, 3), (12, 9))).tolist())) for _ in range(count)]


def linear(features: tuple[float, ...]) -> float:
    a, b = features
    return 2e-6 + 3e-10 * a + 5e-9 * b + 1e-11 * a * b


def power(features: tuple[float, ...]) -> float:
    a, b = features
    return 1e-9 * a**0.7 * b**0.4


@pytest.mark.parametrize(("law", "form"), [(linear, "linear"), (power, "log")])
def test_the_form_that_fits_is_found_and_predicts_what_it_never_saw(law: object, form: str) -> None:
    rng = np.random.default_rng(0)
    seen, unseen = layers(rng), layers(rng)
    found = Regression.fit([(layer, law(layer.features)) for layer in seen])
    assert found.laws["conv"].form == form
    assert found.laws["conv"].mape < 1e-6
    for layer in unseen:
        assert found.seconds([layer]) == pytest.approx(law(layer.features), rel=1e-6)


def test_errors_are_of_layers_that_were_held_out() -> None:
    """Noise of 20 % cannot be predicted; a law with as many coefficients as layers would be exact on its own."""
    rng = np.random.default_rng(0)
    noisy = [(layer, linear(layer.features) * rng.uniform(0.8, 1.2)) for layer in layers(rng, 60)]
    few = [(layer, float(rng.uniform(1, 2))) for layer in layers(rng, 6)]
    assert 0.07 < Regression.fit(noisy).laws["conv"].mape < 0.15
    assert Regression.fit(few).laws["conv"].mape > 0.05


def test_layers_in_a_row_take_longer() -> None:
    """Factor 1.2 and 10 µs a layer, from passes through three networks."""
    rng = np.random.default_rng(0)
    seen = [(layer, linear(layer.features)) for layer in layers(rng)]
    passes = [Pass(n, alone_s, 1.2 * alone_s + 1e-5 * n) for n, alone_s in ((10, 1e-3), (50, 2e-3), (90, 3e-2))]
    found = Regression.fit(seen, passes)
    row = layers(rng, 7)
    alone_s = sum(linear(layer.features) for layer in row)
    assert found.seconds(row) == pytest.approx(1.2 * alone_s + 7e-5, rel=1e-6)


def test_few_layers_of_a_type_are_a_constant() -> None:
    pools = [(Layer("pool", (100.0, 10.0)), seconds) for seconds in (1e-5, 2e-5, 9e-5)]
    found = Regression.fit(pools)
    assert found.laws["pool"].form == "constant"
    assert np.isnan(found.laws["pool"].mape)
    assert found.seconds([Layer("pool", (1.0, 1.0))]) == 2e-5
    with pytest.raises(InputError, match=r"type conv were not measured \(measured: pool\)"):
        found.seconds([Layer("conv", (1.0, 1.0))])
    with pytest.raises(InputError, match="no layer was measured"):
        Regression.fit([])


def regressed(calibration: Calibration, rng: np.random.Generator, spread: float) -> Calibration:
    """A calibration whose regressions are off by some factor each."""
    parts = {"stages": len(calibration.stages), "exits": len(calibration.exits)}
    factors = {part: tuple(np.exp(rng.normal(0, spread, count)).tolist()) for part, count in parts.items()}
    return replace(calibration, regressed=factors)


@pytest.mark.parametrize("seed", range(20))
def test_the_policy_chooses_by_regressed_times(seed: int) -> None:
    """What it picks is the best by those times; regret is what that takes longer by the measured ones, never less."""
    rng = np.random.default_rng(seed)
    for _ in range(10):
        setting = random_settings.setting(rng)
        setting = replace(setting, device=regressed(setting.device, rng, 0.5), edge=regressed(setting.edge, rng, 0.5))
        believed = replace(setting, device=setting.device.by_regression(), edge=setting.edge.by_regression())
        policy, told = Neurosurgeon(times="regressed"), Neurosurgeon()
        policy.prepare(setting, rng)
        told.prepare(believed, rng)
        observation = random_settings.observation(rng, edge_load=None)
        assert policy.decide(observation) == told.decide(observation)
        [regret] = argmin_regret(setting, believed, [observation.link])
        assert regret >= 0.0
        plan = policy.decide(observation)
        took_s = (
            setting.local_s() if plan.split is None else setting.offload_s(plan.split, plan.codec, observation.link)
        )
        assert took_s == pytest.approx((1 + regret) * best_s(setting, observation.link))


def best_s(setting: random_settings.Setting, link: LinkEstimate) -> float:
    pairs = [(s, c) for s, codecs in setting.codecs.items() for c in codecs]
    return min(setting.local_s(), *(setting.offload_s(s, c, link) for s, c in pairs)) if pairs else setting.local_s()


def test_right_regressions_have_no_regret() -> None:
    rng = np.random.default_rng(0)
    links = [random_settings.link(rng) for _ in range(20)]
    for _ in range(20):
        setting = random_settings.setting(rng)
        assert argmin_regret(setting, setting, links) == [0.0] * 20


def test_without_regressions_one_line_says_what_adds_them() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="splitexit calibrate BUNDLE --layers FILE"):
        Neurosurgeon(times="regressed").prepare(random_settings.setting(rng), rng)


def test_a_calibration_keeps_them(tmp_path: Path) -> None:
    model = synthetic.spec(3)
    plain = synthetic.calibration(model)
    plain.save(tmp_path / "plain.json")
    assert "regressed" not in json.loads((tmp_path / "plain.json").read_text())
    found = replace(plain, regressed={"stages": (0.5, 1.0, 2.0), "exits": (1.0, 1.0, 3.0)})
    found.save(tmp_path / "c.json")
    loaded = Calibration.load(tmp_path / "c.json", model)
    assert loaded.regressed == found.regressed
    assert [s.mean for s in loaded.by_regression().stages] == pytest.approx([0.005, 0.01, 0.02])


@pytest.mark.parametrize(
    "broken",
    [{"stages": [1.0]}, {"stages": [1, 1, 0], "exits": [1, 1, 1]}, {"stages": [1, 1, 1], "exits": [1, 1, "x"]}],
)
def test_a_broken_one_is_refused(tmp_path: Path, broken: dict[str, list[object]]) -> None:
    synthetic.calibration(synthetic.spec(3)).save(tmp_path / "c.json")
    content = json.loads((tmp_path / "c.json").read_text()) | {"regressed": broken}
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="not a calibration"):
        Calibration.load(tmp_path / "c.json")
