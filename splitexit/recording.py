"""What a trained model said on a real data set, sample by sample.

A `Recording` has two parts, `calibration` (for thresholds and every other choice) and `test`. Each
holds, for every sample, the reading of every exit and, for every recorded (split, codec), the payload
bytes and what the edge's exits said of the decoded features. It is one Parquet file with a row per
sample:

    part, sample, label[, context]
    exit<e>.prediction, .max_prob, .entropy, .margin[, .logits][, .confidence]
    split<s>.<codec>.bytes, split<s>.<codec>.exit<e>.prediction, .max_prob, .entropy, .margin[, .logits][, .confidence]

The schema metadata key `splitexit` holds JSON: digests, exits, pairs, how it was made. A pair marked
lossless stores bytes alone: there the edge says what the device would have said (bit for bit at batch 1).
Only heads that learn a confidence have one. Samples have a context where some are distorted copies of others
(`splitexit record --distort`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from splitexit.bundle import ModelSpec
from splitexit.confidence import confidences, cut
from splitexit.decision import Reading
from splitexit.errors import ArtifactError, UsageError

Array = np.ndarray[Any, Any]
PARTS = ("calibration", "test")
MEASURES = ("prediction", "max_prob", "entropy", "margin")


@dataclass
class ExitReadings:
    """One exit's readings of n samples: prediction uint16, the others float32.

    logits      float32 (n, num_classes), or None where they were not kept; float16 in older recordings
    confidence  (n,), or None where the head learned none
    """

    prediction: Array
    max_prob: Array
    entropy: Array
    margin: Array
    logits: Array | None = None
    confidence: Array | None = None

    @classmethod
    def of_logits(cls, logits: Array, keep: bool = False) -> ExitReadings:
        """From logits (n, num_classes), which are stored too if `keep`."""
        prediction, max_prob, entropy, margin = confidences(logits)
        stored = logits.astype(np.float32) if keep else None
        return cls(prediction.astype(np.uint16), max_prob, entropy, margin, stored)

    @classmethod
    def of_outputs(cls, outputs: Array, num_classes: int, keep: bool = False) -> ExitReadings:
        """From what a head put out: (n, num_classes), or one column more (see splitexit.confidence.cut)."""
        logits, learned = cut(outputs, num_classes)
        return replace(cls.of_logits(logits, keep), confidence=learned)

    def readings(self, exit_: int) -> list[Reading]:
        """The same as Reading objects."""
        columns = [getattr(self, name).tolist() for name in MEASURES]
        count = len(self.prediction)
        logits: Sequence[Array | None] = [None] * count if self.logits is None else list(self.logits)
        learned = [nan] * count if self.confidence is None else self.confidence.tolist()
        rows = zip(*columns, logits, learned, strict=True)
        return [Reading(exit_, p, c, h, m, z, sure) for p, c, h, m, z, sure in rows]


@dataclass
class PairReadings:
    """One (split, codec): payload bytes uint32 (n,), and the edge's readings by exit (empty where lossless).

    refers  whether payloads may refer to earlier ones: the bytes are those of payloads that do not
    """

    payload_bytes: Array
    exits: dict[int, ExitReadings] = field(default_factory=dict)
    lossless: bool = False
    refers: bool = False


@dataclass
class Part:
    """The calibration or the test split: n samples.

    context  (n,) strings, the distortion under which each was captured ("" for none); None where none is recorded
    """

    name: str
    sample: Array
    label: Array
    exits: tuple[ExitReadings, ...]
    pairs: dict[tuple[int, str], PairReadings]
    context: Array | None = None

    def __post_init__(self) -> None:
        self._readings: dict[tuple[int, str, int], list[Reading]] = {}
        self._sizes: dict[tuple[int, str], list[int]] = {}

    def __len__(self) -> int:
        return len(self.label)

    def context_of(self, position: int) -> str | None:
        """The context of the sample at this position; None where the part distinguishes none."""
        return None if self.context is None else str(self.context[position])

    def pair(self, split: int, codec: str) -> PairReadings:
        """What was recorded for this (split, codec); raises ArtifactError naming the command that adds it."""
        try:
            return self.pairs[split, codec]
        except KeyError:
            known = ", ".join(f"{c}@{s}" for s, c in sorted(self.pairs)) or "none"
            raise ArtifactError(
                f"split {split} with codec {codec!r} was not recorded (recorded codec@split: {known}); "
                f"add it with `splitexit record BUNDLE --pair {codec}@{split}`"
            ) from None

    def payload_sizes(self, split: int, codec: str) -> list[int]:
        """Payload bytes of this (split, codec), by position; raises ArtifactError if not recorded.

        Raises UsageError where they depend on what was sent before.
        """
        key = (split, codec)
        if key not in self._sizes:
            pair = self.pair(split, codec)
            if pair.refers:
                raise UsageError(
                    f"codec {codec!r} sends differences to what was sent before, whose bytes no recording holds: it "
                    "cannot be simulated; run it live (`splitexit live`), or take another codec"
                )
            self._sizes[key] = pair.payload_bytes.tolist()
        return self._sizes[key]

    def readings(self, exit_: int) -> list[Reading]:
        """The device's readings of one exit, by position in the part."""
        key = (-1, "", exit_)
        if key not in self._readings:
            self._readings[key] = self.exits[exit_].readings(exit_)
        return self._readings[key]

    def edge_exit(self, split: int, codec: str, exit_: int) -> ExitReadings:
        """What an exit on the edge said behind `split` of decoded features; raises ArtifactError if not recorded."""
        pair = self.pair(split, codec)
        if pair.lossless:
            return self.exits[exit_]
        if exit_ not in pair.exits:
            raise ArtifactError(
                f"exit {exit_} on the edge was not recorded for {codec}@{split} (recorded: {sorted(pair.exits)}); "
                f"add it with `splitexit record BUNDLE --pair {codec}@{split} --edge-exits all`"
            )
        return pair.exits[exit_]

    def edge_readings(self, split: int, codec: str, exit_: int) -> list[Reading]:
        """The same as Reading objects, by position in the part."""
        key = (split, codec, exit_)
        if key not in self._readings:
            said = self.edge_exit(split, codec, exit_)
            self._readings[key] = self.readings(exit_) if said is self.exits[exit_] else said.readings(exit_)
        return self._readings[key]


@dataclass
class Recording:
    """Both parts, and what they were made from (`made`: digests of weights, codecs and data, the command)."""

    parts: dict[str, Part]
    num_classes: int
    made: Mapping[str, Any]

    @property
    def test(self) -> Part:
        """The test split: what runs replay."""
        return self.parts["test"]

    @property
    def calibration(self) -> Part:
        """The calibration split: what policies and thresholds may look at."""
        return self.parts["calibration"]

    def codecs(self) -> dict[int, tuple[str, ...]]:
        """Recorded codec ids at every split that has any."""
        found: dict[int, tuple[str, ...]] = {}
        for split, codec in sorted(self.test.pairs):
            found[split] = (*found.get(split, ()), codec)
        return found

    def save(self, path: Path) -> None:
        """Writes one Parquet file, through a temporary name so that an interruption leaves the old file."""
        table = pa.concat_tables([_table(part) for part in self.parts.values()])
        first = next(iter(self.parts.values()))
        about = {
            "format": 1,
            "num_classes": self.num_classes,
            "exits": len(first.exits),
            "pairs": [
                {"split": s, "codec": c, "lossless": p.lossless, "exits": sorted(p.exits)}
                | ({"refers": True} if p.refers else {})
                for (s, c), p in sorted(first.pairs.items())
            ],
            "made": dict(self.made),
        }
        table = table.replace_schema_metadata({"splitexit": json.dumps(about)})
        partial = path.with_suffix(".partial")
        floats = [f.name for f in table.schema if pa.types.is_float32(f.type)]
        rest = [f.name for f in table.schema if f.name not in floats]
        pq.write_table(
            table,
            partial,
            compression="zstd",
            compression_level=12,
            use_dictionary=rest,
            use_byte_stream_split=floats,
        )
        partial.replace(path)

    @classmethod
    def load(cls, path: Path, spec: ModelSpec | None = None) -> Recording:
        """Reads a recording and checks it, against `spec` too if given; raises ArtifactError."""
        if not path.exists():
            raise ArtifactError(f"{path}: no such recording; `splitexit record` makes it")
        try:
            table = pq.read_table(path)
            about = json.loads(table.schema.metadata[b"splitexit"])
            parts = {name: _part(name, table, about) for name in PARTS}
            recording = cls(parts, int(about["num_classes"]), dict(about["made"]))
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            why = " ".join(str(error).split())[:120]
            raise ArtifactError(f"{path}: not a readable recording ({why}); run `splitexit record` again") from error
        recording._check(path, spec)
        return recording

    def _check(self, path: Path, spec: ModelSpec | None) -> None:
        for part in self.parts.values():
            if not len(part):
                raise ArtifactError(f"{path}: the {part.name} part is empty; run `splitexit record` again")
            for values in _all_readings(part):
                if values.prediction.max() >= self.num_classes or not np.isfinite(values.max_prob).all():
                    raise ArtifactError(f"{path}: a reading is out of range; run `splitexit record` again")
                if values.confidence is not None and not (np.abs(values.confidence - 0.5) <= 0.5).all():
                    raise ArtifactError(f"{path}: a confidence is out of range; run `splitexit record` again")
        if spec is not None:
            self._check_model(path, spec)

    def _check_model(self, path: Path, spec: ModelSpec) -> None:
        found = (len(self.test.exits), self.num_classes)
        if found != (len(spec.exits), spec.num_classes):
            raise ArtifactError(
                f"{path}: recorded {found[0]} exits of {found[1]} classes, the model has {len(spec.exits)} of "
                f"{spec.num_classes}; run `splitexit record`"
            )
        digest = self.made.get("digests", {}).get("model.safetensors", "")
        if digest and spec.weights_sha256 and digest != spec.weights_sha256:
            raise ArtifactError(
                f"{path}: recorded with weights {digest[:12]}…, model.json says {spec.weights_sha256[:12]}…; "
                "run `splitexit record`"
            )


def read_made(path: Path) -> Mapping[str, Any]:
    """What a recording was made from, without reading it whole; raises ArtifactError."""
    try:
        made: Mapping[str, Any] = json.loads(pq.read_schema(path).metadata[b"splitexit"])["made"]
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: not a readable recording; run `splitexit record` again") from error
    return made


def _all_readings(part: Part) -> Iterator[ExitReadings]:
    yield from part.exits
    for pair in part.pairs.values():
        yield from pair.exits.values()


def _columns(prefix: str, values: ExitReadings) -> dict[str, pa.Array]:
    columns = {f"{prefix}.{name}": pa.array(getattr(values, name)) for name in MEASURES}
    if values.logits is not None:
        flat = pa.array(values.logits.reshape(-1))
        columns[f"{prefix}.logits"] = pa.FixedSizeListArray.from_arrays(flat, values.logits.shape[1])
    if values.confidence is not None:
        columns[f"{prefix}.confidence"] = pa.array(values.confidence)
    return columns


def _table(part: Part) -> pa.Table:
    columns: dict[str, pa.Array] = {
        "part": pa.array([part.name] * len(part)),
        "sample": pa.array(part.sample.astype(np.uint32)),
        "label": pa.array(part.label.astype(np.uint16)),
    }
    if part.context is not None:
        columns["context"] = pa.array(part.context.tolist(), pa.string())
    for e, values in enumerate(part.exits):
        columns |= _columns(f"exit{e}", values)
    for (split, codec), pair in sorted(part.pairs.items()):
        columns[f"split{split}.{codec}.bytes"] = pa.array(pair.payload_bytes.astype(np.uint32))
        for e, values in sorted(pair.exits.items()):
            columns |= _columns(f"split{split}.{codec}.exit{e}", values)
    return pa.table(columns)


def _part(name: str, table: pa.Table, about: Mapping[str, Any]) -> Part:
    chosen = table.filter(pc.equal(table["part"], name)).combine_chunks()
    return Part(
        name,
        chosen["sample"].to_numpy(),
        chosen["label"].to_numpy(),
        tuple(_readings(chosen, f"exit{e}") for e in range(int(about["exits"]))),
        {
            (int(p["split"]), str(p["codec"])): PairReadings(
                chosen[f"split{p['split']}.{p['codec']}.bytes"].to_numpy(),
                {int(e): _readings(chosen, f"split{p['split']}.{p['codec']}.exit{e}") for e in p["exits"]},
                bool(p["lossless"]),
                bool(p.get("refers")),
            )
            for p in about["pairs"]
        },
        np.array(chosen["context"].to_pylist(), np.str_) if "context" in table.column_names else None,
    )


def _readings(table: pa.Table, prefix: str) -> ExitReadings:
    prediction, max_prob, entropy, margin = (table[f"{prefix}.{name}"].to_numpy() for name in MEASURES)
    logits, learned, there = None, None, set(table.column_names)
    if f"{prefix}.logits" in there:
        logits = table[f"{prefix}.logits"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    if f"{prefix}.confidence" in there:
        learned = table[f"{prefix}.confidence"].to_numpy()
    return ExitReadings(prediction, max_prob, entropy, margin, logits, learned)
