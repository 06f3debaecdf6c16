"""Distorted copies of samples: what is done to the pixels, how they are recorded, and what a live device sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from splitexit.calibration import Calibration
from splitexit.cli import run
from splitexit.confidence import confidences
from splitexit.errors import ArtifactError, UsageError
from splitexit.experiment import Experiment
from splitexit.live.images import check_labels, open_images
from splitexit.live.model import LiveModel
from splitexit.live.pair import run_pair
from splitexit.models import record
from splitexit.models.distort import Distortions, distort, parse
from splitexit.models.runtime import Runtime
from splitexit.recording import Recording
from splitexit.results import column, to_table
from splitexit.scenario import load
from splitexit.sim import simulate
from tests.live_bundle import make_bundle
from tests.models_tiny import fresh_bundle, stripes
from tests.synthetic import calibration, write_scenario

CONTEXTS = ["noise=0.5", "blur=0.75"]
PAIRS = [(1, "raw"), (1, "uint8"), (2, "uint8")]
STD = (0.25, 0.2, 0.3)
GREY = np.full((40, 40, 3), 128, np.uint8)


def test_noise_has_the_stated_spread_in_every_channel() -> None:
    noisy = distort(GREY, "noise=0.5", 3, STD).astype(float) - 128
    assert noisy.std(axis=(0, 1)) == pytest.approx([255 * 0.5 * s for s in STD], rel=0.06)
    assert abs(noisy.mean()) < 2


def test_noise_is_drawn_from_the_images_number() -> None:
    first, again, other = (distort(GREY, "noise=0.5", number, STD) for number in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).mean() > 0.9
    assert (distort(GREY, "noise=0.6", 3, STD) != first).mean() > 0.9


def test_blur_spreads_an_edge_and_keeps_the_light() -> None:
    edge = np.zeros((24, 24, 3), np.uint8)
    edge[:, 12:] = 200
    soft = distort(edge, "blur=1", 0, STD)
    assert soft.mean() == pytest.approx(edge.mean(), abs=1)
    assert (np.diff(soft[5, :, 0].astype(int)) > 0).sum() >= 4
    assert (distort(GREY, "blur=2", 0, STD) == GREY).all()


def test_what_comes_out_is_8_bits() -> None:
    loud = distort(GREY, "noise=3", 0, STD)
    assert loud.dtype == np.uint8
    assert {0, 255} <= set(loud.ravel())


@pytest.mark.parametrize("text", ["noise", "noise=", "noise=0", "noise=-1", "noise=nan", "noise=inf", "fog=1", ""])
def test_other_distortions_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected noise=SIGMA or blur=SIGMA"):
        parse(text)
    assert parse("noise=1.50") == "noise=1.5"


def test_metadata_that_cannot_be_read_is_refused() -> None:
    under = Distortions(("blur=1",), (0.25,), 100)
    assert Distortions.of_made({"distort": under.to_json()}) == under
    assert Distortions.of_made({}) is None
    wrong: list[object] = [
        [],
        {"contexts": ["fog=1"], "std": [1], "stride": 1},
        {"contexts": [], "std": ["x"], "stride": 1},
    ]
    for broken in wrong:
        with pytest.raises(ArtifactError, match="distortions cannot be read"):
            Distortions.of_made({"distort": broken})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """Recorded with distortions, by the command."""
    made = fresh_bundle(tmp_path_factory.mktemp("distort"))
    options = [f"--distort={context}" for context in (*CONTEXTS, "noise=0.50")]
    pairs = [f"--pair={codec}@{split}" for split, codec in PAIRS]
    images = ["--data", stripes("test"), "--train", stripes(), "--limit", "12", "--samples", "6", "--workers", "1"]
    assert run(["record", str(made.path), *images, *pairs, *options]) == 0
    return made


def test_every_part_holds_every_sample_under_every_distortion(bundle) -> None:  # type: ignore[no-untyped-def]
    recording = Recording.load(bundle.recording, bundle.spec)
    for part in recording.parts.values():
        assert part.context is not None
        assert part.context.tolist() == [""] * 12 + ["noise=0.5"] * 12 + ["blur=0.75"] * 12
        assert len(set(part.sample.tolist())) == len(part) == 36
        assert (part.label[:12] == part.label[12:24]).all()
        assert (part.label[:12] == part.label[24:]).all()
    assert recording.test.context_of(30) == "blur=0.75"
    noisy, clean = (recording.test.exits[-1].max_prob[at] for at in (slice(12, 24), slice(12)))
    assert (noisy != clean).any()


def test_a_live_device_gets_the_very_images(bundle) -> None:  # type: ignore[no-untyped-def]
    """What the network says of them is what was recorded, to the last bit."""
    images, recording = open_images(bundle), Recording.load(bundle.recording, bundle.spec)
    assert len(images) == 6 * 3
    check_labels(images, recording, "samples")
    runtime, part = Runtime(bundle), recording.test
    place = {sample: position for position, sample in enumerate(part.sample.tolist())}
    for sample, pixels in images.items():
        said = runtime.exits_from(pixels, 0, (0, 1, 2))
        for exit_, logits in said.items():
            assert confidences(logits[None])[1][0] == part.exits[exit_].max_prob[place[sample]]


def test_simulated_and_live_devices_know_the_same_contexts(bundle, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """I-SplitEE decides alike in both."""
    takes: Calibration = calibration(bundle.spec, pairs=PAIRS)
    takes.save(bundle.calibration)
    changes = {"bundle": str(bundle.path), "policies": {"i": {"name": "i_splitee", "c": 0.2}}, "devices__policy": "i"}
    arrivals = {"devices__arrivals": {"name": "periodic", "rate_hz": 2.0}}
    scenario = load(write_scenario(tmp_path, **changes, **arrivals))
    images = open_images(bundle)
    experiment = Experiment.open(scenario, subset=tuple(images))
    simulated = to_table(simulate(experiment, "i", 0, 60))
    model = LiveModel.open(bundle, PAIRS)
    live = to_table(run_pair(experiment, "i", 0, model, images, 60))
    for name in ("sample", "split", "exit", "prediction", "answered_by"):
        assert column(simulated, name).tolist() == column(live, name).tolist(), name
    assert len(set(column(simulated, "sample").tolist())) == 18


def test_other_distortions_need_a_fresh_recording(bundle) -> None:  # type: ignore[no-untyped-def]
    parts = record.read_parts(bundle, stripes(), stripes("test"), limit=12)
    with pytest.raises(UsageError, match="made with other data"):
        record.record(bundle, record.distorted(bundle, parts, ["blur=1"]), PAIRS)
    same = record.record(bundle, record.distorted(bundle, parts, CONTEXTS), PAIRS)
    assert same.test.context is not None
    assert record.distorted(bundle, parts, []) == parts


def test_a_recording_without_distortions_has_no_contexts(tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "bundle")
    assert Recording.load(made.recording).test.context_of(0) is None
    assert len(open_images(made)) == 60
