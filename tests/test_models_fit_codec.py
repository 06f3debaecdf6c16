"""Codecs that are fitted to features: their tensors in a bundle, and the command."""

from functools import cache

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from splitexit.bundle import Bundle
from splitexit.cli import models as cli
from splitexit.codecs import canonical, create, parse
from splitexit.codecs.range import Range, _levels
from splitexit.errors import UsageError
from splitexit.models import codecs, data, multi_exit
from splitexit.models.fit_codec import Features, fit_codec, is_fitted
from splitexit.recording import Recording
from tests.models_tiny import fresh_bundle, stripes, trained
from tests.test_floors import ROOT

SHIPPED = Bundle.open(ROOT / "scenarios" / "data" / "resnet32-cifar10")


@pytest.fixture
def bundle(tmp_path):
    return fresh_bundle(tmp_path)


def run(*arguments):
    app = typer.Typer()
    cli.register(app)
    return CliRunner().invoke(app, ["train-codec", *map(str, arguments)])


def test_whole_numbers_stay_what_they_are(bundle):
    group = {"table": np.array([[1, 65535]], ">u2"), "low": np.array([0.1], np.float64)}
    codecs.write(bundle, {(1, "range:bits=1"): group}, {})
    again = codecs.read(bundle)[1, "range:bits=1"]
    assert again["table"].dtype == np.uint16
    np.testing.assert_array_equal(again["table"], [[1, 65535]])
    assert again["low"].dtype == np.float32
    assert codecs.digest(again) == codecs.digest(group)
    assert codecs.digest(again) != codecs.digest(again | {"table": again["table"].astype(np.int32)})


def test_digests_of_float_tensors_have_not_changed():
    """Recordings name the codecs they were made with by their digests."""
    recorded = Recording.load(SHIPPED.recording).made["codecs"]
    now = {f"{codec}@{split}": codecs.digest(group) for (split, codec), group in codecs.read(SHIPPED).items()}
    assert recorded
    assert recorded.items() <= now.items()


def test_fitting_writes_a_codec_that_works(bundle):
    reports = list(fit_codec(bundle, "range:per=channel,bits=4", [1, 2], source=stripes()))
    assert [report.split for report in reports] == [1, 2]
    assert all(report.accuracy >= report.plain_accuracy - 0.1 for report in reports)
    pairs = [(1, "range:bits=4,per=channel"), (2, "range:bits=4,per=channel")]
    assert sorted(codecs.read(bundle)) == pairs
    assert codecs.made(bundle)["range:bits=4,per=channel/s2"]["images"] == 24
    opened = codecs.open_codecs(bundle, pairs)
    assert reports[0].payload_bytes < opened[pairs[0]].size / 2


def test_channels_is_told_the_true_gradients(bundle):
    """Against finite differences of the loss, at some places."""
    net = multi_exit.load(bundle).double()
    images = data.read(stripes("test")).take(np.arange(3))

    def loss(features):
        logits = net.read_exit(net.run_stages(features, 1, net.spec.num_stages), net.spec.final_exit)
        return torch.nn.functional.cross_entropy(logits, torch.from_numpy(images.labels).long(), reduction="none")

    at = Features(multi_exit.load(bundle), images, 1)
    gradients, features = at.gradients(), torch.from_numpy(at.features).double()
    assert gradients.shape == features.shape
    for place in [(0, 1, 3, 4), (1, 0, 6, 6), (2, 3, 11, 0)]:
        moved = features.clone()
        moved[place] += 1e-4
        with torch.no_grad():
            slope = float((loss(moved) - loss(features))[place[0]]) / 1e-4
        assert gradients[place] == pytest.approx(slope, rel=1e-2, abs=1e-5)


def test_only_fitted_codecs_are_fitted(bundle):
    assert is_fitted("channels:keep=2")
    assert not is_fitted("bottleneck:channels=2")
    with pytest.raises(UsageError, match="not fitted"):
        list(fit_codec(bundle, "uint8", [1], source=stripes()))


def test_the_command_fits(bundle):
    result = run(bundle.path, "--codec=channels:keep=2,bits=6", "--split=2", "--images=10")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("without the codec") == 1
    assert codecs.made(bundle)[canonical("channels:keep=2,bits=6") + "/s2"]["images"] == 10


@pytest.mark.parametrize("option", ["--epochs=3", "--lr=0.1", "--seed=0", "--levels=16"])
def test_options_of_training_are_refused(option):
    result = run(trained().path, "--codec=range", option)
    assert isinstance(result.exception, UsageError)
    assert option.split("=")[0] in str(result.exception)


@pytest.mark.parametrize("codec_id", ["range", "range:bits=4", "range:bits=3,per=channel"])
def test_range_is_close_to_the_entropy_of_features_it_has_not_seen(codec_id):
    """Of the shipped network behind stage 6: fitted on 150 of its test images, sent 150 others, within 5 %."""
    features = shipped_features()
    params = parse(codec_id)[1]
    codec = create(codec_id, shape=features.shape[1:], tensors=Range.fit(features[:150], lambda: features, **params))
    new = features[150:]
    sent = sum(len(codec.encode(one)) for one in new)
    rows = new.reshape(len(new), codec._rows, -1).swapaxes(0, 1).reshape(codec._rows, -1)
    shares = [np.bincount(row) / row.size for row in _levels(rows, codec._low, codec._step, codec._top)]
    entropy = sum(-(p[p > 0] * np.log2(p[p > 0])).sum() for p in shares) * rows.shape[1] / 8
    assert entropy < sent < 1.05 * entropy


@cache
def shipped_features():
    """300×64×8×8, what the shipped network makes of its samples."""
    images = data.read(str(SHIPPED.samples), channels=3)
    return Features(multi_exit.load(SHIPPED), images, 6).features
