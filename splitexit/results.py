"""One row per request, whichever world it ran in, and what a table of rows says in short."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, get_type_hints

import numpy as np
import pyarrow as pa

DEVICE, EDGE, CLOUD, FALLBACK = "device", "edge", "cloud", "fallback"
"""Who answered: an exit on the device, the edge or the cloud, or the device for want of the edge's reply."""

LOCAL = -1
"""`split` of a request that never left the device."""


class Completion(NamedTuple):
    """One request, from arrival to answer. Times are seconds on the run's clock or durations in seconds.

    Network time is one column: a device can measure the transit of both ways together, not of each,
    because only durations cross the wire.
    """

    request: int
    device: int
    sample: int
    label: int
    arrival_s: float
    start_s: float  # the device took it up; start − arrival is the wait at the device
    device_compute_s: float  # stages and heads, after a fallback too
    encode_s: float
    network_s: float  # both ways: queueing for the link, serialisation, propagation, call overhead
    airtime_s: float  # the upload held the radio, first byte to last; 0 unless sent, NaN where nobody can know (live)
    edge_wait_s: float
    edge_compute_s: float  # decode, stages and heads; with a cloud behind the edge, of both
    done_s: float
    split: int  # stages run before it was sent, LOCAL if it was not
    codec: str
    exit: int
    payload_bytes: int
    energy_j: float  # NaN where the scenario has no energy model
    prediction: int
    answered_by: str
    deadline_met: bool
    shed: bool  # the edge refused it for want of room
    lost_reply: bool  # sent, and no answer came in time
    overrun: bool  # live and paced: the host was slower than the machine it stands for
    mode: str = ""  # of the device; a column only where the scenario gives its devices modes

    @property
    def response_s(self) -> float:
        """Arrival to answer."""
        return self.done_s - self.arrival_s

    @property
    def correct(self) -> bool:
        """Whether the answer is the label."""
        return self.prediction == self.label


_TYPES = {int: pa.int32(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}
WITH_MODES = pa.schema([(name, _TYPES[kind]) for name, kind in get_type_hints(Completion).items()])
SCHEMA = pa.schema([*WITH_MODES][:-1])
"""The columns of a table; where devices have modes, the last one of WITH_MODES is there too."""


def to_table(rows: Iterable[Completion], schema: pa.Schema = SCHEMA) -> pa.Table:
    """Rows as an Arrow table, in order of (device, request).

    Args:
        schema: SCHEMA or WITH_MODES; which one is for the experiment to say (`Experiment.schema`).
    """
    ordered = sorted(rows, key=lambda row: (row.device, row.request))
    columns = list(zip(*ordered, strict=True)) or [()] * len(schema)
    return pa.table(
        [pa.array(c, f.type) for c, f in zip(columns, schema, strict=False)],
        schema=schema,
    )


def marked(table: pa.Table, **facts: Any) -> pa.Table:
    """The same rows with a column for each fact in front, in that order, that has its one value everywhere."""
    for name, value in reversed(facts.items()):
        table = table.add_column(0, name, pa.repeat(value, len(table)))
    return table


def rows_sha256(table: pa.Table) -> str:
    """Hex digest of the rows' content: equal tables give equal digests on any machine and Arrow version."""
    digest = hashlib.sha256()
    for name in table.column_names:
        column = table[name].combine_chunks()
        digest.update(name.encode())
        if pa.types.is_string(column.type):
            digest.update("\n".join(column.to_pylist()).encode())
        else:
            digest.update(np.ascontiguousarray(column.to_numpy(zero_copy_only=False)).tobytes())
    return digest.hexdigest()


def column(table: pa.Table, name: str) -> np.ndarray[Any, Any]:
    """A column as a numpy array; `response_s` is derived."""
    if name == "response_s":
        return np.asarray(table["done_s"].to_numpy() - table["arrival_s"].to_numpy())
    values: np.ndarray[Any, Any] = table[name].to_numpy()
    return values


def summarise(table: pa.Table, num_exits: int) -> dict[str, Any]:
    """What the rows of one run say: the metrics of the README's glossary."""
    response_ms = 1e3 * column(table, "response_s")
    sent = column(table, "split") != LOCAL
    exits = np.bincount(column(table, "exit"), minlength=num_exits) / max(len(table), 1)
    energy = column(table, "energy_j")
    summary: dict[str, Any] = {
        "requests": len(table),
        "accuracy": float(np.mean(column(table, "prediction") == column(table, "label"))),
        "response_ms": describe(response_ms),
        "deadline_miss_rate": float(np.mean(~column(table, "deadline_met"))),
        "offload_rate": float(sent.mean()),
        "fallback_rate": float(np.mean(column(table, "answered_by") == FALLBACK)),
        "exit_rates": [float(share) for share in exits],
        "shed_rate": float(column(table, "shed").mean()),
        "uplink_bytes_mean": float(column(table, "payload_bytes").mean()),
        "overrun_rate": float(column(table, "overrun").mean()),
    }
    if len(energy) and np.isfinite(energy).all():
        summary["device_energy_mj_mean"] = 1e3 * float(energy.mean())
    return summary


def describe(values: np.ndarray[Any, Any]) -> dict[str, float]:
    """Mean and the percentiles that every table shows."""
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return {"mean": float(values.mean()), "p50": float(p50), "p95": float(p95), "p99": float(p99)}


def decisions(nanoseconds: Sequence[int] | np.ndarray[Any, Any]) -> dict[str, float]:
    """How long decisions took: `count`, and in microseconds what `describe` says; empty without any."""
    if not len(nanoseconds):
        return {}
    return {"count": len(nanoseconds), **describe(np.asarray(nanoseconds, float) / 1e3)}


def utilities(table: pa.Table, of: Any) -> np.ndarray[Any, Any]:
    """Utility of every row; `of` is a splitexit.decision.Utility."""
    correct = column(table, "prediction") == column(table, "label")
    missed = ~column(table, "deadline_met")
    values: np.ndarray[Any, Any] = (
        of.accuracy * correct - of.latency_per_s * column(table, "response_s") - of.miss * missed
    )
    return values
