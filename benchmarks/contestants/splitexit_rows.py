"""splitexit's compiled engine with full rows, written to a Parquet file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.scenario import experiment
from splitexit.sim import compiled

_folder = tempfile.TemporaryDirectory(prefix="splitexit-benchmark-")


def run(arrivals: list[float]) -> Path:
    """The file; it draws the same arrivals itself."""
    path = Path(_folder.name) / "rows.parquet"
    pq.write_table(compiled.simulate(experiment(len(arrivals)), "plain", 0), path)
    return path


def responses(path: Path, arrivals: list[float]) -> list[float]:
    """From the rows."""
    rows = pq.read_table(path, columns=["arrival_s", "done_s"])
    found: list[float] = pc.subtract(rows["done_s"], rows["arrival_s"]).to_pylist()
    return found
