"""Layers of networks as torch runs them, and how regressions of them reach a calibration."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import typer
from torch import nn
from typer.testing import CliRunner

from splitexit.calibration import Calibration
from splitexit.cli import calibrate
from splitexit.decision import Setting
from splitexit.errors import ArtifactError
from splitexit.experiment import Experiment
from splitexit.models import layers
from splitexit.models.layers import Profile
from splitexit.policies.neurosurgeon import Neurosurgeon
from splitexit.regression import Layer
from splitexit.scenario import load
from tests import live_bundle, synthetic

TINY = ({"name": "resnet", "depth": 8, "width": 4}, {"name": "resnet", "depth": 8, "width": 6})


@pytest.fixture(scope="module")
def profile() -> Profile:
    return Profile.measure((3, 16, 16), TINY)


def test_modules_and_functions_are_seen_with_their_sizes() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 5)
    )
    found = [one.layer for one in layers.operations(lambda: F.softmax(net(torch.rand(1, 3, 8, 8)), dim=1))]
    seen = [layer for layer in found if layer != Layer("other", (192.0,))]  # the random image
    assert seen == [
        Layer("conv", (192.0, 9 / 4 * 8)),
        Layer("other", (128.0,)),
        Layer("pool", (128.0, 32.0)),
        Layer("linear", (32.0, 5.0)),
        Layer("other", (5.0,)),
    ]


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 4)])
def test_the_product_of_a_convolutions_features_is_what_it_multiplies(stride: int, groups: int) -> None:
    conv, image = nn.Conv2d(4, 8, 3, stride=stride, padding=1, groups=groups), torch.rand(1, 4, 8, 8)
    [one] = layers.operations(partial(conv, image))
    a, b = one.layer.features
    assert a * b == 8 * (8 / stride) ** 2 * 9 * 4 / groups


def test_every_distinct_layer_is_timed_once(profile: Profile, tmp_path: Path) -> None:
    kinds = {layer.kind for layer, _ in profile.layers}
    assert kinds == {"conv", "linear", "pool", "other"}
    assert all(len(seconds) == layers.REPETITIONS and min(seconds) > 0 for _, seconds in profile.layers)
    assert [one.layers for one in profile.passes] == [profile.passes[0].layers] * 2, "both are of one depth"
    assert sum(layer.kind == "conv" for layer, _ in profile.layers) < 2 * 9, "equal blocks are measured once"
    profile.save(tmp_path / "layers.json")
    assert Profile.load(tmp_path / "layers.json") == profile


def test_a_law_for_every_type_and_none_of_what_is_left_out(profile: Profile) -> None:
    laws = profile.fit().laws
    assert set(laws) == {"conv", "linear", "pool", "other"}
    convolutions = [layer for layer, _ in profile.layers if layer.kind == "conv"]
    left = profile.fit(without=set(convolutions[:3])).laws["conv"].layers
    assert left == laws["conv"].layers - sum(layer in convolutions[:3] for layer in convolutions)


@pytest.mark.parametrize(
    "broken",
    [
        "[]",
        "{}",
        '{"layers": [{"kind": "conv", "features": [1], "seconds": []}], "passes": [], "machine": {}}',
        '{"layers": [{"kind": "cnov", "features": [1], "seconds": [1]}], "passes": [], "machine": {}}',
        '{"layers": [], "passes": [[1, 2]], "machine": {}}',
    ],
)
def test_a_file_that_is_no_profile_is_refused_in_one_line(tmp_path: Path, broken: str) -> None:
    (tmp_path / "layers.json").write_text(broken)
    with pytest.raises(ArtifactError, match=r"layers\.json") as refused:
        Profile.load(tmp_path / "layers.json")
    assert "\n" not in str(refused.value)


def test_the_command_adds_them_to_a_calibration(
    tmp_path: Path, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured into the file, then read from it; the rest stays; and then the policy can use them."""
    bundle = live_bundle.make_bundle(tmp_path / "bundle")
    before = json.loads(bundle.calibration.read_text())
    monkeypatch.setattr(Profile, "measure", lambda shape, progress: profile)
    app = typer.Typer()
    calibrate.register(app)
    for _ in range(2):
        ran = CliRunner().invoke(app, [str(bundle.path), "--layers", str(tmp_path / "layers.json")])
        assert ran.exit_code == 0, ran.output
        assert ran.stdout.splitlines()[-1] == str(bundle.calibration)
        assert "conv" in ran.stderr
        assert "longer on average than the best" in ran.stderr
        monkeypatch.setattr(Profile, "measure", None)
    after = json.loads(bundle.calibration.read_text())
    factors = after.pop("regressed")
    assert after == before
    assert [len(factors[part]) for part in ("stages", "exits")] == [bundle.spec.num_stages, len(bundle.spec.exits)]
    setting = opened(tmp_path)
    policy = Neurosurgeon(times="regressed")
    policy.prepare(setting, None)  # type: ignore[arg-type]
    expected = Calibration.load(bundle.calibration).by_regression()
    assert policy._local.device_s == pytest.approx(sum(s.mean for s in expected.stages) + expected.exits[-1].mean)


def opened(folder: Path) -> Setting:
    policies = {"p": {"name": "neurosurgeon", "times": "regressed"}}
    return Experiment.open(load(synthetic.write_scenario(folder, policies=policies, devices__policy="p"))).setting()
