"""Recording what a trained network says of every sample of a real data set, alone and behind every codec.

Samples run one at a time on one thread, because batches change both payloads and last bits. The work is cut into
chunks that are kept on disk until the recording is written, so an interruption loses one chunk for each worker.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from splitexit import codecs as codec_zoo
from splitexit.bundle import Bundle, ModelSpec
from splitexit.calibration import Pair
from splitexit.errors import UsageError
from splitexit.models import codecs, data
from splitexit.models.runtime import Runtime, one_thread
from splitexit.recording import ExitReadings, PairReadings, Part, Recording

Array = np.ndarray[Any, Any]
Progress = Callable[[int, int], None]
CHUNK = 100
INPUT_CODECS = ("image", "png", "jpeg", "jpeg:headers=false", "jpeg:headers=false,quality=50")
FEATURE_CODECS = ("raw", "fp16", "uint8")


@dataclass(frozen=True)
class Task:
    """What a worker needs to know: the bundle, the pairs, and whether all edge exits are read or the final one."""

    bundle: Path
    pairs: tuple[Pair, ...]
    all_edge_exits: bool = False

    def edge_exits(self, spec: ModelSpec, split: int) -> tuple[int, ...]:
        """The exits that the edge reads on decoded features."""
        return spec.exits_after(split) if self.all_edge_exits else (spec.final_exit,)


class Recorder:
    """Runs single samples through the network and through every pair of a task."""

    def __init__(self, task: Task) -> None:
        bundle = Bundle.open(task.bundle)
        self.task, self.runtime = task, Runtime(bundle)
        self.codecs = codecs.open_codecs(bundle, task.pairs)

    def run(self, images: Array) -> dict[str, Array]:
        """`exits` (n, E, K) logits; for pair number i `bytes<i>` (n,), and `logits<i>` (n, edge exits, K) if lossy.

        Args:
            images: uint8 (n, H, W, C).
        """
        rows = [self._sample(data.to_pixels(image)) for image in images]
        return {key: np.stack([row[key] for row in rows]) for key in rows[0]}

    def _sample(self, image: Array) -> dict[str, Array]:
        spec, runtime = self.runtime.spec, self.runtime
        features = [image]
        for stage in range(spec.num_stages):
            features.append(runtime.run_stages(features[-1], stage, stage + 1))
        logits = [runtime.read_exit(features[at], e) for e, at in enumerate(spec.exit_stages)]
        row = {"exits": np.stack(logits)}
        for number, pair in enumerate(self.task.pairs):
            payload = self.codecs[pair].encode(features[pair[0]])
            row[f"bytes{number}"] = np.array(len(payload), np.uint32)
            if not self.codecs[pair].lossless:
                row[f"logits{number}"] = self._edge(payload, pair)
        return row

    def _edge(self, payload: bytes, pair: Pair) -> Array:
        """What the edge says of a payload: (edge exits, K)."""
        exits = self.task.edge_exits(self.runtime.spec, pair[0])
        answers = self.runtime.exits_from(self.codecs[pair].decode(payload), pair[0], exits)
        return np.stack([answers[e] for e in exits])


@lru_cache(maxsize=1)
def _recorder(task: Task) -> Recorder:
    """A worker loads the network once, not for every chunk."""
    return Recorder(task)


def _run_chunk(task: Task, images: Array, file: Path) -> int:
    """In a worker: records one chunk into `file`; returns how many samples that were."""
    with one_thread():
        arrays = _recorder(task).run(images)
    partial_file = file.with_suffix(".partial")
    with partial_file.open("wb") as opened:
        np.savez(opened, **arrays)  # type: ignore[arg-type]  # numpy's stubs take the names for options
    partial_file.replace(file)
    return len(images)


def default_pairs(bundle: Bundle) -> list[Pair]:
    """Image codecs at split 0; raw, fp16, uint8 and every bottleneck that the bundle has at the others."""
    inner = [(split, codec) for split in range(1, bundle.spec.num_stages) for codec in FEATURE_CODECS]
    return [*((0, codec) for codec in INPUT_CODECS), *inner, *sorted(codecs.read(bundle))]


def parse_pair(text: str, bundle: Bundle) -> list[Pair]:
    """`codec@split` or `codec@all`; raises UsageError or InputError."""
    codec_id, at, split = text.rpartition("@")
    codec_id = codec_zoo.canonical(codec_id) if at else ""
    stages = bundle.spec.num_stages
    if split == "all" and at:
        return [(s, codec_id) for s in range(1, stages)]
    if not at or not split.isdecimal() or int(split) >= stages:
        raise UsageError(f"--pair {text!r}: expected codec@split with a split of 0..{stages - 1}, or codec@all")
    return [(int(split), codec_id)]


@dataclass(frozen=True)
class Samples:
    """One part's images, with the number each has in its data set and where they are from."""

    part: str
    images: data.ImageSet
    numbers: Array

    def head(self, count: int) -> Samples:
        """The first `count` of them."""
        chosen = np.arange(min(count, len(self.images)))
        return Samples(self.part, self.images.take(chosen), self.numbers[chosen])

    def describe(self) -> dict[str, Any]:
        """For the recording's metadata."""
        return {"source": self.images.origin, "sha256": self.images.sha256, "samples": len(self.images)}


def read_parts(bundle: Bundle, train: str, test: str, limit: int | None = None) -> list[Samples]:
    """The calibration part, which is the validation split of the training images, and the test part.

    Args:
        limit: only the first so many of each. Raises DataError, or UsageError for other training images.
    """
    _, validation, numbers = data.parted(bundle.spec, train)
    recipe = bundle.spec.training.get("recipe", {})
    images = data.read(test, "test", channels=bundle.spec.input_shape[0], resize=recipe.get("resize"))
    if images.shape != bundle.spec.input_shape:
        raise UsageError(f"{test}: images of {images.shape}, the network takes {bundle.spec.input_shape}")
    parts = [Samples("calibration", validation, numbers), Samples("test", images, np.arange(len(images)))]
    return parts if limit is None else [part.head(limit) for part in parts]


def record(
    bundle: Bundle,
    parts: Sequence[Samples],
    pairs: Sequence[Pair],
    *,
    all_edge_exits: bool = False,
    keep_logits: bool = False,
    fresh: bool = False,
    workers: int = 1,
    command: str = "",
    progress: Progress = lambda done, total: None,
) -> Recording:
    """Records `parts` and writes recording.parquet; pairs that are recorded already are kept.

    Pairs whose codec was trained again, or that lack edge exits now asked for, are recorded again. Raises
    InputError for pairs that do not fit, and UsageError where the present recording is of other weights, images
    or options, unless `fresh` says to replace it. KeyboardInterrupt leaves what is done for the next call.
    """
    made: dict[str, Any] = {
        "command": command,
        "digests": bundle.digests(),
        "data": {samples.part: samples.describe() for samples in parts},
        "logits": keep_logits,
    }
    kept = {} if fresh else _kept(bundle, made)
    task = Task(bundle.path, (), all_edge_exits)
    task = replace(task, pairs=tuple(sorted(set(pairs) - _complete(task, bundle, kept))))
    codecs.open_codecs(bundle, task.pairs)  # says what is wrong before any work is done
    arrays = _run(task, parts, made, workers, progress)
    recorded = {s.part: _part(task, bundle, s, arrays[s.part], keep_logits) for s in parts}
    for name, part in kept.items():
        recorded[name].pairs = {**part.pairs, **recorded[name].pairs}
    made["codecs"] = _codec_digests(bundle, recorded["test"].pairs)
    recording = Recording(recorded, bundle.spec.num_classes, made)
    recording.save(bundle.recording)
    shutil.rmtree(_folder(bundle.path))
    return recording


def _complete(task: Task, bundle: Bundle, kept: Mapping[str, Part]) -> set[Pair]:
    """The pairs of `kept` that hold every edge exit that the task asks for."""
    pairs = kept["test"].pairs if kept else {}
    return {
        pair
        for pair, readings in pairs.items()
        if readings.lossless or set(task.edge_exits(bundle.spec, pair[0])) <= readings.exits.keys()
    }


def _codec_digests(bundle: Bundle, pairs: Iterable[Pair]) -> dict[str, str]:
    """`codec@split` -> digest of its weights, for the learned ones among `pairs`."""
    tensors = codecs.read(bundle)
    return {f"{c}@{s}": codecs.digest(tensors[s, c]) for s, c in sorted(pairs) if (s, c) in tensors}


def _kept(bundle: Bundle, made: Mapping[str, Any]) -> dict[str, Part]:
    """The parts of the present recording, without pairs of codecs that have other weights by now."""
    if not bundle.recording.exists():
        return {}
    present = Recording.load(bundle.recording)
    weights = [m.get("digests", {}).get("model.safetensors") for m in (present.made, made)]
    other = [key for key in ("data", "logits") if present.made.get(key) != made[key]]
    if other or weights[0] != weights[1]:
        raise UsageError(
            f"{bundle.recording}: made with other {other[0] if other else 'weights'}; "
            "give the same options to add to it, or --fresh to replace it"
        )
    was, now = present.made.get("codecs", {}), _codec_digests(bundle, present.test.pairs)
    stale = {key for key in was if was[key] != now.get(key)}
    return {
        name: replace(part, pairs={(s, c): r for (s, c), r in part.pairs.items() if f"{c}@{s}" not in stale})
        for name, part in present.parts.items()
    }


def _folder(bundle: Path) -> Path:
    return bundle / "recording.chunks"


def _run(
    task: Task, parts: Sequence[Samples], made: Mapping[str, Any], workers: int, progress: Progress
) -> dict[str, dict[str, Array]]:
    """Records all chunks that are not on disk yet; returns the arrays of every part."""
    folder = _folder(task.bundle)
    folder.mkdir(exist_ok=True)
    about = json.dumps([made["digests"], made["data"], task.pairs, task.all_edge_exits, CHUNK])
    tag = hashlib.sha256(about.encode()).hexdigest()[:16]
    files: dict[str, list[Path]] = {}
    jobs = []
    for samples in parts:
        for start in range(0, len(samples.images), CHUNK):
            file = folder / f"{tag}-{samples.part}-{start}.npz"
            files.setdefault(samples.part, []).append(file)
            if not file.exists():
                jobs.append(partial(_run_chunk, task, samples.images.images[start : start + CHUNK], file))
    total = sum(len(samples.images) for samples in parts)
    done = total - sum(len(job.args[1]) for job in jobs)
    progress(done, total)
    for count in _work(jobs, workers):
        done += count
        progress(done, total)
    return {part: _join(chunks) for part, chunks in files.items()}


def _join(files: Iterable[Path]) -> dict[str, Array]:
    chunks = [np.load(file) for file in files]
    return {key: np.concatenate([chunk[key] for chunk in chunks]) for key in chunks[0].files}


def _work(jobs: Sequence[Callable[[], int]], workers: int) -> Iterator[int]:
    """The results of all jobs as they come: here where `workers` is 1, else in so many processes."""
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            yield job()
        return
    pool = ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn"), _ignore_interrupts)
    try:
        for future in as_completed([pool.submit(job) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C reaches every process of the terminal; the workers finish their chunk and the first one says why."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _part(task: Task, bundle: Bundle, samples: Samples, arrays: Mapping[str, Array], keep: bool) -> Part:
    exits = arrays["exits"]
    pairs = {}
    for number, (split, codec) in enumerate(task.pairs):
        logits = arrays.get(f"logits{number}")
        edge = () if logits is None else enumerate(task.edge_exits(bundle.spec, split))
        readings = {e: ExitReadings.of_logits(logits[:, i], keep) for i, e in edge}  # type: ignore[index]
        pairs[split, codec] = PairReadings(arrays[f"bytes{number}"], readings, lossless=logits is None)
    device = tuple(ExitReadings.of_logits(exits[:, e], keep) for e in range(exits.shape[1]))
    return Part(samples.part, samples.numbers, samples.images.labels, device, pairs)


def write_samples(bundle: Bundle, test: Samples, count: int) -> None:
    """The first `count` test images as samples.parquet, which live runs classify.

    As PNG of the very pixels that are recorded, because other builds of libjpeg decode a JPEG to other pixels.
    """
    first = test.images.take(np.arange(min(count, len(test.images))))
    columns = {
        "image": pa.array([{"bytes": _png(image), "path": None} for image in first.images]),
        "label": pa.array(first.labels),
        "sample": pa.array(test.numbers[: len(first)]),
    }
    table = pa.table(columns).replace_schema_metadata({"class_names": json.dumps(first.class_names)})
    pq.write_table(table, bundle.samples, compression="zstd", use_dictionary=False)


def _png(image: Array) -> bytes:
    file = BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "PNG", optimize=True)
    return file.getvalue()


def all_cores() -> int:
    """How many processes may compute at once here."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
