"""Per-pixel exits: scenes, training, and what is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from splitexit.bench import dense, dense_show, miou
from splitexit.bench.scenes import CLASSES, SIZE, Scenes, compose, parts
from splitexit.cli import run
from splitexit.errors import ArtifactError, UsageError
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


JOINT: dict[str, object] = {"name": "joint"}


def tiny(objective: dict[str, object], shares: tuple[float, ...] = (0.4,), **keys: Any) -> dense.DenseRecipe:
    name = "method" if shares else "exit-free"
    backbone = {"name": "resnet", "depth": 8, "width": 4}
    return dense.DenseRecipe(name, shares, objective, backbone, **{"epochs": 2, "batch": 10, **keys})


def some(scenes: Scenes) -> list[Scenes]:
    """To train on, to choose thresholds, to test."""
    return [scenes.take(slice(0, 20)), scenes.take(slice(20, 30)), scenes.take(slice(30, 40))]


def test_every_exit_answers_every_pixel(scenes: Scenes) -> None:
    net = dense.build(tiny(JOINT)).eval()
    with torch.inference_mode():
        outputs = net(miou.pixels(scenes.take(slice(0, 3))))
    assert [tuple(output.shape) for output in outputs] == [(3, len(CLASSES), SIZE, SIZE)] * 2
    assert 0.0 < net.relative_costs()[0] < net.relative_costs()[1] == 1.0


def test_the_cost_of_a_head_is_that_of_its_convolution() -> None:
    spec = dense.build(tiny(JOINT)).spec
    for exit_ in spec.exits:
        channels, height, width = spec.shape_at(exit_.stage)
        assert exit_.macs == channels * height * width * len(CLASSES)
    assert spec.macs == sum(stage.macs for stage in spec.stages) + spec.exits[-1].macs


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("objective", [JOINT, {"name": "block-dependent", "reach": 1, "final": False}])
def test_training_lowers_the_loss(scenes: Scenes, objective: dict[str, object], precision: str) -> None:
    said: list[str] = []
    dense.train(tiny(objective, precision=precision), scenes, said.append)
    first, last = (float(line.split()[3]) for line in said)
    assert last < first


def test_counts_by_hand() -> None:
    """Two scenes of four pixels: exit 0 answers background throughout, exit 1 is right."""
    right = np.zeros((len(CLASSES), len(CLASSES)), dtype=int)
    right[0, 0], right[3, 3] = 3, 1
    blind = np.zeros_like(right)
    blind[0, 0], blind[3, 0] = 3, 1
    found = miou.Outcome(np.array([[blind, blind], [right, right]]), np.array([[0.9, 0.5], [0.8, 0.8]]))
    assert found.miou(np.array([1, 1])) == pytest.approx(100.0)
    assert found.miou(np.array([0, 0])) == pytest.approx(100.0 * (6 / 8 + 0.0) / 2)
    assert found.miou(np.array([0, 1])) == pytest.approx(100.0 * (6 / 7 + 1 / 2) / 2)
    assert found.leaving(0.7).tolist() == [0, 1]
    assert found.leaving(miou.NEVER).tolist() == [1, 1]
    assert found.leaving(0.0).tolist() == [0, 0]


def test_a_difference_has_an_interval_around_it() -> None:
    """Of two classes with 10 pixels in every scene: one network is right, the other is wrong of 0 to 4 pixels."""
    right = np.tile(np.diag([10, 10]), (30, 1, 1))
    wrong = right.copy()
    missed = np.arange(30) % 5
    wrong[:, 1, 1] -= missed
    wrong[:, 1, 0] += missed
    found = miou.difference(wrong, right)
    by_hand = 100.0 * ((300 / (300 + missed.sum()) + (300 - missed.sum()) / 300) / 2 - 1.0)
    assert found["points"] == pytest.approx(by_hand)
    assert found["low"] < found["points"] < found["high"] < 0.0
    assert miou.difference(right, right) == {"points": 0.0, "low": 0.0, "high": 0.0}


def test_confusion_adds_up(scenes: Scenes) -> None:
    net = dense.build(tiny(JOINT)).eval()
    outcome = miou.evaluate(net, scenes, size=16)
    assert outcome.confusion.shape == (2, 40, len(CLASSES), len(CLASSES))
    assert (outcome.confusion.sum(axis=(2, 3)) == SIZE * SIZE).all()
    true = np.bincount(scenes.masks.reshape(-1), minlength=len(CLASSES))
    assert (outcome.confusion[0].sum(axis=(0, 2)) == true).all()
    assert ((outcome.confidence > 1 / len(CLASSES) - 1e-6) & (outcome.confidence <= 1)).all()
    answered = miou.answers(net, scenes.take(slice(0, 2)))
    assert (np.bincount(answered[1, 1].reshape(-1), minlength=11) == outcome.confusion[1, 1].sum(axis=0)).all()


def test_what_is_finished_is_not_trained_again(tmp_path: Path, scenes: Scenes) -> None:
    steps: list[tuple[int, int]] = []

    def results(recipes: list[dense.DenseRecipe]) -> list[dict[str, Any]]:
        steps.clear()
        return list(dense.DenseBench(some(scenes), tmp_path, said.append, lambda *now: steps.append(now)).run(recipes))

    said: list[str] = []
    twin, method = tiny(JOINT, ()), tiny(JOINT)
    first = results([twin])
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    both = results([twin, method])
    assert steps == [(4, 8), (5, 8), (6, 8), (7, 8), (8, 8)]
    assert both[0] == first[0]
    assert sum("epoch  1" in line for line in said) == 2
    assert both[1]["twin_miou"] == first[0]["miou"] == first[0]["exits"][0]["miou"]
    assert both[1]["difference"]["points"] == pytest.approx(both[1]["miou"] - first[0]["miou"])
    assert sum(both[1]["exit_rates"]) == pytest.approx(1.0)
    with pytest.raises(ArtifactError, match=r"method-0: trained with another recipe; choose another --out"):
        results([twin, tiny(JOINT, epochs=3)])


def test_what_cannot_be_is_said_before_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError):
        dense.build(tiny(JOINT, (0.4, 0.5, 0.6, 0.7, 0.8)))
    assert (
        run(["bench", "dense", "--exits", "20,40,60,80,90,95", "--backbone", "resnet:depth=8", "--data", "mnist=a,b"])
        == 2
    )
    taken = tmp_path / "file"
    taken.touch()
    assert run(["bench", "dense", "--backbone", "resnet:depth=8", "--exits", "40", "--out", str(taken)]) == 2
    said = capsys.readouterr().err
    assert "composing" not in said
    assert "cannot make this folder" in said


def test_a_table_in_two_widths() -> None:
    exits = [{"cost": 0.25, "miou": 20.0}, {"cost": 1.0, "miou": 40.0}]
    same = {"exits": exits, "exit_rates": [0.25, 0.75], "epochs": 3, "cost": 0.5, "seed": 0}
    apart = {"points": -1.0, "low": -2.0, "high": 0.5}
    found = [{"method": "joint", "miou": miou_, "difference": apart, **same} for miou_ in (38.0, 39.0)]
    (seeds,) = dense_show.grouped(found)
    line = dict(zip(dense_show.HEADS, dense_show.cells(seeds), strict=True))
    assert line == {
        "method": "joint",
        "mIoU % by exit": "20.0 40.0",
        "early %": "38.50",
        "cost": "50.0%",
        "difference": "-1.00 [-2.00, +0.50]",
        "exits %": "25 75",
        "cost by exit": "0.25 1.00",
        "epochs": "3",
        "seeds": "2",
    }
    assert dense_show.heads(80) == dense_show.HEADS[:5]
    assert dense_show.heads(200) == dense_show.HEADS
    assert dense_show.markdown(found).splitlines()[2].startswith("| joint | 20.0 40.0 | 38.50 |")


def written(images: ImageSet, path: Path) -> str:
    """The images as a parquet file."""
    import io

    from PIL import Image

    def png(pixels: np.ndarray[Any, Any]) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(buffer, "png")
        return buffer.getvalue()

    cells = [{"bytes": png(pixels), "path": ""} for pixels in images.images]
    pq.write_table(pa.table({"image": cells, "label": images.labels}), path)
    return f"{path},{path}"


def test_the_command_leaves_table_pictures_and_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = written(images(1, 28, 0), tmp_path / "mnist.parquet")
    photographs = written(images(3, 32, 1), tmp_path / "cifar10.parquet")
    out = tmp_path / "run"
    options = ["--data", f"mnist={digits}", "--data", f"cifar10={photographs}", "--scenes", "100", "--epochs", "1"]
    command = ["bench", "dense", *options, "--backbone", "resnet:depth=8,width=4", "--exits", "40", "--out", str(out)]
    monkeypatch.setattr(dense_show, "SHOWN", 1)
    assert run(command) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[-1] == str(out)
    assert max(map(len, shown.splitlines()[:-1])) <= 80
    names = {"exit-free", "joint", "block-dependent-2"}
    assert {path.name for path in out.iterdir()} == {"summary.json", "table.md", "miou.png"} | {
        name for network in names for name in (f"{network}-0", f"scenes-{network}-0.png")
    }
    assert run([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {found["method"] for found in document["methods"]} == names
    assert document["scenes"] == [count for _, count, _ in parts(100)]
    assert json.loads((out / "summary.json").read_text()) == document

    def stop(*arguments: object, **keys: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dense, "train", stop)
    assert run([*command[:-1], str(tmp_path / "other")]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == f"interrupted; {tmp_path / 'other'} keeps the finished networks"
