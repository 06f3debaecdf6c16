"""`splitexit serve` and `splitexit device` as people run them."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from splitexit.bundle import Bundle
from splitexit.results import SCHEMA, rows_sha256
from tests.live_bundle import POLICIES, make_bundle
from tests.live_process import ENVIRONMENT, ROOT, Process, command, here, run, started, wait_for
from tests.synthetic import write_scenario


@pytest.fixture(scope="module")
def edge(live_bundle: Bundle) -> Iterator[Process]:
    with started("serve", live_bundle.path, "--listen", "127.0.0.1:0") as process:
        yield process


def scenario(bundle: Bundle, folder: Path, **changes: object) -> Path:
    """30 requests, 40 a second."""
    defaults: dict[str, object] = {
        "bundle": str(bundle.path),
        "policies": POLICIES,
        "requests": 30,
        "devices__arrivals__rate_hz": 40.0,
    }
    return write_scenario(folder, **(defaults | changes))


def test_a_device_writes_a_run_folder(live_bundle: Bundle, tmp_path: Path, edge: Process) -> None:
    """The same columns as a simulation; the folder is the last line."""
    file, out = scenario(live_bundle, tmp_path), tmp_path / "run"
    done = run("device", file, "--edge", edge.address, "--policy", "split", "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(out)
    table = pq.read_table(out / "requests.parquet")
    assert table.column_names[:2] == ["policy", "seed"]
    assert table.drop_columns(["policy", "seed"]).schema.equals(SCHEMA)
    assert len(table) == 30
    assert set(table["answered_by"].to_pylist()) == {"edge"}
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["rows_sha256"] == rows_sha256(table)
    assert (out / "config.yaml").exists()


def test_json_is_one_document(live_bundle: Bundle, tmp_path: Path, edge: Process) -> None:
    file = scenario(live_bundle, tmp_path)
    options = ("--policy", "threshold", "--requests", 12, "--seed", 4, "--out", tmp_path / "run", "--json")
    document = json.loads(run("device", file, "--edge", edge.address, *options).stdout)
    assert (document["policy"], document["seed"], document["requests"]) == ("threshold", 4, 12)
    assert {"mean", "p50", "p95", "p99"} <= set(document["response_ms"])
    assert document["late_replies"] == 0


def test_without_an_edge(live_bundle: Bundle, tmp_path: Path) -> None:
    """Answers locally, says so in one line, ends well."""
    file = scenario(live_bundle, tmp_path)
    done = run("device", file, "--edge", "127.0.0.1:9", "--policy", "split", "--out", tmp_path / "run", "--json")
    assert done.returncode == 0
    assert done.stderr.count("answering locally") == 1
    assert json.loads(done.stdout)["fallback_rate"] == 1.0


def test_interrupted(live_bundle: Bundle, tmp_path: Path, edge: Process) -> None:
    """Ctrl-C keeps what is done, and says so."""
    file, out = scenario(live_bundle, tmp_path, requests=100_000), tmp_path / "run"
    arguments = command("device", file, "--edge", edge.address, "--policy", "split", "--out", out, "--json")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(arguments, cwd=ROOT, env=ENVIRONMENT, **pipes) as device:  # type: ignore[call-overload]
        try:
            wait_for(lambda: "requests" in (device.stderr.readline() or "gone"))
            # The first line comes before the model is loaded; a run of some seconds follows.
            with pytest.raises(subprocess.TimeoutExpired):
                device.wait(timeout=8)
            device.send_signal(signal.SIGINT)
            out_text, err = device.communicate(timeout=30)
        finally:
            device.kill()
    assert device.returncode == 130
    assert "interrupted" in err
    kept = json.loads(out_text)["requests"]
    assert kept > 0
    assert len(pq.read_table(out / "requests.parquet")) == kept


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--edge", "nowhere"), "--edge 'nowhere': expected HOST:PORT"),
        (("--edge", "127.0.0.1:9", "--policy", "treshold"), "did you mean 'threshold'"),
        (("--edge", "127.0.0.1:9", "--policy", "oracle"), "only simulate it"),
        (("--edge", "127.0.0.1:9", "--set", "uplink.mbps=-5"), "uplink.mbps"),
        (("--edge", "127.0.0.1:9", "--data", "none.parquet"), "none.parquet"),
        (("--edge", "127.0.0.1:9", "--device", "1"), "devices 0..0"),
        ((), "--edge"),
    ],
)
def test_wrong_input_ends_in_one_line(
    live_bundle: Bundle, tmp_path: Path, arguments: tuple[str, ...], what: str
) -> None:
    done = here("device", scenario(live_bundle, tmp_path), *arguments, "--out", tmp_path / "run")
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert what in errors[0]
    assert "Traceback" not in done.stderr


def test_a_digest_that_does_not_match(live_bundle: Bundle, tmp_path: Path, edge: Process) -> None:
    """Exit code 2, one line, no row."""
    other = make_bundle(tmp_path / "other", seed=1)
    done = here("device", scenario(other, tmp_path), "--edge", edge.address, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "model.safetensors" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "requests.parquet").exists()


def test_images_that_were_not_recorded(live_bundle: Bundle, tmp_path: Path) -> None:
    """Judged by their labels: the samples are every second image of the test set, not the first ones."""
    file = scenario(live_bundle, tmp_path)
    done = here("device", file, "--edge", "127.0.0.1:9", "--data", live_bundle.samples, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "has label" in done.stderr
