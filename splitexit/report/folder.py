"""A run folder: everything needed to read a run, and to repeat it.

config.yaml        the scenario as it ran, every default written out
manifest.json      command, seeds, versions, digests, host, rows_sha256
requests.parquet   one row per request (splitexit.results.Completion), with policy and seed
requests.csv       the same, where asked for
summary.json       the document that --json prints
calibration.json   of a live run: what this machine takes, by which paced processes and the simulator go

Where many points were run, points.parquet and points.csv hold one line for each instead of the requests; with
--no-rows there is neither.
"""

from __future__ import annotations

import json
import math
import platform
import sys
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from splitexit.errors import UsageError
from splitexit.experiment import Experiment
from splitexit.results import rows_sha256
from splitexit.scenario import dump

PACKAGES = ("splitexit", "numpy", "pyarrow", "simpy", "pydantic", "torch", "grpcio", "protobuf")


def new_folder(out: Path | None, name: str) -> Path:
    """Makes the folder: `out`, or runs/<time>-<name>; raises UsageError where it cannot be made."""
    folder = out or Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot make this folder: {error.strerror}; choose another with --out") from error
    return folder


def write(
    folder: Path,
    experiment: Experiment,
    rows: pa.Table,
    summary: Mapping[str, Any],
    seeds: list[int],
    csv: bool,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes the files listed above and returns the manifest, which holds the `facts` too."""
    made = manifest(experiment, seeds) | {"rows": len(rows), "rows_sha256": rows_sha256(rows), **(facts or {})}
    pq.write_table(rows, folder / "requests.parquet", compression="zstd")
    if csv:
        pyarrow.csv.write_csv(rows, folder / "requests.csv")
    _write_documents(folder, experiment, made, summary)
    return made


def write_points(
    folder: Path, experiment: Experiment, points: pa.Table, summary: Mapping[str, Any], seeds: list[int]
) -> None:
    """The folder of a run of many points: one line for each instead of one for each request."""
    pq.write_table(points, folder / "points.parquet", compression="zstd")
    pyarrow.csv.write_csv(points, folder / "points.csv")
    _write_documents(folder, experiment, manifest(experiment, seeds) | {"points": len(points)}, summary)


def write_summary(folder: Path, experiment: Experiment, summary: Mapping[str, Any], seeds: list[int]) -> None:
    """The folder of a run whose rows nobody kept."""
    _write_documents(folder, experiment, manifest(experiment, seeds), summary)


def manifest(experiment: Experiment, seeds: list[int]) -> dict[str, Any]:
    """What ran, on what, made of what."""
    return {
        "command": ["splitexit", *sys.argv[1:]],
        "made": datetime.now().astimezone().isoformat(timespec="seconds"),
        "scenario_sha256": experiment.scenario.digest(),
        "seeds": seeds,
        "versions": versions(),
        "digests": {"recording": dict(experiment.recording.made), "weights": experiment.spec.weights_sha256},
        "host": {"platform": platform.platform(), "python": platform.python_version()},
    }


def _write_documents(folder: Path, experiment: Experiment, made: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    (folder / "config.yaml").write_text(dump(experiment.scenario.resolved()), encoding="utf-8")
    _write_json(folder / "manifest.json", made)
    _write_json(folder / "summary.json", summary)


def to_json(content: Mapping[str, Any]) -> str:
    """JSON text; NaN, which JSON does not have, becomes null."""
    return json.dumps(_plain(content), indent=2)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(to_json(content) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def versions() -> dict[str, str]:
    """Versions of the packages that decide results, where installed; nothing is imported."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
