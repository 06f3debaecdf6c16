"""Promise 16: same seed, same result, in another process and under another hash seed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests import synthetic


def digest(scenario: Path, out: Path, hash_seed: str, seeds: str = "0-1") -> str:
    command = [
        sys.executable,
        "-m",
        "splitexit",
        "compare",
        str(scenario),
        "--seeds",
        seeds,
        "--out",
        str(out),
        "--json",
    ]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
    )
    document = json.loads(done.stdout)
    assert json.loads((out / "manifest.json").read_text())["rows_sha256"] == document["rows_sha256"]
    return str(document["rows_sha256"])


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    synthetic.experiment(tmp_path)
    scenario = tmp_path / "scenario.yaml"
    first = digest(scenario, tmp_path / "a", "0")
    assert digest(scenario, tmp_path / "b", "1") == first
    assert digest(scenario, tmp_path / "c", "random") == first
    assert digest(scenario, tmp_path / "d", "0", seeds="2-3") != first


def test_a_run_can_be_repeated_from_its_folder(tmp_path: Path) -> None:
    """config.yaml holds everything: the same rows come out of it."""
    synthetic.experiment(tmp_path)
    first = digest(tmp_path / "scenario.yaml", tmp_path / "a", "0")
    assert digest(tmp_path / "a" / "config.yaml", tmp_path / "b", "0") == first
