"""Training learns, goes on where it was stopped, and refuses what does not fit."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

from splitexit.bundle import Bundle
from splitexit.errors import ArtifactError, UsageError
from splitexit.models import fit, multi_exit
from splitexit.models.augment import PAD, Batches
from splitexit.models.evaluate import accuracies, pick_device
from splitexit.models.fit import Watcher
from splitexit.models.train import train
from tests.models_tiny import TINY, fresh_bundle, stripes, trained


@pytest.fixture(scope="module")
def shapes():
    return stripes()


@pytest.fixture(scope="module")
def bundle():
    return trained()


def test_it_learns_at_every_exit(bundle):
    training = bundle.spec.training
    assert min(training["validation_accuracy"]) > 0.8
    assert training["epochs"][0]["loss"] > 2 * training["epochs"][-1]["loss"]


def test_the_bundle_says_how_it_was_made(bundle, shapes):
    training = json.loads((bundle.path / "model.json").read_text())["training"]
    assert training["command"] == "cmd"
    assert training["recipe"] == TINY.to_json()
    assert training["data"]["train"] == shapes
    assert len(training["epochs"]) == 4
    assert not (bundle.path / "checkpoint.pt").exists()
    card = (bundle.path / "README.md").read_text()
    assert "cmd" in card
    assert card.count("| 2 | 3 |") == 1
    assert f"{training['test_accuracy'][-1]:.2%}" in card


def test_trained_again_it_is_left_alone(bundle, shapes):
    before = bundle.weights.stat().st_mtime_ns
    assert train(TINY, source=shapes, test=None, out=bundle.path) == bundle
    assert bundle.weights.stat().st_mtime_ns == before
    other = dataclasses.replace(TINY, seed=1)
    with pytest.raises(ArtifactError, match="another recipe"):
        train(other, source=shapes, test=None, out=bundle.path)


@pytest.mark.parametrize("augment", ["none", "crop-flip"])
def test_an_interrupted_run_ends_in_the_same_weights(shapes, tmp_path, augment):
    recipe = dataclasses.replace(TINY, epochs=3, augment=augment, limit=120)
    whole = train(recipe, source=shapes, test=None, out=tmp_path / "whole")
    assert train(recipe, source=shapes, test=None, out=tmp_path / "parts", stop_after=1) is None

    def interrupt(report):
        if report.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, source=shapes, test=None, out=tmp_path / "parts", watcher=Watcher(step=interrupt))
    parts = train(recipe, source=shapes, test=None, out=tmp_path / "parts")
    first, second = load_file(whole.weights), load_file(parts.weights)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert whole.spec.weights_sha256 == parts.spec.weights_sha256


def test_a_checkpoint_of_another_run_is_refused(shapes, tmp_path):
    train(TINY, source=shapes, test=None, out=tmp_path, stop_after=1)
    with pytest.raises(ArtifactError, match=r"another lr;"):
        train(dataclasses.replace(TINY, lr=0.1), source=shapes, test=None, out=tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"cut short")
    with pytest.raises(ArtifactError, match="not a readable checkpoint"):
        train(TINY, source=shapes, test=None, out=tmp_path)


def test_a_bundle_of_a_version_that_knew_fewer_options_is_recognised(shapes, tmp_path):
    folder = fresh_bundle(tmp_path).path
    content = json.loads((folder / "model.json").read_text())
    del content["training"]["recipe"]["coupling"]
    (folder / "model.json").write_text(json.dumps(content))
    assert train(TINY, source=shapes, test=None, out=folder).path == folder


def test_uncoupled_exits_leave_the_backbone_as_its_twin_has_it(shapes, tmp_path):
    recipe = dataclasses.replace(TINY, epochs=1, limit=120)
    alone = train(dataclasses.replace(recipe, shares=()), source=shapes, test=None, out=tmp_path / "twin")
    beside = train(dataclasses.replace(recipe, coupling=0.0), source=shapes, test=None, out=tmp_path / "exits")
    twin, net = (list(multi_exit.load(b).stages.parameters()) for b in (alone, beside))
    assert all(torch.equal(a, b) for a, b in zip(twin, net, strict=True))


def test_frozen_exits_are_trained_beside_a_backbone_that_stays_as_it_was(shapes, tmp_path):
    recipe = dataclasses.replace(TINY, epochs=1, limit=120)
    alone = train(dataclasses.replace(recipe, shares=()), source=shapes, test=None, out=tmp_path / "twin")
    later = dataclasses.replace(recipe, init=str(alone.path), freeze=True, head={"name": "conv", "size": 4})
    beside = train(later, source=shapes, test=None, out=tmp_path / "exits")
    twin, net = multi_exit.load(alone), multi_exit.load(beside)
    before, after = ([*n.stages.state_dict().values(), *n.heads[-1].state_dict().values()] for n in (twin, net))
    assert len(before) == len(after)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)), "batch norm's means included"
    assert any(module.num_batches_tracked > 0 for module in net.heads[0].modules() if hasattr(module, "running_mean"))
    assert [e.head["name"] for e in beside.spec.exits] == ["conv"] * (len(beside.spec.exits) - 1) + ["pooled"]


def test_the_twin_without_exits_has_one_output(shapes, tmp_path):
    twin = train(dataclasses.replace(TINY, shares=(), epochs=1), source=shapes, test=None, out=tmp_path)
    assert len(twin.spec.exits) == 1
    assert twin.spec.name.endswith("plain")


def test_it_tells_how_it_goes(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "STEPS_PER_REPORT", 4)
    steps, epochs = [], []
    watcher = Watcher(steps.append, epochs.append)
    train(dataclasses.replace(TINY, epochs=2), source=shapes, test=None, out=tmp_path, watcher=watcher)
    assert [(s.epoch, s.done, s.steps) for s in steps[:5]] == [
        (1, 4, 13),
        (1, 8, 13),
        (1, 12, 13),
        (1, 13, 13),
        (2, 4, 13),
    ]
    assert all(len(s.accuracy) == 3 and 0 <= min(s.accuracy) <= max(s.accuracy) <= 1 for s in steps)
    assert [e.epoch for e in epochs] == [1, 2]
    assert epochs[0].loss == pytest.approx(steps[3].loss)


def test_bf16_trains_too(shapes, tmp_path):
    recipe = dataclasses.replace(TINY, precision="bf16", epochs=2)
    half = train(recipe, source=shapes, test=None, out=tmp_path)
    assert half.spec.training["epochs"][-1]["loss"] < 1.4 * 1.1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"precision": "fp8"}, "bf16 or fp32"),
        ({"epochs": 0}, "epochs"),
        ({"coupling": 1.5}, "coupling"),
        ({"freeze": True}, "freeze: needs a trained network to start from"),
        ({"validation": 1.0}, "validation"),
        ({"batch": 10_000}, "smaller --batch"),
        ({"augment": "mixup"}, "crop-flip"),
        ({"lr": 1e30}, "lower --lr"),
    ],
)
def test_wrong_recipes_say_what_to_try(shapes, tmp_path, change, words):
    with pytest.raises(UsageError, match=words):
        train(dataclasses.replace(TINY, **change), source=shapes, test=None, out=tmp_path)


def test_devices():
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(UsageError, match="try cpu or auto"):
        pick_device("tpu9")


def test_accuracies_put_the_network_into_evaluation_mode(bundle, shapes):
    from splitexit.models import data

    net = multi_exit.load(Bundle.open(bundle.path)).train()
    images = data.read(shapes)
    assert accuracies(net, images) == accuracies(net, images)
    assert not net.training


def draw(augment, n=400):
    images = torch.arange(1, 5 * 6 + 1, dtype=torch.uint8).view(1, 5, 6, 1)
    batches = Batches(images, torch.tensor([7]), augment)
    return batches.draw(torch.zeros(n, dtype=torch.int64), torch.Generator().manual_seed(0))


def test_without_augmentation_the_pixels_come_unchanged():
    pixels, labels = draw("none", 2)
    torch.testing.assert_close(pixels[1, 0] * 255, torch.arange(1.0, 31).view(5, 6))
    assert labels.tolist() == [7, 7]


@pytest.mark.parametrize(("augment", "kinds"), [("crop", 1), ("crop-flip", 2)])
def test_crops_are_windows_of_the_padded_image(augment, kinds):
    plain = torch.nn.functional.pad(torch.arange(1.0, 31).view(5, 6), (PAD,) * 4)
    windows = {
        tuple(v.flatten().tolist())
        for top in range(2 * PAD + 1)
        for left in range(2 * PAD + 1)
        for v in (plain[top : top + 5, left : left + 6], plain[top : top + 5, left : left + 6].flip(1))[:kinds]
    }
    pixels, _ = draw(augment)
    drawn = {tuple(p.flatten().tolist()) for p in (pixels * 255).round()}
    assert drawn <= windows
    assert len(drawn) > 0.8 * len(windows)
