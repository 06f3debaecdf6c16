"""Recordings hold what the network says; interruptions and additions lose nothing."""

import json
from dataclasses import replace
from io import BytesIO

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from splitexit.confidence import confidences, cut
from splitexit.errors import InputError, UsageError
from splitexit.models import chunks, codecs, data, multi_exit, record
from splitexit.models.multi_exit import NetConfig
from splitexit.models.runtime import Runtime
from splitexit.recording import Recording
from tests.confident_head import HEAD
from tests.models_tiny import fresh_bundle, stripes, trained
from tests.test_models_codecs import weights

PAIRS = [(0, "image"), (0, "jpeg"), (1, "raw"), (1, "uint8"), (2, "fp16")]
COLUMNS = ("prediction", "max_prob", "entropy", "margin")


@pytest.fixture
def bundle(tmp_path):
    return fresh_bundle(tmp_path)


@pytest.fixture(scope="module")
def parts():
    return record.read_parts(trained(), stripes(), stripes("test"), limit=8)


def same(first, second):
    return all(np.array_equal(getattr(first, c), getattr(second, c)) for c in COLUMNS)


def test_the_calibration_part_is_the_validation_split(parts):
    calibration, test = parts
    whole = data.read(stripes())
    _, held = data.split_off(whole.labels, 0.1)
    assert calibration.part == "calibration"
    assert np.array_equal(calibration.numbers, held[:8])
    assert np.array_equal(calibration.images.images, whole.images[held[:8]])
    assert np.array_equal(test.numbers, np.arange(8))


def test_readings_are_those_of_the_network(bundle, parts):
    recording = record.record(bundle, parts, PAIRS)
    net = multi_exit.load(bundle)
    pixels = torch.from_numpy(np.stack([parts[1].images.pixels(i) for i in range(8)]))
    with torch.no_grad():
        for exit_, logits in enumerate(net(pixels)):
            prediction, max_prob, *_ = confidences(logits.numpy())
            assert np.array_equal(recording.test.exits[exit_].prediction, prediction)
            np.testing.assert_allclose(recording.test.exits[exit_].max_prob, max_prob, atol=1e-5)


def test_pairs_hold_payload_bytes_and_the_edges_answer_on_decoded_features(bundle, parts):
    recording = record.record(bundle, parts, PAIRS, all_edge_exits=True)
    runtime, opened = Runtime(bundle), codecs.open_codecs(bundle, PAIRS)
    for split, codec_id in PAIRS:
        pair, codec = recording.test.pair(split, codec_id), opened[split, codec_id]
        assert pair.lossless == codec.lossless
        assert sorted(pair.exits) == ([] if codec.lossless else list(bundle.spec.exits_after(split)))
        for sample in range(8):
            features = runtime.run_stages(parts[1].images.pixels(sample), 0, split)
            payload = codec.encode(features)
            assert pair.payload_bytes[sample] == len(payload)
            answers = runtime.exits_from(codec.decode(payload), split, tuple(pair.exits))
            for exit_, logits in answers.items():
                assert pair.exits[exit_].prediction[sample] == logits.argmax()
                assert pair.exits[exit_].margin[sample] == confidences(logits[None])[3][0]


def test_a_lossless_codec_changes_no_answer(bundle, parts):
    """Why bytes alone are stored for it: behind raw features the edge says, bit for bit, what the device says."""
    runtime, codec = Runtime(bundle), codecs.open_codecs(bundle, [(1, "raw")])[1, "raw"]
    image = parts[1].images.pixels(0)
    features = codec.decode(codec.encode(runtime.run_stages(image, 0, 1)))
    exits = tuple(range(3))[1:]
    whole, behind = runtime.exits_from(image, 0, exits), runtime.exits_from(features, 1, exits)
    assert all(np.array_equal(whole[e], behind[e]) for e in exits)


def test_heads_of_unequal_width_are_recorded(tmp_path, parts):
    """Early heads with a learned confidence put out one number more than the final one."""
    config = NetConfig(
        {"name": "resnet", "depth": 8, "width": 4}, (1, 12, 12), 3, shares=(0.4, 0.7), head={"name": HEAD}
    )
    bundle = multi_exit.save(multi_exit.build(config, 0).eval(), tmp_path / "bundle", {})
    recording = record.record(bundle, parts, PAIRS, all_edge_exits=True, keep_logits=True)
    assert [said.confidence is not None for said in recording.test.exits] == [True, True, False]
    runtime, opened = Runtime(bundle), codecs.open_codecs(bundle, PAIRS)
    image = parts[1].images.pixels(0)
    features = opened[1, "uint8"].decode(opened[1, "uint8"].encode(runtime.run_stages(image, 0, 1)))
    for exits, outputs in (
        (recording.test.exits, runtime.exits_from(image, 0, (0, 1))),
        (recording.test.pair(1, "uint8").exits, runtime.exits_from(features, 1, (1,))),
    ):
        for exit_, output in outputs.items():
            logits, learned = cut(output[None], 3)
            assert exits[exit_].confidence[0] == learned[0]
            assert exits[exit_].prediction[0] == logits.argmax()
            assert exits[exit_].logits.shape == (8, 3)
    assert recording.test.pair(1, "raw").lossless


def test_it_says_what_it_was_made_from(bundle, parts):
    record.record(bundle, parts, PAIRS, command="splitexit record", keep_logits=True)
    recording = Recording.load(bundle.recording, bundle.spec)
    assert recording.made["command"] == "splitexit record"
    assert recording.made["digests"] == bundle.digests()
    assert recording.made["data"]["test"] == {
        "source": stripes("test"),
        "sha256": parts[1].images.sha256,
        "samples": 8,
    }
    assert recording.test.exits[0].logits.shape == (8, 3)
    assert np.array_equal(recording.test.label, parts[1].images.labels)


def test_an_interruption_loses_no_finished_chunk(bundle, parts, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 3)
    calls = []

    def interrupt(done, total):
        calls.append(done)
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record.record(bundle, parts, PAIRS, progress=interrupt)
    seen = []
    recording = record.record(bundle, parts, PAIRS, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (6, 16)
    assert seen[-1] == (16, 16)
    assert sorted(p.name for p in bundle.path.glob("recording*")) == ["recording.parquet"]
    whole = record.record(bundle, parts, PAIRS, fresh=True)
    assert same(recording.test.exits[2], whole.test.exits[2])
    assert same(recording.calibration.pair(1, "uint8").exits[2], whole.calibration.pair(1, "uint8").exits[2])


def test_workers_write_what_one_process_writes(bundle, parts, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 4)
    alone = record.record(bundle, parts, PAIRS)
    together = record.record(bundle, parts, PAIRS, fresh=True, workers=2)
    for e in range(3):
        assert same(alone.test.exits[e], together.test.exits[e])
    for pair in PAIRS:
        assert np.array_equal(alone.test.pair(*pair).payload_bytes, together.test.pair(*pair).payload_bytes)


def test_pairs_are_added_to_those_there(bundle, parts):
    record.record(bundle, parts, [(0, "jpeg")])
    recording = record.record(bundle, parts, [(1, "uint8")])
    assert set(recording.test.pairs) == {(0, "jpeg"), (1, "uint8")}
    wider = record.record(bundle, parts, [(0, "jpeg")], all_edge_exits=True)
    assert sorted(wider.test.pair(0, "jpeg").exits) == [0, 1, 2]
    assert sorted(wider.test.pair(1, "uint8").exits) == [2]


def test_a_codec_that_was_trained_again_is_recorded_again(bundle, parts):
    pair = (1, "bottleneck:channels=2")
    codecs.write(bundle, {pair: weights(0), (2, pair[1]): weights(0, wide=bundle.spec.shape_at(2)[0])}, {})
    before = record.record(bundle, parts, [pair, (2, pair[1]), (1, "fp16")])
    codecs.write(bundle, {**codecs.read(bundle), pair: weights(1)}, {})
    after = record.record(bundle, parts, [(1, "fp16")])
    assert set(after.test.pairs) == {(2, pair[1]), (1, "fp16")}
    again = record.record(bundle, parts, [pair])
    readings = [r.test.pair(*pair).exits[2].entropy for r in (before, again)]
    assert not np.array_equal(*readings)


def test_other_options_or_images_need_fresh(bundle, parts):
    record.record(bundle, parts, [(0, "jpeg")])
    with pytest.raises(UsageError, match="other logits.*--fresh"):
        record.record(bundle, parts, [(0, "png")], keep_logits=True)
    shorter = [part.head(4) for part in parts]
    with pytest.raises(UsageError, match="other data.*--fresh"):
        record.record(bundle, shorter, [(0, "png")])
    assert len(record.record(bundle, shorter, [(0, "png")], fresh=True).test) == 4


def test_the_same_images_may_lie_elsewhere(bundle, parts):
    """They are known by their digest."""
    record.record(bundle, parts, [(0, "jpeg")])
    moved = [replace(part, images=replace(part.images, origin="elsewhere.parquet")) for part in parts]
    assert set(record.record(bundle, moved, [(0, "png")]).test.pairs) == {(0, "jpeg"), (0, "png")}


def test_other_training_images_are_refused():
    with pytest.raises(UsageError, match="by their digest"):
        record.read_parts(trained(), stripes("test"), stripes("test"))


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("raw@1", [(1, "raw")]),
        ("jpeg:quality=075@0", [(0, "jpeg")]),
        ("uint8@all", [(1, "uint8"), (2, "uint8")]),
    ],
)
def test_pairs_on_the_command_line(text, pairs):
    assert record.parse_pair(text, trained()) == pairs


@pytest.mark.parametrize(
    ("text", "words"),
    [("raw", "codec@split"), ("raw@3", r"0\.\.2"), ("raw@x", "codec@split"), ("rw@1", "did you mean 'raw'")],
)
def test_wrong_pairs_on_the_command_line(text, words):
    with pytest.raises(InputError, match=words):
        record.parse_pair(text, trained())


def test_a_useful_set_of_pairs(bundle):
    codecs.write(bundle, {(2, "bottleneck:channels=2"): weights()}, {})
    pairs = record.default_pairs(bundle)
    assert (0, "jpeg") in pairs
    assert (2, "bottleneck:channels=2") in pairs
    assert {split for split, codec in pairs if codec == "uint8"} == {1, 2}


def test_samples_hold_the_very_pixels(bundle, parts):
    record.write_samples(bundle, parts[1], 5)
    table = pq.read_table(bundle.samples)
    assert table["sample"].to_pylist() == [0, 1, 2, 3, 4]
    assert json.loads(table.schema.metadata[b"class_names"]) == ["0", "1", "2"]
    first = np.asarray(Image.open(BytesIO(table["image"][0].as_py()["bytes"])))
    assert np.array_equal(first, parts[1].images.images[0, ..., 0])
