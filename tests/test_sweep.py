"""sweep: grids, resuming, the same bytes whoever computes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from splitexit import cli, sweep
from splitexit.errors import UsageError
from splitexit.sweep import Axis, Store, Sweep, Unit, write_whole
from tests import synthetic
from tests.test_floors import ROOT


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("uplink.mbps=1,2,5,10", "1 2 5 10"),
        ("devices.count=1..4", "1 2 3 4"),
        ("devices.count=1..10:4", "1 5 9"),
        ("devices.count=1..64:x2", "1 2 4 8 16 32 64"),
        ("uplink.mbps=0.5..2:0.5", "0.5 1 1.5 2"),
        ("devices.count=1,4..6,5", "1 4 5 6"),
        ("uplink.mbps=100,10", "100 10"),
        ("devices.policy=local,offload", "local offload"),
        ("bundle=../a,../b", "../a ../b"),
        ("edge.batching={max_size: 8, max_wait_ms: 2},null", "{max_size: 8, max_wait_ms: 2}|null"),
    ],
)
def test_axes_are_read(text: str, values: str) -> None:
    assert list(Axis.parse(text).values) == values.split("|" if "|" in values else " ")


@pytest.mark.parametrize(
    "text", ["", "a", "a=", "=1", "a=1,,2", "a=5..1", "a=1..9:0", "a=0..8:x2", "a=1..9:x1", "a=1..1e9"]
)
def test_wrong_axes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--sweep") as caught:
        Axis.parse(text)
    assert "\n" not in str(caught.value)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a scenario."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    synthetic.experiment(tmp_path, requests=40)
    return tmp_path


GRID = ["sweep", "scenario.yaml", "--sweep", "uplink.mbps=1,8", "--sweep", "devices.count=1..2", "--seeds", "0-2"]
BYTES = ("points.parquet", "points.csv", "summary.json")


def run(*arguments: str) -> int:
    """The command, in this process."""
    return cli.run([*GRID, *arguments])


def contents(folder: Path) -> list[bytes]:
    """What a sweep came to."""
    return [(folder / name).read_bytes() for name in BYTES]


def test_the_table_is_tidy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--policies", "local,offload", "--jobs", "1", "--out", "out", "--plot") == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "J/request" in out
    table = pq.read_table("out/points.parquet")
    assert len(table) == 8
    assert table["uplink.mbps"].to_pylist() == [1] * 4 + [8] * 4
    assert table["policy"].to_pylist() == ["local", "offload"] * 4
    point = table.to_pylist()[1]
    assert point["response_ms_low"] < point["response_ms"] < point["response_ms_high"]
    assert point["verdict"] == "stable"
    assert pyarrow.csv.read_csv("out/points.csv").column_names == table.column_names
    assert (folder / "out" / "sweep.png").stat().st_size > 1000


def test_the_same_bytes_for_any_number_of_workers_and_order_of_policies(folder: Path) -> None:
    assert run("--policies", "local,offload,neurosurgeon", "--jobs", "1", "--out", "one") == 0
    assert run("--policies", "neurosurgeon,offload,local", "--jobs", "4", "--out", "four") == 0
    assert run("--policies", "offload,neurosurgeon,local", "--jobs", "2", "--backend", "threading", "--out", "two") == 0
    assert contents(folder / "one") == contents(folder / "four") == contents(folder / "two")


def test_what_is_finished_is_not_computed_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("--policies", "local,offload", "--jobs", "1", "--out", "out") == 0
    whole = contents(folder / "out")
    lines = sorted((folder / "out" / "lines").iterdir())
    assert len(lines) == 8
    lines[3].unlink()
    lines[5].write_text("{")  # as a crash of the machine might leave it
    computed: list[Unit] = []
    compute = sweep.compute
    monkeypatch.setattr(sweep, "compute", lambda *given: computed.append(given[2]) or compute(*given))
    assert cli.run(["sweep", "--resume", "out", "--jobs", "1"]) == 0
    assert len(computed) == 2
    assert contents(folder / "out") == whole


def test_the_same_command_finds_its_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--policies", "local", "--jobs", "1") == run("--policies", "local", "--jobs", "1") == 0
    assert len(list((folder / "runs").iterdir())) == 1
    assert run("--policies", "offload", "--jobs", "1") == 0
    assert len(list((folder / "runs").iterdir())) == 2


def test_a_changed_scenario_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--policies", "local", "--jobs", "1", "--out", "out") == 0
    synthetic.write_scenario(folder, requests=41)
    assert run("--policies", "local", "--jobs", "1", "--out", "out") == 2
    err = capsys.readouterr().err
    assert "out: holds a sweep whose scenario was another; give another folder with --out" in err
    assert len(err.splitlines()) == 1


def test_more_points_can_be_added_to_a_folder(folder: Path) -> None:
    assert run("--policies", "local", "--jobs", "1", "--out", "out") == 0
    assert run("--policies", "local,offload", "--jobs", "1", "--out", "out") == 0
    assert len(pq.read_table("out/points.parquet")) == 8


def test_an_interrupted_sweep_goes_on(folder: Path) -> None:
    """Ctrl-C to the whole group of processes, as a terminal sends it; then the same command again."""
    command = [sys.executable, "-m", "splitexit", *GRID, "--sweep", "edge.workers=1..4", "--policies", "local,offload"]
    command += ["--jobs", "2", "--out", "cut"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=env, start_new_session=True)
    lines = folder / "cut" / "lines"
    while process.poll() is None and len(list(lines.glob("[!.]*.json"))) < 6:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "are kept; go on with: splitexit sweep --resume cut" in err
    assert "Traceback" not in err
    kept = {path: path.stat().st_mtime_ns for path in lines.glob("[!.]*.json")}
    assert 6 <= len(kept) < 2 * 2 * 4 * 2
    assert cli.run([*command[3:-2], "--out", "cut"]) == 0
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in kept.items())
    assert cli.run([*command[3:-4], "--jobs", "1", "--out", "whole"]) == 0
    assert contents(folder / "cut") == contents(folder / "whole")


def test_a_backend_of_joblibs_by_name(folder: Path) -> None:
    """Dask and Ray are such backends: joblib knows them by name, and they need not hand results over one by one."""
    from joblib import register_parallel_backend
    from joblib.parallel import ThreadingBackend

    class Slow(ThreadingBackend):  # type: ignore[misc]
        supports_return_generator = False

    register_parallel_backend("slow", Slow)
    assert run("--policies", "local", "--jobs", "2", "--backend", "slow", "--out", "out") == 0
    assert run("--policies", "local", "--jobs", "1", "--out", "one") == 0
    assert contents(folder / "out") == contents(folder / "one")


def test_a_local_dask_cluster(folder: Path) -> None:
    pytest.importorskip("distributed")
    assert run("--policies", "local", "--jobs", "2", "--backend", "dask", "--out", "out") == 0
    assert run("--policies", "local", "--jobs", "1", "--out", "one") == 0
    assert contents(folder / "out") == contents(folder / "one")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--sweep", "uplink.mbps=3"], "the key 'uplink.mbps' is given twice"),
        (["--sweep", "edge.workers=0,1"], "edge.workers"),
        (["--sweep", "edge.workers=x"], "edge.workers"),
        (["--sweep", "edge.workers=1..1024", "--sweep", "seed=1..1024"], "points; expected at most"),
        (["--policies", "nobody"], "unknown policy 'nobody'"),
        (["--jobs", "0"], "--jobs 0"),
        (["--jobs", "2", "--backend", "nowhere"], "--backend nowhere: Invalid backend"),
        (["--resume", "out"], "--resume takes everything from its folder"),
    ],
)
def test_mistakes_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], what: str
) -> None:
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert what in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("missing", ["joblib", "distributed", "ray"])
def test_what_is_not_installed_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    backend = {"joblib": "loky", "distributed": "dask", "ray": "ray"}[missing]
    assert run("--jobs", "2", "--backend", backend, "--out", "out") == 2
    err = capsys.readouterr().err
    assert {"joblib": "splitexit[sweep]", "distributed": "dask[distributed]", "ray": "'ray'"}[missing] in err
    assert len(err.splitlines()) == 1


def test_a_folder_without_a_sweep_cannot_be_resumed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["sweep", "--resume", "nowhere"]) == 2
    assert cli.run(["sweep"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "nowhere: holds no sweep" in first
    assert "expected a scenario and --sweep" in second


def test_a_unit_that_cannot_run_names_itself(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--sweep", "warmup_s=0,3000", "--policies", "local", "--jobs", "2", "--out", "out") == 2
    err = capsys.readouterr().err
    assert "warmup_s=3000 local: warmup_s: 3000 leaves nothing" in err
    assert len(err.splitlines()) == 1


def test_files_appear_whole(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    write_whole(tmp_path / "a", "other")
    assert (tmp_path / "a").read_text() == "other"


def test_a_plan_survives_its_folder(folder: Path) -> None:
    given: dict[str, Any] = {"overrides": ("seed=1",), "policies": ("local",), "seeds": (0, 1)}
    plan = Sweep(folder / "scenario.yaml", axes=(Axis("uplink.mbps", ("1", "2")),), **given)
    store = Store.open(folder / "out", plan, plan.identity(plan.base()))
    assert store.sweep() == plan
    assert json.loads(store.plan.read_text())["identity"]["scenario"] == plan.base().scenario.digest()
