"""Per-pixel exits: scenes, training, and what is counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from splitexit.bench import dense
from splitexit.bench.scenes import SIZE, Scenes, compose
from splitexit.models.data import ImageSet


def images(channels: int, size: int, seed: int) -> ImageSet:
    """Digits are a bright square on black; photographs are noise."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (20, size, size, channels), dtype=np.uint8)
    if channels == 1:
        pixels[:] = 0
        pixels[:, 8:-8, 8:-8] = 255
    return ImageSet(pixels, np.arange(20) % 10, tuple("0123456789"), "made")


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return compose(images(1, 28, 0), images(3, 32, 1), 40, seed=0)


def test_scenes_are_drawn_from_the_seed_alone(scenes: Scenes) -> None:
    again = compose(images(1, 28, 0), images(3, 32, 1), 40, seed=0)
    other = compose(images(1, 28, 0), images(3, 32, 1), 40, seed=1)
    assert (again.images == scenes.images).all()
    assert (again.masks == scenes.masks).all()
    assert (other.masks != scenes.masks).any()
    assert scenes.images.shape == (40, SIZE, SIZE, 3)


def test_a_mask_marks_the_ink_of_its_digit() -> None:
    """One grey photograph: whatever differs much from it is ink, and what is ink is marked."""
    grey = ImageSet(np.full((1, 32, 32, 3), 128, dtype=np.uint8), np.zeros(1, dtype=np.int64), ("x",), "made")
    one = images(1, 28, 0).take(np.array([7]))
    found = compose(one, grey, 10, seed=3)
    assert set(np.unique(found.masks)) == {0, 8}
    share = (found.masks > 0).mean()
    assert 0.01 < share < 0.4
    assert (found.images[found.masks == 0].astype(int) - 128 < 60).all()


def tiny(objective: dict[str, object], shares: tuple[float, ...] = (0.4,)) -> dense.DenseRecipe:
    return dense.DenseRecipe(shares, objective, {"name": "resnet", "depth": 8, "width": 4}, epochs=2, batch=10)


def test_every_exit_answers_every_pixel(scenes: Scenes) -> None:
    net = dense.build(tiny({"name": "joint"})).eval()
    with torch.inference_mode():
        outputs = net(dense.pixels(scenes.take(slice(0, 3))))
    assert [tuple(output.shape) for output in outputs] == [(3, dense.CLASSES, SIZE, SIZE)] * 2
    assert 0.0 < net.relative_costs()[0] < net.relative_costs()[1] == 1.0


@pytest.mark.parametrize("objective", [{"name": "joint"}, {"name": "block-dependent", "reach": 1, "final": False}])
def test_training_lowers_the_loss(scenes: Scenes, objective: dict[str, object]) -> None:
    said: list[str] = []
    dense.train(tiny(objective), scenes, said.append)
    first, last = (float(line.split()[3]) for line in said)
    assert last < first


def test_counts_by_hand() -> None:
    """Two scenes of four pixels: exit 0 answers background throughout, exit 1 is right."""
    right = np.zeros((dense.CLASSES, dense.CLASSES), dtype=int)
    right[0, 0], right[3, 3] = 3, 1
    blind = np.zeros_like(right)
    blind[0, 0], blind[3, 0] = 3, 1
    found = dense.Outcome(np.array([[blind, blind], [right, right]]), np.array([[0.9, 0.5], [0.8, 0.8]]))
    assert found.miou(np.array([1, 1])) == pytest.approx(100.0)
    assert found.miou(np.array([0, 0])) == pytest.approx(100.0 * (6 / 8 + 0.0) / 2)
    assert found.miou(np.array([0, 1])) == pytest.approx(100.0 * (6 / 7 + 1 / 2) / 2)
    assert found.leaving(0.7).tolist() == [0, 1]
    assert found.leaving(2.0).tolist() == [1, 1]
    assert found.leaving(0.0).tolist() == [0, 0]


def test_confusion_adds_up(scenes: Scenes) -> None:
    net = dense.build(tiny({"name": "joint"})).eval()
    outcome = dense.evaluate(net, scenes, size=16)
    assert outcome.confusion.shape == (2, 40, dense.CLASSES, dense.CLASSES)
    assert (outcome.confusion.sum(axis=(2, 3)) == SIZE * SIZE).all()
    true = np.bincount(scenes.masks.reshape(-1), minlength=dense.CLASSES)
    assert (outcome.confusion[0].sum(axis=(0, 2)) == true).all()
    assert ((outcome.confidence > 1 / dense.CLASSES - 1e-6) & (outcome.confidence <= 1)).all()


def test_a_score_holds_what_it_says(scenes: Scenes) -> None:
    net = dense.build(tiny({"name": "joint"})).eval()
    found = dense.score(net, scenes.take(slice(0, 20)), scenes.take(slice(20, 40)))
    assert len(found["miou"]) == 2
    assert sum(found["exit_rates"]) == pytest.approx(1.0)
    assert len(dense.table([{"method": "joint", "seed": 0, "epochs": 2, **found}])) == 2
