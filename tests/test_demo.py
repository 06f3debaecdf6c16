"""The demonstration: two processes, real images, and the same simulated."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("grpc")

from splitexit.bundle import Bundle
from splitexit.calibration import Calibration
from splitexit.cli import run
from splitexit.demo import live_policies
from splitexit.errors import ProcessError
from splitexit.scenario import load
from tests import synthetic

POLICIES = {
    "local": "local",
    "image": {"name": "offload", "split": 0, "codec": "image"},
    "oracle": "oracle",
}


@pytest.fixture
def scenario(live_bundle: Bundle, tmp_path: Path) -> Path:
    return synthetic.write_scenario(
        tmp_path,
        bundle=str(live_bundle.path),
        policies=POLICIES,
        devices__policy="local",
        devices__deadline_ms=20_000.0,  # no pause of the machine is a miss
        devices__arrivals={"name": "periodic", "rate_hz": 20.0},
    )


def test_no_device_can_follow_the_oracle(scenario: Path) -> None:
    assert live_policies(load(scenario)) == ["local", "image"]


@pytest.mark.usefixtures("corun_is_known")
def test_it_measures_and_simulates_every_policy(
    scenario: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert run(["demo", str(scenario), "--requests", "12", "--json", "--out", str(out)]) == 0
    document = json.loads(capfd.readouterr().out)
    assert len({os.getpid(), document["device_pid"], document["edge_pid"]}) == 3
    for policy in ("local", "image"):
        line = document["policies"][policy]
        real, model = line["measured_ms"], line["simulated_ms"]
        assert line["requests"] == 12
        assert line["error_percent"] == pytest.approx(100 * (model["mean"] - real["mean"]) / real["mean"])
        assert line["accuracy"] == line["simulated_accuracy"], "the same images, the same network"
    assert document["policies"]["image"]["offload_rate"] == 1.0
    assert document["policies"]["image"]["measured_ms"]["p50"] > 10, "the link's two delays of 5 ms were there"
    assert {"requests.parquet", "manifest.json", "summary.json", "config.yaml", "calibration.json"} <= {
        file.name for file in out.iterdir()
    }


def test_several_devices_are_shown_side_by_side(
    live_bundle: Bundle,
    scenario: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is printed names every process; figures are over all devices."""
    calibration = Calibration.load(live_bundle.calibration)
    monkeypatch.setattr("splitexit.demo.calibrate_for", lambda *arguments, **options: calibration)
    options = ["--set", "devices.count=2", "--set", "policies={image: {name: offload, split: 0, codec: image}}"]
    assert run(["demo", str(scenario), *options, "--requests", "10", "--out", str(tmp_path / "x")]) == 0
    head, *lines, folder = capfd.readouterr().out.strip().splitlines()
    assert " ".join([head, *lines]).count("(process") == 3
    assert "20 images for each policy" in " ".join([head, *lines])
    assert folder == str(tmp_path / "x")


def test_an_interruption_keeps_what_was_measured(live_bundle: Bundle, scenario: Path) -> None:
    from types import SimpleNamespace

    from splitexit.demo import _measure
    from splitexit.live.deployment import LiveRun
    from splitexit.sim import simulate
    from tests.live_bundle import open_experiment

    experiment = open_experiment(live_bundle, scenario.parent)

    def run_until(stop: str, failed: dict[str, str] | None = None) -> list[str]:
        def run_live(policy: str, seed: int, requests: int) -> LiveRun:
            rows = simulate(experiment, policy, seed, requests)
            return LiveRun(rows, 0, {}, policy == stop, failed or {})

        deployment = SimpleNamespace(experiment=experiment, run=run_live)
        return list(_measure(deployment, ["local", "oracle"], 0, 5, lambda line: None))  # type: ignore[arg-type]

    assert run_until("oracle") == ["local"]
    with pytest.raises(KeyboardInterrupt):
        run_until("local")
    with pytest.raises(ProcessError, match="device 0 was killed"):
        run_until("none", {"device 0": "device 0 was killed"})
