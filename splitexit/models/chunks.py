"""The work of a recording: samples through network and codecs, in chunks that survive an interruption.

Samples run one at a time on one thread, because batches change both payloads and last bits.
"""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from splitexit.bundle import Bundle, ModelSpec
from splitexit.calibration import Pair
from splitexit.models import codecs, data
from splitexit.models.runtime import Runtime, one_thread, summed

Array = np.ndarray[Any, Any]
Progress = Callable[[int, int], None]
CHUNK = 100
LAYOUT = 2
"""Of the arrays in a chunk's file; another number for another layout, so that no older file is taken for one."""


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
        """What the exits say, (n, width of the head): `exit<e>`, and `pair<i>.exit<e>` behind a lossy pair i.

        Behind a pair, an additive exit adds to what the device's exits up to the split said of the same sample.

        Args:
            images: uint8 (n, H, W, C).

        Payload bytes (n,) of pair number i are `bytes<i>`.
        """
        rows = [self._sample(data.to_pixels(image)) for image in images]
        return {key: np.stack([row[key] for row in rows]) for key in rows[0]}

    def _sample(self, image: Array) -> dict[str, Array]:
        spec, runtime = self.runtime.spec, self.runtime
        features = [image]
        for stage in range(spec.num_stages):
            features.append(runtime.run_stages(features[-1], stage, stage + 1))
        said = self._device(features)
        row = {f"exit{e}": output for e, output in enumerate(said)}
        for number, pair in enumerate(self.task.pairs):
            payload = self.codecs[pair].encode(features[pair[0]])
            row[f"bytes{number}"] = np.array(len(payload), np.uint32)
            if not self.codecs[pair].lossless:
                row |= {f"pair{number}.exit{e}": output for e, output in self._edge(payload, pair, said).items()}
        return row

    def _device(self, features: Sequence[Array]) -> list[Array]:
        """What every exit says, from the features behind every number of stages."""
        said: list[Array] = []
        for exit_, of in enumerate(self.runtime.spec.exits):
            output = self.runtime.read_exit(features[of.stage], exit_)
            said.append(summed(output, said[-1]) if of.additive else output)
        return said

    def _edge(self, payload: bytes, pair: Pair, said: Sequence[Array]) -> dict[int, Array]:
        """What the edge's exits say of a payload, by exit."""
        spec, split = self.runtime.spec, pair[0]
        exits, first = self.task.edge_exits(spec, split), spec.exits_after(split)[0]
        return self.runtime.exits_from(
            self.codecs[pair].decode(payload), split, exits, said[first - 1] if first else None
        )


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


def folder(bundle: Path) -> Path:
    """Where chunks wait until the recording is written."""
    return bundle / "recording.chunks"


def run(
    task: Task, images: Mapping[str, Array], about: Any, workers: int, progress: Progress
) -> dict[str, dict[str, Array]]:
    """Runs all samples that are not on disk yet; for every part, what Recorder.run gives for all its samples.

    Args:
        images: by part, uint8 (n, H, W, C).
        about: JSON that differs where other chunks are meant: digests of weights and images.
        progress: called with the samples done, and all.
    """
    folder(task.bundle).mkdir(exist_ok=True)
    tag = hashlib.sha256(json.dumps([LAYOUT, about, task.pairs, task.all_edge_exits, CHUNK]).encode()).hexdigest()[:16]
    files: dict[str, list[Path]] = {part: [] for part in images}
    jobs = []
    for part, pixels in images.items():
        for start in range(0, len(pixels), CHUNK):
            file = folder(task.bundle) / f"{tag}-{part}-{start}.npz"
            files[part].append(file)
            if not file.exists():
                jobs.append(partial(_run_chunk, task, pixels[start : start + CHUNK], file))
    total = sum(map(len, images.values()))
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
