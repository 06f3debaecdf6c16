"""`splitexit bench codecs`: rows that are kept, the front, the baseline of image codecs, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from splitexit import codecs as zoo
from splitexit.bench import codec_plan as plan
from splitexit.bench import codecs_show as show
from splitexit.bench import rates
from splitexit.bench.codecs import CodecBench, Images, Passed, Split, device_macs
from splitexit.bundle import Bundle, file_sha256
from splitexit.cli import run
from splitexit.codecs import Codec
from splitexit.errors import ArtifactError, InputError, UsageError
from splitexit.models import codecs, data, multi_exit
from splitexit.models.fit_codec import Features
from splitexit.models.multi_exit import NetConfig, build, save
from tests.models_tiny import fresh_bundle, stripes, trained

SPLIT = 1


@cache
def images() -> Images:
    return plan.read_images(trained(), stripes("test"), stripes(), None)


def bench(folder: Path, bundle: Bundle | None = None) -> CodecBench:
    return CodecBench(bundle or trained(), images(), folder, torch.device("cpu"))


def measured(folder: Path, *codec_ids: str, split: int = SPLIT) -> list[dict[str, Any]]:
    return list(bench(folder).run([(split, codec_id) for codec_id in codec_ids]))


def row(bytes_: float, accuracy: float, codec: str = "affine", split: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "split": split,
        "codec": codec,
        "family": codec.partition(":")[0],
        "input": split == 0,
        "bytes": bytes_,
        "accuracy": accuracy,
        "device_share": 0.4 if split else 0.0,
        "difference": {"points": accuracy - 90.0, "low": 0.0, "high": 0.0},
        **more,
    }


BASELINE = [
    row(100, 60, "jpeg:headers=false,quality=10", 0),
    row(400, 80, "jpeg:headers=false,quality=50", 0),
    row(300, 70, "webp:headers=false,quality=5", 0),
    row(3000, 90, "png", 0),
    row(50, 99, "jpeg", 0, input=False),
]


def test_a_lossless_codec_changes_nothing(tmp_path: Path) -> None:
    (raw,) = measured(tmp_path, "raw")
    assert raw["difference"] == {"points": 0.0, "low": 0.0, "high": 0.0}
    assert raw["accuracy"] == raw["plain_accuracy"] > 50
    assert raw["bytes"] == raw["bytes_p95"] == raw["fp32_bytes"] + 10
    assert raw["images"] == 60
    assert raw["device_share"] == device_macs(trained().spec, SPLIT) / trained().spec.macs


def test_accuracy_and_bytes_are_those_of_single_samples(tmp_path: Path) -> None:
    """Against the codec itself, one sample at a time through the network."""
    codec_id = "affine:bits=1"
    (found,) = measured(tmp_path, codec_id)
    net, spec = multi_exit.load(trained()), trained().spec
    codec = zoo.create(codec_id, shape=spec.shape_at(SPLIT))  # type: ignore[arg-type]
    sizes, right = [], []
    with torch.inference_mode():
        for number, label in enumerate(images().test.labels):
            pixels = torch.from_numpy(images().test.pixels(number))[None]
            payload = codec.encode(net.run_stages(pixels, 0, SPLIT)[0].contiguous().numpy())
            end = net.run_stages(torch.from_numpy(codec.decode(payload))[None], SPLIT, spec.num_stages)
            right.append(int(net.read_exit(end, spec.final_exit).argmax()) == label)
            sizes.append(len(payload))
    assert found["bytes"] == pytest.approx(np.mean(sizes), rel=0.01)
    assert found["accuracy"] == pytest.approx(100 * np.mean(right), abs=2)
    assert found["difference"]["points"] == pytest.approx(found["accuracy"] - found["plain_accuracy"])


def test_fitted_codecs_are_fitted_on_the_validation_split_and_not_written(tmp_path: Path) -> None:
    bundle, before = trained(), sorted(trained().path.iterdir())
    _, validation, _ = data.parted(bundle.spec, stripes())
    assert images().fit.sha256 == validation.sha256
    (found,) = measured(tmp_path, "range:bits=4")
    assert found["tensors"] == "fitted here"
    assert sorted(bundle.path.iterdir()) == before
    features = Features(multi_exit.load(bundle), validation, SPLIT)
    tensors = zoo.load("range").fit(features.features, features.gradients, bits=4)  # type: ignore[attr-defined]
    codec = zoo.create("range:bits=4", shape=bundle.spec.shape_at(SPLIT), tensors=tensors)  # type: ignore[arg-type]
    at = Split(multi_exit.load(bundle), images(), SPLIT)
    sizes = [len(codec.encode(one)) for chunk in at.chunks() for one in chunk]
    assert found["bytes"] == np.mean(sizes)


def with_bottleneck(folder: Path) -> Bundle:
    """A copy of the tiny bundle with one that passes two of its channels on."""
    bundle = fresh_bundle(folder)
    wide = bundle.spec.shape_at(SPLIT)[0]
    some = np.eye(wide, dtype=np.float32)[:2]
    tensors = {
        "encoder.weight": some,
        "encoder.bias": np.zeros(2, np.float32),
        "decoder.weight": some.T.copy(),
        "decoder.bias": np.zeros(wide, np.float32),
        "low": np.float32(0),
        "high": np.float32(8),
    }
    codecs.write(bundle, {(SPLIT, "bottleneck:channels=2"): {k: np.asarray(v) for k, v in tensors.items()}}, {})
    return bundle


def test_the_encoder_counts_against_the_device(tmp_path: Path) -> None:
    bundle = with_bottleneck(tmp_path)
    pair = (SPLIT, "bottleneck:channels=2")
    assert pair in plan.choose_pairs(bundle, [SPLIT], (), quick=True)
    assert pair not in plan.choose_pairs(bundle, [2], (), quick=True)
    (found,) = bench(tmp_path / "run", bundle).run([pair])
    channels, height, width = bundle.spec.shape_at(SPLIT)
    assert found["encoder_macs"] == 2 * channels * height * width
    plain = device_macs(bundle.spec, SPLIT) / bundle.spec.macs
    assert found["device_share"] == pytest.approx(plain + found["encoder_macs"] / bundle.spec.macs)
    assert found["tensors"] == "bundle"


def test_what_is_finished_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the second of two, the first is not measured again; another limit is another row."""
    first = measured(tmp_path, "uint8")
    through, count = Passed.through, 0

    def counted(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        return through(*arguments)

    monkeypatch.setattr(Passed, "through", counted)
    both = measured(tmp_path, "uint8", "fp16")
    assert both[0] == first[0]
    assert count == 1
    fewer = Images(images().test.take(np.arange(20)), images().fit)
    (other,) = CodecBench(trained(), fewer, tmp_path, torch.device("cpu")).run([(SPLIT, "uint8")])
    assert (count, other["images"]) == (2, 20)


def test_another_training_of_a_codec_is_another_row(tmp_path: Path) -> None:
    bundle, pair = with_bottleneck(tmp_path), (SPLIT, "bottleneck:channels=2")
    (one,) = bench(tmp_path / "run", bundle).run([pair])
    tensors = codecs.read(bundle)
    codecs.write(bundle, {pair: tensors[pair] | {"high": np.array(0.01, np.float32)}}, {})
    (other,) = bench(tmp_path / "run", bundle).run([pair])
    assert len(list((tmp_path / "run" / "rows").iterdir())) == 2
    assert other["bytes"] != one["bytes"]


def test_times_and_sizes() -> None:
    passed = Passed([10, 20, 30, 40], [0.001, 0.002, 0.003], [0.004, 0.002, 0.003])
    figures = passed.figures(1000)
    assert (figures["bytes"], figures["fp32_ratio"]) == (25, 40)
    assert figures["bytes_p95"] == pytest.approx(38.5)
    assert (figures["encode_ms"], figures["decode_ms"]) == (2, 3)
    assert figures["mb_s"] == pytest.approx(0.2)
    assert figures["encode_mb_s"] == pytest.approx(0.5)


def test_every_sample_is_encoded_alone_and_in_order() -> None:
    passed, seen = Passed(), list[float]()
    features = np.arange(12, dtype=np.float32).reshape(3, 1, 2, 2)

    def encode(sample: np.ndarray[Any, Any]) -> bytes:
        seen.append(float(sample[0, 0, 0]))
        return bytes(len(seen))

    decoded = passed.through(encode, len, features)
    assert (seen, decoded, passed.sizes) == ([0, 4, 8], [1, 2, 3], [1, 2, 3])
    assert len(passed.encode_s) == len(passed.decode_s) == 3


def test_the_front() -> None:
    points = [(10.0, 50.0), (20.0, 50.0), (20.0, 60.0), (5.0, 40.0), (30.0, 60.0), (10.0, 50.0)]
    assert rates.front(points) == [True, False, True, True, False, True]
    rows = [row(*point) for point in points]
    assert [of["bytes"] for of in rates.on_front(rows)] == [5, 10, 20]


def test_what_an_image_codec_needs() -> None:
    baseline = rates.Baseline([of for of in BASELINE if of["input"]])
    for accuracy, bytes_ in ((80, 400), (70, 300), (75, 12e4**0.5), (65, 3e4**0.5)):  # halfway in the logarithm
        needed, how = baseline.needs(accuracy)
        assert (needed, how) == (pytest.approx(bytes_), "interpolated")  # type: ignore[comparison-overlap]
    assert baseline.needs(50) == (100, "at most")
    assert baseline.needs(95) == (3000, "at least")
    assert baseline.jpeg(70)[0]["bytes"] == 400
    assert baseline.jpeg(60) == (BASELINE[0], True)
    assert baseline.jpeg(85) == (BASELINE[1], False)


def test_rows_beside_each_other() -> None:
    rows = rates.compared([*BASELINE[:4], row(50, 80), row(200, 88.5), row(400, 88, device_share=0.6)])
    assert [of["front"] for of in rows] == [False, False, False, True, True, True, False]
    assert [of["split_front"] for of in rows] == [True, True, True, True, True, True, False]
    few, good, _ = rows[4:]
    assert (few["jpeg_ratio"], few["jpeg_reaches"], few["image_ratio"]) == (8, True, pytest.approx(8))
    assert (good["jpeg_ratio"], good["jpeg_reaches"]) == (2, False)
    found = rates.verdict(rows)
    assert found is not None
    assert found["against_images"] == found["fewest_bytes"] == good
    assert rates.verdict([*rows[:5], rows[6]]) is None


def test_a_split_that_is_not_there() -> None:
    with pytest.raises(UsageError, match=r"--split 3: .* has splits 0\.\.2"):
        plan.choose_splits(trained().spec, [1, 3], quick=False)
    assert plan.choose_splits(trained().spec, [], quick=False) == [1, 2]
    assert plan.choose_splits(trained().spec, [2, 2, 0], quick=True) == [0, 2]
    (quick,) = plan.choose_splits(trained().spec, [], quick=True)
    assert device_macs(trained().spec, quick) <= trained().spec.macs / 2


def test_the_usual_codecs_fit_every_shape(tmp_path: Path) -> None:
    for shape in ((1, 1, 1), (3, 8, 8), (64, 2, 3)):
        for quick in (True, False):
            ids = plan.feature_codecs(shape, quick)
            assert ids == [zoo.canonical(codec_id) for codec_id in dict.fromkeys(ids)]
    for quick in (True, False):
        pairs = plan.choose_pairs(trained(), [1, 2], (), quick)
        bench(tmp_path).check(pairs)
        assert {split for split, _ in pairs} == {0, 1, 2}
    assert "range" in {codec_id for _, codec_id in pairs}


def test_packages_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "find_spec", lambda package: None)
    ids = plan.feature_codecs((8, 4, 4), quick=False)
    assert not [codec_id for codec_id in ids if "range" in codec_id or "lz4" in codec_id]
    assert "affine" in ids


def test_asked_codecs_stand_beside_the_baseline() -> None:
    pairs = plan.choose_pairs(trained(), [2], ["affine:bits=8", "jpeg:quality=3"], quick=True)
    baseline = [(0, codec_id) for codec_id in plan.image_codecs(quick=True)]
    assert pairs == [*baseline, (0, "jpeg:quality=3"), (2, "affine")]


@pytest.mark.parametrize(
    ("codec_id", "kind", "said"),
    [
        ("bottleneck:channels=3", ArtifactError, "has no weights at split 1; `splitexit train-codec"),
        ("channels:keep=5000", InputError, r"keep=5000, but the tensor has \d+ channels \(split 1\)"),
        ("afine", InputError, "did you mean 'affine'"),
    ],
)
def test_codecs_that_cannot_be_measured(tmp_path: Path, codec_id: str, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        next(iter(bench(tmp_path).run([(SPLIT, "raw"), (SPLIT, codec_id)])))
    assert not list(tmp_path.iterdir())


def test_without_training_images_some_test_images_are_kept_apart() -> None:
    found = plan.read_images(trained(), stripes("test"), None, 30)
    assert found.fit.origin == stripes()  # model.json names it, and it is there
    bundle = replace(trained(), spec=replace(trained().spec, training={}))
    found = plan.read_images(bundle, stripes("test"), None, 30)
    assert (len(found.fit), len(found.test)) == (15, 30)
    everything = data.read(stripes("test"))
    np.testing.assert_array_equal(found.fit.images, everything.images[:15])
    np.testing.assert_array_equal(found.test.images, everything.images[15:45])
    assert "15 test images, which are not tested" in found.notes[0]
    with pytest.raises(UsageError, match="1 images to test, at least 2 expected"):
        plan.read_images(bundle, stripes("test"), stripes(), 1)
    with pytest.raises(UsageError, match="no test images"):
        plan.read_images(bundle, None, None, None)


def test_images_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"images of \(1, 12, 12\), the network takes \(1, 10, 10\)"):
        plan.read_images(untrained(tmp_path, 10, 3), stripes("test"), None, None)
    with pytest.raises(UsageError, match="class '2' is none of those that the network knows: 0, 1"):
        plan.read_images(untrained(tmp_path, 12, 2), stripes("test"), None, None)


def untrained(folder: Path, side: int, num_classes: int) -> Bundle:
    backbone, grey = {"name": "resnet", "depth": 8, "width": 4}, (0.5,)
    config = NetConfig(backbone, (1, side, side), num_classes, (0.5,), mean=grey, std=grey)
    return save(build(config), folder / str(side), {})


def test_tables_of_every_width() -> None:
    assert len(show.heads(80)) == show.NARROW
    assert sum(column.width + 1 for column in show.heads(80)) - 1 <= 80
    wide = [len(show.heads(width)) for width in range(80, 200)]
    assert wide == sorted(wide)
    assert wide[-1] == len(show.COLUMNS)
    assert show.heads(200) == list(show.COLUMNS)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, out = trained(), tmp_path / "run"
    before = {file.name: file_sha256(file) for file in bundle.path.iterdir()}
    command = ["bench", "codecs", str(bundle.path), "--quick", "--split", "1", "--split", "2", "--out", str(out)]
    assert run([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {split["split"] for split in document["splits"]} == {0, 1, 2}
    assert document["test"]["images"] == 60
    assert {"cpu", "cores", "torch"} <= document["machine"].keys()
    assert (document["seed"], document["plain_accuracy"]) == (0, document["rows"][0]["plain_accuracy"])
    assert all(split["zstd3"]["bytes"] < split["fp32_bytes"] for split in document["splits"])
    assert {"jpeg", "webp", "png", "raw", "range", "topk", "channels"} <= {of["family"] for of in document["rows"]}
    assert any(of["front"] for of in document["rows"])
    assert json.loads((out / "summary.json").read_text()) == document
    assert (out / "codecs.png").stat().st_size > 20_000
    assert {file.name: file_sha256(file) for file in bundle.path.iterdir()} == before
    assert run(command) == 0
    *shown, last = capsys.readouterr().out.splitlines()
    assert last == str(out)
    assert max(map(len, shown)) <= 80
    assert any(line.startswith(("best against images", "no codec of features")) for line in shown)
    table = (out / "table.md").read_text()
    assert table.count("\n| ") == len(document["rows"]) + 2  # head and rule
    assert "`splitexit" in table

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Codec, "encode", stop)
    assert run([*command[:-1], str(tmp_path / "other")]) == 130
    assert "the same command goes on from there" in capsys.readouterr().err


def test_the_command_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "codecs", str(trained().path), "--split", "7"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
