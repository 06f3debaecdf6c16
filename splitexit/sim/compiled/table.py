"""Rows of the compiled engine as Arrow tables with the columns of every run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from splitexit.experiment import Experiment
from splitexit.results import DEVICE, EDGE, FALLBACK, LOCAL, SCHEMA
from splitexit.sim.compiled.layout import ANSWERED, GIVEN_UP, REPLIED, Array
from splitexit.sim.compiled.paths import Book

ANSWERED_BY = [DEVICE, EDGE, FALLBACK, FALLBACK]
"""By outcome."""


class Columns:
    """Turns rows into tables."""

    def __init__(self, experiment: Experiment, book: Book) -> None:
        self._test, self._book = experiment.recording.test, book
        pairs = [path.pair or (LOCAL, "") for path in book.path_of]
        self._split = np.array([split for split, _ in pairs], np.int32)
        codecs = list(dict.fromkeys(["", *(codec for _, codec in pairs)]))
        self._codecs, self._codec = pa.array(codecs), np.array([codecs.index(codec) for _, codec in pairs], np.int32)

    def table(self, rows: Array) -> pa.Table:
        """Rows as they are, in their order; energy is not known here."""
        columns = {**_times(rows), **self._said(rows), **self._sent(rows)}
        return pa.table([pa.array(columns[name], SCHEMA.field(name).type) for name in SCHEMA.names], schema=SCHEMA)

    def _said(self, rows: Array) -> dict[str, Any]:
        journey, book = rows["journey"], self._book
        with_reply = (rows["outcome"] == ANSWERED) | (rows["outcome"] == REPLIED)
        position = book.position[journey]
        said = np.where(with_reply[:, None], book.said[journey], book.alone[journey])
        return {
            "sample": self._test.sample[position].astype(np.int32),
            "label": self._test.label[position].astype(np.int32),
            "exit": said[:, 0],
            "prediction": said[:, 1],
        }

    def _sent(self, rows: Array) -> dict[str, Any]:
        journey, book, outcome = rows["journey"], self._book, rows["outcome"]
        path = book.journeys["path"][journey]
        sent = (outcome == REPLIED) | (outcome == GIVEN_UP)
        shed = rows["shed"].astype(bool)
        return {
            "split": np.where(sent, self._split[path], np.int32(LOCAL)),
            "codec": pa.DictionaryArray.from_arrays(
                pa.array(np.where(sent, self._codec[path], np.int32(0))), self._codecs
            ).dictionary_decode(),
            "payload_bytes": np.where(sent, book.payload_bytes[journey], np.int32(0)),
            "answered_by": pa.DictionaryArray.from_arrays(pa.array(outcome), pa.array(ANSWERED_BY)).dictionary_decode(),
            "shed": shed,
            "lost_reply": (outcome == GIVEN_UP) & ~shed,
            "deadline_met": rows["met"].astype(bool),
            "overrun": np.zeros(len(rows), bool),
        }


def _times(rows: Array) -> dict[str, Array]:
    return {
        "request": rows["number"].astype(np.int32),
        "device": rows["device"],
        "arrival_s": rows["arrival_s"],
        "start_s": rows["start_s"],
        "device_compute_s": rows["compute_s"],
        "encode_s": rows["encode_s"],
        "network_s": rows["network_s"],
        "airtime_s": rows["airtime_s"],
        "edge_wait_s": rows["wait_s"],
        "edge_compute_s": rows["edge_s"],
        "done_s": rows["done_s"],
        "energy_j": np.full(len(rows), np.nan),
    }
