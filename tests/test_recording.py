"""Recordings: files, corruption, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from splitexit.errors import ArtifactError
from splitexit.recording import MEASURES, ExitReadings, Recording
from tests import learned, synthetic


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = synthetic.spec()
    path = tmp_path / "recording.parquet"
    synthetic.recording(model).save(path)
    return path


def test_a_recording_survives_its_file(saved: Path) -> None:
    model = synthetic.spec()
    before, after = synthetic.recording(model), Recording.load(saved, model)
    for name in ("calibration", "test"):
        a, b = before.parts[name], after.parts[name]
        np.testing.assert_array_equal(a.label, b.label)
        for measure in MEASURES:
            np.testing.assert_array_equal(getattr(a.exits[1], measure), getattr(b.exits[1], measure))
        assert a.pair(1, "uint8").exits.keys() == b.pair(1, "uint8").exits.keys()
    assert after.codecs() == {0: ("jpeg",), 1: ("uint8",)}


def test_a_lossless_pair_says_what_the_device_says(saved: Path) -> None:
    recording = Recording.load(saved)
    pair = recording.test.pair(1, "uint8")
    pair.lossless = True
    assert recording.test.edge_readings(1, "uint8", 2) == recording.test.readings(2)


def test_learned_confidences_survive_the_file(tmp_path: Path) -> None:
    """At the exits that have them, on the device and behind pairs; the final exit's head is one number narrower."""
    model = synthetic.spec()
    before = learned.recording(model)
    before.save(tmp_path / "recording.parquet")
    after = Recording.load(tmp_path / "recording.parquet", model)
    for a, b in (
        (before.test.exits[0], after.test.exits[0]),
        (before.calibration.pair(0, "jpeg").exits[1], after.calibration.pair(0, "jpeg").exits[1]),
    ):
        assert b.confidence is not None
        assert b.confidence.dtype == np.float32
        np.testing.assert_array_equal(a.confidence, b.confidence)
        np.testing.assert_array_equal(a.logits, b.logits)
    said = after.test.readings(1)[5]
    assert said.confidence == after.test.exits[1].confidence[5]
    assert after.test.exits[2].confidence is None
    assert np.isnan(after.test.readings(2)[5].confidence)
    assert after.test.readings(2)[5].logits.shape == (10,)


def test_where_nothing_learned_a_confidence_there_is_no_column(saved: Path) -> None:
    assert not [name for name in pq.read_table(saved).column_names if "confidence" in name]
    assert all(np.isnan(said.confidence) for said in Recording.load(saved).test.readings(0))


@pytest.mark.parametrize("wrong", [-0.01, 1.01, np.nan])
def test_a_confidence_out_of_range_is_refused(tmp_path: Path, wrong: float) -> None:
    recording = learned.recording(synthetic.spec())
    recording.test.exits[0].confidence[3] = wrong
    recording.save(tmp_path / "recording.parquet")
    with pytest.raises(ArtifactError, match="a confidence is out of range"):
        Recording.load(tmp_path / "recording.parquet")


def test_readings_of_outputs_are_those_of_their_logits() -> None:
    outputs = np.random.default_rng(0).normal(size=(20, 11)).astype(np.float32)
    with_, without = ExitReadings.of_outputs(outputs, 10), ExitReadings.of_logits(outputs[:, :10])
    assert with_.readings(1) == without.readings(1)
    assert with_.logits is None


def test_what_was_not_recorded_is_refused_with_the_command_that_adds_it(saved: Path) -> None:
    test = Recording.load(saved).test
    with pytest.raises(ArtifactError, match="split 2 with codec 'fp16' was not recorded.*splitexit record"):
        test.pair(2, "fp16")
    with pytest.raises(ArtifactError, match="exit 0 on the edge was not recorded"):
        test.edge_readings(1, "uint8", 0)


def test_a_missing_recording_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="splitexit record"):
        Recording.load(tmp_path / "no.parquet")


def test_any_corruption_is_one_typed_line(saved: Path, tmp_path: Path) -> None:
    """Truncated, overwritten and mutated files: a recording or an ArtifactError, nothing else."""
    good, rng = saved.read_bytes(), np.random.default_rng(0)
    bad = tmp_path / "bad.parquet"
    refused = 0
    for trial in range(150):
        content = bytearray(good)
        if trial % 3 == 0:
            content = content[: rng.integers(0, len(good))]
        else:
            for place in rng.integers(0, len(good), 1 + trial % 40):
                content[place] = rng.integers(0, 256)
        bad.write_bytes(content)
        try:
            Recording.load(bad)
        except ArtifactError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 50


def test_a_recording_of_another_model_is_refused(saved: Path) -> None:
    with pytest.raises(ArtifactError, match="recorded 3 exits of 10 classes, the model has 4"):
        Recording.load(saved, synthetic.spec(stages=4))
