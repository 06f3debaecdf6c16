"""`splitexit live` as people run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import typer

from splitexit.bundle import Bundle
from splitexit.calibration import Calibration
from splitexit.cli import live_output
from splitexit.cli.live import _end
from splitexit.errors import INTERRUPTED
from splitexit.live.deployment import LiveRun
from splitexit.results import SCHEMA, rows_sha256
from splitexit.sim import simulate
from tests.live_bundle import POLICIES, open_experiment
from tests.live_process import ENVIRONMENT, ROOT, command, here, run
from tests.synthetic import write_scenario
from tests.test_live_processes import alive


def scenario(bundle: Bundle, folder: Path, **changes: object) -> Path:
    """A device with 20 requests, 25 a second."""
    defaults: dict[str, object] = {
        "bundle": str(bundle.path),
        "policies": POLICIES,
        "requests": 20,
        "devices__arrivals__rate_hz": 25.0,
    }
    return write_scenario(folder, **(defaults | changes))


def test_one_document_and_a_run_folder(live_bundle: Bundle, tmp_path: Path) -> None:
    """All of a live run: what `simulate` says of rows, who ran, how exact the links were; batches at the edge."""
    batching = {"max_size": 2, "max_wait_ms": 2.0}
    file, out = scenario(live_bundle, tmp_path, devices__count=2, edge__batching=batching), tmp_path / "run"
    options = ("--policy", "split", "--requests", 8, "--seed", 4, "--out", out, "--json")
    done = run("live", file, *options)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    summary = document["policies"]["split"]
    assert (summary["requests"], summary["offload_rate"], document["seeds"]) == (16, 1.0, [4])
    assert {"mean", "p50", "p95", "p99"} <= set(summary["response_ms"])
    assert (document["world"], document["network"], document["failed"]) == ("live", "proxy", {})
    assert set(document["processes"]) == {"edge", "link", "device 0", "device 1"}
    assert set(document["links"]) == {"device 0", "device 1"}
    table, manifest = pq.read_table(out / "requests.parquet"), json.loads((out / "manifest.json").read_text())
    assert table.column_names[:2] == ["policy", "seed"]
    assert table.drop_columns(["policy", "seed"]).schema.equals(SCHEMA)
    assert manifest["rows_sha256"] == rows_sha256(table)
    assert (manifest["world"], manifest["network"], manifest["seeds"]) == ("live", "proxy", [4])
    assert Calibration.load(out / "calibration.json").weights_sha256 == live_bundle.spec.weights_sha256
    assert "requests: 8" in (out / "config.yaml").read_text()
    assert any("starting 2 devices" in line for line in done.stderr.splitlines())


def test_ctrl_c_of_the_whole_terminal(live_bundle: Bundle, tmp_path: Path) -> None:
    """Every process gets the signal; the rows are kept, nobody stays, exit code 130."""
    file, out = scenario(live_bundle, tmp_path, requests=100_000), tmp_path / "run"
    arguments = command("live", file, "--policy", "split", "--out", out, "--json")
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(arguments, cwd=ROOT, env=ENVIRONMENT, start_new_session=True, **pipes) as parent:
        try:
            assert parent.stderr is not None
            while "running" not in (line := parent.stderr.readline()):
                assert line, parent.communicate()
            with pytest.raises(subprocess.TimeoutExpired):
                parent.wait(timeout=3)
            os.killpg(parent.pid, signal.SIGINT)
            out_text, err = parent.communicate(timeout=30)
        finally:
            parent.kill()
    assert parent.returncode == INTERRUPTED, err
    document = json.loads(out_text)
    assert document["interrupted"]
    assert "are kept" in err
    assert "Traceback" not in err
    assert len(pq.read_table(out / "requests.parquet")) == document["policies"]["split"]["requests"] > 0
    assert not any(alive(pid) for pid in document["processes"].values())


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--policy", "oracle"), "only simulate it"),
        (("--policy", "treshold"), "did you mean 'threshold'"),
        (("--network", "pigeon"), "'pigeon' is not one of 'proxy', 'tun', 'tbf'"),
        (("--set", "edge.servers=2"), "edge.servers: only the simulator can do that yet"),
        (("--set", "uplink.mbps=-5"), "uplink.mbps"),
        (("--data", "none.parquet"), "none.parquet"),
    ],
)
def test_wrong_input_ends_in_one_line(
    live_bundle: Bundle, tmp_path: Path, arguments: tuple[str, ...], what: str
) -> None:
    done = here("live", scenario(live_bundle, tmp_path), *arguments, "--out", tmp_path / "run")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("·")]
    assert what in line


def deployment(bundle: Bundle, folder: Path, **changes: object) -> Any:
    """Stands for one that has run."""
    experiment = open_experiment(bundle, folder, **changes)
    return SimpleNamespace(experiment=experiment, network="proxy", pids={"edge": 1})


def test_a_table_for_people(live_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary, of every group too; overruns over one per cent in words; the folder as the last line."""
    of = deployment(live_bundle, tmp_path, groups={"near": {}, "far": {}})
    rows = [row._replace(overrun=row.request < 5) for row in simulate(of.experiment, "split", 0, 100)]
    live_output.write_live(of, "split", 0, LiveRun(rows, 0, {}, False, {}), tmp_path, None, False)
    shown = capsys.readouterr().out
    assert "overruns" in shown
    assert "near" in shown
    assert "5% overruns: this host was too slow" in shown.replace("\n", " ")
    assert shown.splitlines()[-1] == str(tmp_path)


def test_a_run_that_ended_before_it_counted(live_bundle: Bundle, tmp_path: Path) -> None:
    """No figures, but the rows; and none at all."""
    of = deployment(live_bundle, tmp_path, warmup_s=1000.0)
    rows = simulate(of.experiment, "split", 0, 5)
    for kept in (rows, []):
        live_output.write_live(of, "split", 0, LiveRun(kept, 0, {}, True, {}), tmp_path, "images.parquet", True)
        assert len(pq.read_table(tmp_path / "requests.parquet")) == len(kept)
    assert json.loads((tmp_path / "manifest.json").read_text())["data"] == "images.parquet"
    assert "policies" not in json.loads((tmp_path / "summary.json").read_text())


@pytest.mark.parametrize(
    ("interrupted", "failed", "code"), [(True, {}, 130), (True, {"edge": "e"}, 130), (False, {"edge": "e"}, 1)]
)
def test_exit_codes(interrupted: bool, failed: dict[str, str], code: int) -> None:
    from rich.console import Console

    with pytest.raises(typer.Exit) as caught:
        _end(LiveRun([], 0, {}, interrupted, failed), 5, Console(stderr=True))
    assert caught.value.exit_code == code
    _end(LiveRun([], 0, {}, False, {}), 5, Console(stderr=True))
