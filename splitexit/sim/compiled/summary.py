"""The summary of a run without its rows: memory stays as it is however long the run."""

from __future__ import annotations

from math import fsum, inf
from typing import Any

import numpy as np

from splitexit.experiment import Experiment
from splitexit.sim.compiled import tally
from splitexit.sim.compiled.layout import Array
from splitexit.sim.compiled.paths import Book


class Summary:
    """Takes rows; says of them what splitexit.results.summarise says of a table.

    Counts and means are exact, but for the rounding of sums. Percentiles come from buckets and are at most 1e-4 off,
    relatively.
    """

    def __init__(self, experiment: Experiment, book: Book) -> None:
        self._values = _values(experiment, book)
        self._warmup_s = experiment.scenario.warmup_s
        self._tally = np.zeros(1, tally.TALLY)
        self._tally["shortest_s"], self._tally["longest_s"] = inf, -inf
        self._exits = np.zeros(len(experiment.spec.exits), np.int64)
        self._buckets = np.zeros(tally.BUCKETS, np.int64)
        self._scratch = np.zeros(1)
        self._sums_s: list[float] = []

    def add(self, rows: Array) -> None:
        """Takes some rows."""
        bits = self._scratch.view(np.int64)
        self._tally["response_s"] = 0.0
        tally.add(rows, self._values, self._tally, self._exits, self._buckets, self._scratch, bits, self._warmup_s)
        self._sums_s.append(float(self._tally["response_s"][0]))

    def __call__(self) -> dict[str, Any]:
        """What they say, by the names of splitexit.results.summarise; NaN where no row counts."""
        count = {
            name: int(self._tally[name][0]) for name in ("requests", "right", "missed", "sent", "fallback", "shed")
        }
        requests = count["requests"]
        share = {name: many / requests if requests else float("nan") for name, many in count.items()}
        return {
            "requests": requests,
            "accuracy": share["right"],
            "response_ms": self._response_ms(requests),
            "deadline_miss_rate": share["missed"],
            "offload_rate": share["sent"],
            "fallback_rate": share["fallback"],
            "exit_rates": [float(many) / max(requests, 1) for many in self._exits],
            "shed_rate": share["shed"],
            "uplink_bytes_mean": float(self._tally["payload_bytes"][0]) / requests if requests else float("nan"),
            "overrun_rate": 0.0,
        }

    def _response_ms(self, requests: int) -> dict[str, float]:
        if not requests:
            return dict.fromkeys(("mean", "p50", "p95", "p99"), float("nan"))
        # Most buckets were never touched, and should not be: memory is taken only for what is looked at.
        shortest, longest = (float(self._tally[name][0]) for name in ("shortest_s", "longest_s"))
        first = _bucket(shortest)
        upto = np.cumsum(self._buckets[first : _bucket(longest) + 1])

        def quantile_ms(q: float) -> float:
            """Between two neighbours as numpy.quantile has it."""
            rank = q * (requests - 1)
            at = np.searchsorted(upto, (np.floor(rank), np.ceil(rank)), "right") + first
            low, high = (min(max(_middle_s(bucket), shortest), longest) for bucket in at.tolist())
            return 1e3 * float(low + (high - low) * (rank - np.floor(rank)))

        percentiles = {f"p{percent}": quantile_ms(percent / 100.0) for percent in (50, 95, 99)}
        return {"mean": 1e3 * fsum(self._sums_s) / requests, **percentiles}


def _bucket(seconds: float) -> int:
    bits = int(np.float64(seconds).view(np.int64))
    return min(max((bits >> tally.SHIFT) - tally.LOWEST, 0), tally.BUCKETS - 1)


def _middle_s(bucket: int) -> float:
    edges = (np.array([bucket, bucket + 1]) + tally.LOWEST) << tally.SHIFT
    return float(edges.view(np.float64).mean()) if bucket else 0.0


def _values(experiment: Experiment, book: Book) -> Array:
    values = np.zeros(len(book.journeys), tally.JOURNEY_VALUE)
    label = experiment.recording.test.label[book.position]
    values["payload_bytes"] = book.payload_bytes
    for name, said in (("said", book.said), ("alone", book.alone)):
        values[f"{name}_exit"], values[f"{name}_right"] = said[:, 0], said[:, 1] == label
    return values
