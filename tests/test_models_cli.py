"""The commands that make a bundle, as a user types them."""

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from splitexit.calibration import Calibration
from splitexit.cli import calibrate
from splitexit.cli import models as cli
from splitexit.errors import UsageError
from splitexit.models import placement
from splitexit.recording import Recording
from tests.models_tiny import fresh_bundle, stripes, trained


def run(*arguments):
    app = typer.Typer()
    cli.register(app)
    calibrate.register(app)
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_train_prints_the_bundle_last(tmp_path):
    options = {"depth": 8, "exits": 40, "epochs": 2, "batch": 16, "augment": "none", "limit": 80}
    result = run("train", "--data", stripes(), "--out", tmp_path / "b", *(f"--{k}={v}" for k, v in options.items()))
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == str(tmp_path / "b")
    assert "epoch   2  loss" in result.stderr


def test_stop_after_says_how_to_go_on(tmp_path):
    arguments = ("train", "--data", stripes(), "--out", tmp_path, "--depth=8", "--exits=none", "--batch=16")
    result = run(*arguments, "--epochs=2", "--stop-after=1")
    assert "the same command goes on" in result.stderr
    assert (tmp_path / "checkpoint.pt").exists()


def test_interrupted_it_says_how_to_go_on(tmp_path, monkeypatch):
    from splitexit.models import train

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train", interrupted)
    result = run("train", "--data", stripes(), "--out", tmp_path)
    assert result.exit_code == 130
    assert "the same command goes on" in result.stderr


def test_codec_recording_and_calibration_in_turn(tmp_path):
    bundle = fresh_bundle(tmp_path)
    options = ("--codec=bottleneck:channels=2", "--epochs=1", "--levels=32")
    trained_ = run("train-codec", bundle.path, *options)
    assert trained_.exit_code == 0, trained_.output
    assert trained_.stderr.count("without the codec") == 2
    recorded = run("record", bundle.path, "--limit=5", "--workers=1", "--samples=3")
    assert recorded.exit_code == 0, recorded.output
    assert recorded.stdout.splitlines()[-1] == str(bundle.recording)
    recording = Recording.load(bundle.recording, bundle.spec)
    assert (2, "bottleneck:channels=2") in recording.test.pairs
    calibrated = run("calibrate", bundle.path, "--repetitions=10", "--no-corun")
    assert calibrated.exit_code == 0, calibrated.output
    assert calibrated.stdout.splitlines()[-1] == str(bundle.calibration)
    calibration = Calibration.load(bundle.calibration, bundle.spec)
    assert set(calibration.encode) == set(recording.test.pairs)
    assert len(calibration.rpc.seconds.quantiles) > 2
    assert run("calibrate", bundle.path, "--repetitions=10", "--no-rpc", "--no-corun").exit_code == 0
    assert Calibration.load(bundle.calibration).rpc == calibration.rpc


@pytest.mark.parametrize(("text", "splits"), [("all", [1, 2, 3]), ("1,3", [1, 3]), ("2-3", [2, 3])])
def test_splits(text, splits):
    assert cli.parse_splits(text, 4) == splits


@pytest.mark.parametrize("text", ["0", "4", "x", "3-2", ""])
def test_wrong_splits(text):
    with pytest.raises(UsageError, match=r"1\.\.3"):
        cli.parse_splits(text, 4)


@pytest.mark.parametrize(("text", "shares"), [("none", ()), ("15,30.5", (0.15, 0.305))])
def test_shares_are_percentages(text, shares):
    assert placement.parse_exits(text) == shares


def test_shares_that_are_no_numbers():
    with pytest.raises(UsageError, match="percentages"):
        placement.parse_exits("a,b")


def alone(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_training_needs_nothing_that_only_simulating_and_serving_need():
    code = (
        "import sys\n"
        "for name in ('pydantic', 'simpy', 'zstandard', 'grpc'): sys.modules[name] = None\n"
        "import splitexit.cli.models, splitexit.cli.calibrate, splitexit.models.train\n"
        "import splitexit.models.backbones.resnet, splitexit.models.exits.pooled, splitexit.models.objectives.joint"
    )
    result = alone(code)
    assert result.returncode == 0, result.stderr


def test_a_users_mistake_is_one_line():
    code = "from splitexit.cli.models import app_main; app_main()"
    result = alone(code, "train-codec", trained().path, "--codec", "bottleneck:channel=2")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "did you mean 'channels'" in result.stderr
