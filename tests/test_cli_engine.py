"""The engine as a key and an option; runs whose rows nobody keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from splitexit import cli
from tests import synthetic

pytest.importorskip("numba")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a scenario."""
    monkeypatch.chdir(tmp_path)
    synthetic.experiment(tmp_path, requests=300)
    return tmp_path


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What --json prints."""
    assert cli.run(["simulate", "scenario.yaml", "--policy", "local", "--json", *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_both_engines_write_the_same_rows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow, fast = (document(capsys, "--engine", engine) for engine in ("simpy", "compiled"))
    assert slow["rows_sha256"] == fast["rows_sha256"]
    assert document(capsys, "--set", "engine=compiled")["rows_sha256"] == fast["rows_sha256"]


def test_without_rows_the_summary_is_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts and means exactly, percentiles to 1e-4."""
    kept = document(capsys, "--engine", "compiled")["policies"]["local"]
    bare = document(capsys, "--engine", "compiled", "--no-rows", "--out", "bare")["policies"]["local"]
    for key in ("requests", "accuracy", "deadline_miss_rate", "offload_rate", "exit_rates", "uplink_bytes_mean"):
        assert bare[key] == kept[key], key
    for key, value in kept["response_ms"].items():
        assert bare["response_ms"][key] == pytest.approx(value, rel=1e-9 if key == "mean" else 2e-2), key
    assert sorted(path.name for path in (folder / "bare").iterdir()) == ["config.yaml", "manifest.json", "summary.json"]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--no-rows"], "--no-rows needs --engine compiled and a single seed"),
        (["--no-rows", "--engine", "compiled", "--seeds", "0-1"], "--no-rows needs --engine compiled and a single"),
        (["--engine", "simpi"], "engine: found 'simpi'; expected 'simpy' or 'compiled'"),
        (["--engine", "compiled", "--policy", "neurosurgeon"], "the compiled engine cannot run this"),
    ],
)
def test_mistakes_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], what: str
) -> None:
    assert cli.run(["simulate", "scenario.yaml", *arguments]) == 2
    err = capsys.readouterr().err
    assert what in err
    assert len(err.splitlines()) == 1
