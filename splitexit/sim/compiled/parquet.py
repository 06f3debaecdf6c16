"""A run's rows as one Parquet file, written while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from splitexit.results import SCHEMA
from splitexit.sim.compiled.engine import Engine
from splitexit.sim.compiled.layout import Array
from splitexit.sim.compiled.order import many_devices, one_device
from splitexit.sim.compiled.table import Columns

WORDS = ["codec", "answered_by"]

FORMAT: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": [*WORDS, "device", "exit", "split", "payload_bytes", "prediction", "label", "energy_j"],
    "write_statistics": False,
}
"""Fast to write; readers need to know nothing of it."""


def write(engine: Engine, path: Path) -> int:
    """Runs and writes; returns the number of rows. The file has its name only when it is whole."""
    columns, written = Columns(engine.experiment, engine.book), 0
    partial = path.with_name(path.name + ".partial")
    with pq.ParquetWriter(partial, SCHEMA, **FORMAT) as file:
        for rows in _ordered(engine, path.parent):
            file.write_table(columns.table(rows), row_group_size=len(rows))
            written += len(rows)
    partial.replace(path)
    return written


def _ordered(engine: Engine, folder: Path) -> Iterator[Array]:
    devices = engine.experiment.total_devices
    if devices == 1:
        return one_device(engine.rows())
    return many_devices(engine.rows(), devices, engine.requests, folder)
