"""Recording what a trained network says of every sample of a real data set, alone and behind every codec."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from splitexit import codecs as codec_zoo
from splitexit.bundle import Bundle
from splitexit.calibration import Pair
from splitexit.codecs import ReferringCodec
from splitexit.errors import UsageError
from splitexit.models import chunks, codecs, data, multi_exit
from splitexit.models.chunks import Progress, Task
from splitexit.models.distort import Distortions, parse
from splitexit.recording import ExitReadings, PairReadings, Part, Recording

Array = np.ndarray[Any, Any]
INPUT_CODECS = ("image", "png", "jpeg", "jpeg:headers=false", "jpeg:headers=false,quality=50")
FEATURE_CODECS = ("raw", "fp16", "uint8")


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
    """One part's images, with the number each has in its data set and where they are from.

    distortions  what they are repeated under, if they are
    """

    part: str
    images: data.ImageSet
    numbers: Array
    distortions: Distortions | None = None

    def head(self, count: int) -> Samples:
        """The first `count` of them."""
        chosen = np.arange(min(count, len(self.images)))
        return Samples(self.part, self.images.take(chosen), self.numbers[chosen])

    def repeated(self, under: Distortions) -> Samples:
        """These, then the same under every distortion, with numbers of their own."""
        return Samples(self.part, *under.repeat(self.images, self.numbers), under)

    @property
    def context(self) -> Array | None:
        """The distortion of each; None where they are not repeated."""
        under = self.distortions
        return None if under is None else under.names(len(self.numbers) // (1 + len(under.contexts)))

    def describe(self) -> dict[str, Any]:
        """For the recording's metadata."""
        return {"source": self.images.origin, "sha256": self.images.sha256, "samples": len(self.images)}


def read_parts(bundle: Bundle, train: str, test: str, limit: int | None = None) -> list[Samples]:
    """The calibration part, which is the validation split of the training images, and the test part.

    Args:
        limit: only the first so many of each. Raises DataError, or UsageError for other training images.
    """
    _, validation, numbers = data.parted(bundle.spec, train)
    images = data.read_for(bundle.spec, test)
    parts = [Samples("calibration", validation, numbers), Samples("test", images, np.arange(len(images)))]
    return parts if limit is None else [part.head(limit) for part in parts]


def distorted(bundle: Bundle, parts: Sequence[Samples], contexts: Sequence[str]) -> list[Samples]:
    """Every part, then the same under every distortion (`noise=1.5`, `blur=0.75`); raises UsageError for others."""
    names = tuple(dict.fromkeys(map(parse, contexts)))
    if not names:
        return list(parts)
    scale = next(m for m in multi_exit.load(bundle).modules() if isinstance(m, multi_exit.Normalise)).std
    std = tuple(scale.flatten().tolist())
    stride = 1 + max(int(samples.numbers.max()) for samples in parts)
    return [samples.repeated(Distortions(names, std, stride)) for samples in parts]


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
    if parts[0].distortions is not None:
        made["distort"] = parts[0].distortions.to_json()
    kept = {} if fresh else _kept(bundle, made)
    task = Task(bundle.path, (), all_edge_exits)
    task = replace(task, pairs=tuple(sorted(set(pairs) - _complete(task, bundle, kept))))
    codecs.open_codecs(bundle, task.pairs)  # says what is wrong before any work is done
    about = [made["digests"], made["data"]]
    arrays = chunks.run(task, {s.part: s.images.images for s in parts}, about, workers, progress)
    recorded = {s.part: _part(task, bundle, s, arrays[s.part], keep_logits) for s in parts}
    for name, part in kept.items():
        recorded[name].pairs = {**part.pairs, **recorded[name].pairs}
    made["codecs"] = _codec_digests(bundle, recorded["test"].pairs)
    recording = Recording(recorded, bundle.spec.num_classes, made)
    recording.save(bundle.recording)
    shutil.rmtree(chunks.folder(bundle.path))
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
    other = [key for key in ("data", "logits") if _what(present.made.get(key)) != _what(made[key])]
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


def _what(made: Any) -> Any:
    """Of the data, which images they were, wherever they lay."""
    if not isinstance(made, Mapping):
        return made
    return {part: {key: value for key, value in of.items() if key != "source"} for part, of in made.items()}


def _part(task: Task, bundle: Bundle, samples: Samples, arrays: Mapping[str, Array], keep: bool) -> Part:
    spec, pairs = bundle.spec, {}

    def readings(prefix: str, exits: Iterable[int]) -> dict[int, ExitReadings]:
        keys = {e: f"{prefix}exit{e}" for e in exits}
        return {
            e: ExitReadings.of_outputs(arrays[key], spec.num_classes, keep) for e, key in keys.items() if key in arrays
        }

    for number, (split, codec) in enumerate(task.pairs):
        behind = readings(f"pair{number}.", task.edge_exits(spec, split))
        refers = issubclass(codec_zoo.load(codec), ReferringCodec)
        pairs[split, codec] = PairReadings(arrays[f"bytes{number}"], behind, lossless=not behind, refers=refers)
    device = tuple(readings("", range(len(spec.exits))).values())
    return Part(samples.part, samples.numbers, samples.images.labels, device, pairs, samples.context)


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
