"""validate from end to end: two devices, an edge and their links as processes, on the small bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("grpc")

from splitexit.bundle import Bundle
from splitexit.cli import run
from splitexit.report.stored import StoredRun
from tests import synthetic

POLICIES = {"split": {"name": "offload", "split": 1, "codec": "uint8"}, "oracle": "oracle"}


@pytest.fixture
def scenario(live_bundle: Bundle, tmp_path: Path) -> Path:
    return synthetic.write_scenario(
        tmp_path,
        bundle=str(live_bundle.path),
        policies=POLICIES,
        requests=8,
        devices={"count": 2, "hardware": "raspberry-pi-4", "arrivals": {"name": "periodic", "rate_hz": 10.0}},
        edge={"hardware": "raspberry-pi-4"},
    )


@pytest.mark.usefixtures("corun_is_known")
def test_two_devices_are_measured_and_simulated(
    scenario: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = ["--policy", "split", "--repeat", "2", "--seeds-band", "20", "--out", str(out), "--json"]
    assert run(["validate", str(scenario), *options]) == 0
    captured = capfd.readouterr()
    document = json.loads(captured.out)
    assert (document["devices"], document["requests"], document["repetitions"]) == (2, 16, 2)
    assert (document["network"], document["interrupted"]) == ("proxy", False)
    assert len(document["links"]) == 2
    metrics = document["metrics"]
    assert metrics["mean"]["measured_ms"] > 10, "the link's two delays of 5 ms were there"
    assert len(metrics["p95"]["repetitions_ms"]) == 2
    assert metrics["offload_rate"]["measured"] == metrics["offload_rate"]["simulated"] == 1.0
    assert metrics["accuracy"]["error_points"] == 0.0, "the same images, the same network"
    assert "live: split, repetition 2 of 2" in captured.err

    stored = StoredRun.open(out)
    assert (stored.world, stored.policies, stored.seeds) == ("live", ("split",), (0,))
    assert run(["validate", "--against", str(out), "--seeds-band", "20", "--out", str(tmp_path / "b"), "--json"]) == 0
    again = json.loads(capfd.readouterr().out)["metrics"]["mean"]
    assert again["repetitions_ms"] == metrics["mean"]["repetitions_ms"]
    assert again["simulated_ms"] == pytest.approx(metrics["mean"]["simulated_ms"], rel=1e-4), "as calibrated"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--policy", "oracle"], "policy 'oracle' decides with the truth, which no device knows"),
        (["--set", "edge.servers=2"], "edge.servers: only the simulator can do that yet"),
    ],
)
def test_what_cannot_run_live_is_refused_at_once(
    scenario: Path, arguments: list[str], what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["validate", str(scenario), *arguments]) == 2
    captured = capfd.readouterr()
    assert captured.err.startswith("error: ")
    assert what in captured.err
    assert len(captured.err.splitlines()) == 1
