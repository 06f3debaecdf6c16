"""Codec and network fine-tuned together: the bundle that comes of it, and what of the old one it keeps."""

import re
from functools import cache
from itertools import islice
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from splitexit.bundle import Bundle, file_sha256
from splitexit.cli import models as cli
from splitexit.errors import ArtifactError, UsageError
from splitexit.models import codecs, data, multi_exit
from splitexit.models import record as recording
from splitexit.models.learned import LEARNED
from splitexit.models.learned.entropic import EntropicNet
from splitexit.models.multi_exit import NetConfig, build, save
from splitexit.models.train import train
from splitexit.models.train_codec import CodecRecipe, accuracy_through, first
from splitexit.models.train_joint import JointRecipe, train_joint
from splitexit.recording import Recording
from tests.models_tiny import TINY, stripes, trained

SPLIT, SHAPE = 2, (8, 6, 6)
RECIPE, SHORT = CodecRecipe(epochs=1, batch=16, lr=0.01), JointRecipe(epochs=2, lr=3e-3)
IDS = [
    "bottleneck:channels=2",
    "aecnn:bits=2,channels=2",
    "bottlenetpp:bits=2,channels=2,stride=2",
    "progressive:bits=4,channels=2,slices=2",
    "entropic:channels=2,stride=2",
]


def fresh(codec_id, recipe=RECIPE, joint=SHORT):
    """What the joint training reports, and the new bundle."""
    out = Path(mkdtemp(prefix="joint-", dir=trained().path.parent))
    report = train_joint(trained(), codec_id, SPLIT, recipe, joint, source=stripes(), out=out, command="tune it")
    return report, Bundle.open(out)


@cache
def tuned(codec_id):
    """The same, made once. Not to be written into."""
    return fresh(codec_id)


def parameters(bundle):
    return {name: value.clone() for name, value in multi_exit.load(bundle).state_dict().items()}


def test_all_that_are_trained_join_but_one():
    assert {codec_id.split(":")[0] for codec_id in IDS} == {
        name for name in LEARNED.names() if LEARNED.load(name).joins
    }
    assert set(LEARNED.names()) - {codec_id.split(":")[0] for codec_id in IDS} == {"crbq"}


@pytest.mark.parametrize("codec_id", IDS)
def test_a_new_bundle_comes_of_it_and_the_old_one_stays(codec_id):
    weights, described = file_sha256(trained().weights), trained().spec
    report, new = tuned(codec_id)
    assert (file_sha256(trained().weights), Bundle.open(trained().path).spec) == (weights, described)
    assert not trained().codec_weights.exists()
    assert new.spec.weights_sha256 != weights
    assert new.spec.stages == described.stages
    assert new.spec.exits == described.exits
    assert (SPLIT, codec_id) in codecs.open_codecs(new, codecs.read(new))
    assert report.codecs[0].codec_id == codec_id
    assert all(np.isfinite(values).all() for group in codecs.read(new).values() for values in group.values())


@pytest.mark.parametrize("codec_id", IDS)
def test_what_is_reported_is_what_the_new_bundle_does(codec_id):
    report, new = tuned(codec_id)
    _, validation, _ = data.parted(new.spec, stripes())
    codec = codecs.open_codecs(new, [(SPLIT, codec_id)])[SPLIT, codec_id]
    net = multi_exit.load(new)
    assert accuracy_through(net, validation, SPLIT, codec) == report.codecs[0].accuracy
    assert accuracy_through(net, validation, SPLIT, None) == report.exits[-1]
    assert new.spec.training["validation_accuracy"] == [round(value, 5) for value in report.exits]


def test_learning_together_helps():
    """Where so little is sent that the frozen network cannot do with it."""
    report, _ = fresh("aecnn:bits=2,channels=1", RECIPE, JointRecipe(epochs=8, lr=5e-3))
    assert report.frozen < 0.9
    assert report.codecs[0].accuracy > report.frozen + 0.1
    assert min(report.exits) > 0.6


def test_the_identity_without_a_step_is_the_network_bit_for_bit():
    report, new = fresh("aecnn:bits=32,channels=8", CodecRecipe(epochs=0), JointRecipe(epochs=0))
    assert new.spec.weights_sha256 == trained().spec.weights_sha256
    assert report.codecs[0].accuracy == report.frozen == report.before[-1] == report.exits[-1]


def test_the_entropic_prior_stays_while_the_tail_learns():
    """The second of its two stages changes neither the device's part nor what is sent."""
    made, whole = [], EntropicNet.joint_stages
    for stages in (1, 2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(EntropicNet, "joint_stages", lambda self, n=stages: islice(whole(self), n))
            _, new = fresh("entropic:channels=2,stride=2")
        made += [parameters(new), codecs.read(new)[SPLIT, "entropic:channels=2,stride=2"]]
    net_1, codec_1, net_2, codec_2 = made
    same = {name for name in net_1 if torch.equal(net_1[name], net_2[name])}
    ahead = {name for name in net_1 if name.startswith(("stages.0", "stages.1", "heads.0", "heads.1"))}
    assert ahead <= same
    assert not any(name.endswith("weight") and name.startswith(("stages.2", "heads.2")) for name in same)
    for name in ("encoder.weight", "encoder.bias", "table"):
        np.testing.assert_array_equal(codec_1[name], codec_2[name])
    assert not np.array_equal(codec_1["decoder.weight"], codec_2["decoder.weight"])


def test_a_rate_that_weighs_more_is_fewer_bytes():
    sizes = [
        fresh("entropic:channels=4", CodecRecipe({"rate": rate}, epochs=1, batch=16, lr=0.01))[0]
        .codecs[0]
        .payload_bytes
        for rate in (0.0, 0.5)
    ]
    assert sizes[1] < 0.9 * sizes[0]


def test_images_that_skip_the_codec_keep_the_device_s_own_answer():
    """After a training in which the exits behind the split never saw, or always saw, features as they are."""
    far = CodecRecipe(epochs=0, batch=16)
    always, never = (
        fresh("aecnn:bits=1,channels=1", far, JointRecipe(epochs=8, lr=5e-3, distil=0.0, local=local))[0]
        for local in (1.0, 0.0)
    )
    assert never.codecs[0].accuracy > always.codecs[0].accuracy
    assert always.exits[-1] >= never.exits[-1]


def test_what_it_was_made_from_is_said(tmp_path):
    report, new = tuned("aecnn:bits=2,channels=2")
    made = new.spec.training["joint"]
    assert made["from"] == {"name": trained().spec.name, "weights_sha256": trained().spec.weights_sha256}
    assert made["recipe"]["epochs"] == 2
    assert made["codec_recipe"]["lr"] == 0.01
    assert made["validation_accuracy"]["joint"] == round(report.codecs[0].accuracy, 5)
    assert codecs.made(new)[f"aecnn:bits=2,channels=2/s{SPLIT}"]["joint"]["split"] == SPLIT
    text = (new.path / "README.md").read_text()
    assert "tune it" in text
    assert "aecnn:bits=2,channels=2" in text
    assert trained().spec.weights_sha256[:12] in text
    assert "not measured" in text
    assert "test_accuracy" not in new.spec.training
    with pytest.raises(ArtifactError, match="another recipe"):
        train(TINY, source=stripes(), test=None, out=new.path)


def test_the_new_bundle_is_recorded_as_any_other():
    _, new = fresh("aecnn:bits=2,channels=2")
    parts = recording.read_parts(new, stripes(), stripes("test"), 40)
    pair = (SPLIT, "aecnn:bits=2,channels=2")
    recording.record(new, parts, [pair], workers=1)
    recorded = Recording.load(new.recording, new.spec)
    assert (recorded.test.pair(*pair).payload_bytes > 0).all()


def test_a_folder_that_holds_a_bundle_is_not_written_over():
    with pytest.raises(ArtifactError, match="choose another --out"):
        train_joint(trained(), IDS[0], SPLIT, RECIPE, JointRecipe(), source=stripes(), out=trained().path)


def test_heads_that_learn_when_to_stop_are_refused(tmp_path):
    config = NetConfig({"name": "resnet", "depth": 8, "width": 4}, (1, 12, 12), 3, (0.4,), head={"name": "eenet"})
    bundle = save(build(config, 0), tmp_path / "eenet", {})
    with pytest.raises(UsageError, match="learn when to stop"):
        train_joint(bundle, IDS[0], 1, RECIPE, JointRecipe(), source=stripes(), out=tmp_path / "out")


def run(*arguments):
    app = typer.Typer()
    cli.register(app)
    return CliRunner().invoke(app, ["train-codec", str(trained().path), *map(str, arguments)])


def test_the_command_makes_the_bundle(tmp_path):
    out = tmp_path / "new"
    options = ("epochs=1", "lr=0.01", "images=200", "distil=0.25", "local=0.5")
    result = run(
        "--codec=bottleneck:channels=2",
        "--split=2",
        "--epochs=1",
        "--images=200",
        "--joint",
        f"--out={out}",
        *(f"--joint-option={option}" for option in options),
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(out)
    assert "on the frozen network" in result.stderr
    assert "without a codec, validation % by exit" in result.stderr
    made = Bundle.open(out).spec.training["joint"]["recipe"]
    assert made == {"epochs": 1, "lr": 0.01, "images": 200, "distil": 0.25, "local": 0.5}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--codec=crbq:channels=2", "--split=2", "--joint"], "crbq learns from features alone.*aecnn"),
        (["--codec=range", "--split=2", "--joint"], "--joint: range is fitted, not trained"),
        (["--codec=raw", "--split=2", "--joint"], "neither trained nor fitted"),
        (["--codec=aecnn:channels=2", "--split=1-2", "--joint"], "give --split 1"),
        (["--codec=aecnn:channels=2", "--split=2", "--out=there"], "are for --joint"),
        (["--codec=aecnn:channels=2", "--split=2", "--joint-option=lr=1"], "are for --joint"),
        (["--codec=aecnn:channels=2", "--split=2", "--joint", "--joint-option=epoch=1"], "no 'epoch'.*'epochs'"),
        (["--codec=aecnn:channels=2", "--split=2", "--joint", "--joint-option=local=2"], "a number from 0 to 1"),
    ],
)
def test_what_is_asked_for_wrongly_is_refused_in_one_line(arguments, words):
    result = run(*arguments)
    assert isinstance(result.exception, UsageError), result.output
    assert "\n" not in str(result.exception)
    assert re.search(words, str(result.exception)), str(result.exception)


def test_a_loss_that_is_no_number_ends_in_one_line(tmp_path):
    with pytest.raises(UsageError, match="try a lower lr"):
        joint = JointRecipe(epochs=2, lr=1e30)
        train_joint(trained(), IDS[1], SPLIT, RECIPE, joint, source=stripes(), out=tmp_path / "new")


def test_the_first_images():
    images = data.read(stripes("test"))
    assert len(first(images, 7)) == 7
    assert len(first(images, 10_000)) == len(images)


def test_less_than_a_batch_is_refused(tmp_path):
    with pytest.raises(UsageError, match="15 images are less than one batch of 16"):
        train_joint(trained(), IDS[1], SPLIT, RECIPE, JointRecipe(images=15), source=stripes(), out=tmp_path / "new")
