"""Every codec at every split on the same test images: payload bytes, accuracy of the final exit behind it, time.

A run folder keeps one file for each (split, codec) that is finished, named by a digest of everything that decides its
figures: weights, tensors of the codec, images, machine. The same command goes on where it was stopped.

Payloads are always of single samples, encoded and decoded one after another on one thread, back to back: a live
request, which comes to colder caches, takes longer. The network runs on batches in front of the codec and behind it,
whose rounding differs from that of single samples in the last bits (`splitexit.models.runtime`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
import zstandard

from splitexit import codecs as zoo
from splitexit.bench.codecs_show import EXPLAINED
from splitexit.bench.rates import compared, verdict
from splitexit.bench.score import difference
from splitexit.bundle import Bundle, ModelSpec
from splitexit.calibration import Pair
from splitexit.codecs import Codec, FittedCodec, Tensors
from splitexit.errors import InputError
from splitexit.models import codecs, data, multi_exit
from splitexit.models.calibrate import describe_machine
from splitexit.models.fit_codec import Features
from splitexit.models.multi_exit import MultiExitNet
from splitexit.models.runtime import one_thread
from splitexit.report.folder import to_json

Array = np.ndarray[Any, Any]
Document = dict[str, Any]
Say = Callable[[str], None]
Progress = Callable[[int, int], None]

FORMAT = 1
"""Of a row; to be raised with every change of what is in it, so that rows that are kept are made again."""

SEED = 0
"""Of the bootstrap."""

BATCH = 200
KEPT_BYTES = 1 << 30
"""Features of a split that take no more are kept for all its codecs; others are computed for each."""

REFERENCE_LEVEL = 3
"""Of Zstandard on the fp32 bytes: what a codec of features should be faster than."""


@dataclass(frozen=True)
class Images:
    """What is measured: `test`; what codecs are fitted on: `fit`; and what a reader should know of them: `notes`."""

    test: data.ImageSet
    fit: data.ImageSet
    notes: tuple[str, ...] = ()


@dataclass
class Passed:
    """What came of samples on their way through a codec."""

    sizes: list[int] = field(default_factory=list)
    encode_s: list[float] = field(default_factory=list)
    decode_s: list[float] = field(default_factory=list)

    def through(self, encode: Callable[[Array], bytes], decode: Callable[[bytes], Any], features: Array) -> list[Any]:
        """Every sample of N×C×H×W encoded and decoded, with both timed."""
        decoded = []
        with one_thread():
            for sample in features:
                start = perf_counter()
                payload = encode(sample)
                between = perf_counter()
                decoded.append(decode(payload))
                self.decode_s.append(perf_counter() - between)
                self.encode_s.append(between - start)
                self.sizes.append(len(payload))
        return decoded

    def figures(self, fp32_bytes: int) -> Document:
        """Means and medians; MB/s (10^6 bytes) are of fp32 features, `mb_s` through both."""
        encode, decode = float(np.median(self.encode_s)), float(np.median(self.decode_s))
        mean = float(np.mean(self.sizes))
        return {
            "bytes": mean,
            "bytes_p95": float(np.percentile(self.sizes, 95)),
            "fp32_ratio": fp32_bytes / mean,
            "encode_ms": 1e3 * encode,
            "decode_ms": 1e3 * decode,
            "encode_mb_s": fp32_bytes / encode / 1e6,
            "decode_mb_s": fp32_bytes / decode / 1e6,
            "mb_s": fp32_bytes / (encode + decode) / 1e6,
        }


class Split:
    """The network cut at one split, with the test images that go through it.

    plain  (n,) predictions of the uncompressed network
    """

    def __init__(self, net: MultiExitNet, images: Images, split: int) -> None:
        self.net, self.images, self.split = net, images, split
        channels, height, width = net.spec.shape_at(split)
        self.shape = (channels, height, width)
        self.fp32_bytes = 4 * channels * height * width
        self._device = next(net.parameters()).device
        self._kept: dict[int, Array] = {}

    def chunks(self) -> Iterator[Array]:
        """Features of all test images, float32 N×C×H×W, in batches."""
        keep = len(self.images.test) * self.fp32_bytes <= KEPT_BYTES
        for start in range(0, len(self.images.test), BATCH):
            features = self._kept[start] if start in self._kept else self._front(start)
            if keep:
                self._kept[start] = features
            yield features

    @torch.inference_mode()
    def _front(self, start: int) -> Array:
        pixels = torch.from_numpy(self.images.test.images[start : start + BATCH]).to(self._device)
        features: Array = self.net.run_stages(pixels.permute(0, 3, 1, 2).float() / 255, 0, self.split).cpu().numpy()
        return np.ascontiguousarray(features)

    @torch.inference_mode()
    def answers(self, features: Array) -> Array:
        """What the final exit says to features at the split: (N,) classes."""
        spec = self.net.spec
        end = self.net.run_stages(torch.from_numpy(features).to(self._device), self.split, spec.num_stages)
        logits = self.net.read_exit(end, spec.final_exit)[:, : spec.num_classes]
        return np.asarray(logits.argmax(1).cpu().numpy())

    @cached_property
    def plain(self) -> Array:
        """See above."""
        return np.concatenate([self.answers(features) for features in self.chunks()])

    @cached_property
    def to_fit(self) -> tuple[Array, Callable[[], Array]]:
        """What a fitted codec is fitted on: features, and their gradients, computed once."""
        features = Features(self.net, self.images.fit, self.split)
        return features.features, cache(features.gradients)

    def reference(self) -> Document:
        """Zstandard on the fp32 bytes of the first test images, timed as codecs are."""
        passed = Passed()
        passed.through(
            lambda sample: zstandard.ZstdCompressor(level=REFERENCE_LEVEL).compress(sample.tobytes()),
            lambda frame: zstandard.ZstdDecompressor().decompress(frame),
            next(self.chunks()),
        )
        return passed.figures(self.fp32_bytes)


@dataclass(frozen=True)
class CodecBench:
    """Codecs of one bundle, on the same images.

    folder    keeps the rows
    device    where the network runs; codecs always run on the CPU
    say       told, in a line each, what is being done
    progress  called with the rows that are done, and all
    """

    bundle: Bundle
    images: Images
    folder: Path
    device: torch.device
    say: Say = lambda line: None
    progress: Progress = lambda done, total: None

    def run(self, pairs: Sequence[Pair]) -> Iterator[Document]:
        """The rows of all pairs, split by split.

        Raises InputError or ArtifactError for a codec that does not fit its split or has no weights, before any work.
        """
        ordered = sorted(pairs, key=lambda pair: pair[0])
        self.check(ordered)
        done = 0
        for split, of_split in groupby(ordered, key=lambda pair: pair[0]):
            codec_ids = [codec_id for _, codec_id in of_split]
            self.say(f"split {split}: {len(codec_ids)} codecs on {len(self.images.test)} images")
            at = Split(self._net, self.images, split)
            for codec_id in codec_ids:
                yield self._row(at, codec_id)
                done += 1
                self.progress(done, len(ordered))

    def document(self, rows: Sequence[Document], command: str) -> Document:
        """Everything for tables and pictures, as plain data; `rows` are those of `run`."""
        spec, found = self.bundle.spec, compared(rows)
        return {
            "bundle": str(self.bundle.path),
            "name": spec.name,
            "weights_sha256": spec.weights_sha256,
            "macs": spec.macs,
            "command": command,
            "seed": SEED,
            "machine": self._machine,
            "test": _described(self.images.test),
            "fit": _described(self.images.fit),
            "notes": list(self.images.notes),
            "explained": list(EXPLAINED),
            "plain_accuracy": rows[0]["plain_accuracy"],
            "splits": [self._split(number) for number in sorted({row["split"] for row in rows})],
            "rows": found,
            "verdict": verdict(found),
            "run": str(self.folder),
        }

    def _split(self, number: int) -> Document:
        """What is known of a split apart from codecs."""
        at = Split(self._net, self.images, number)
        return {
            "split": number,
            "shape": list(at.shape),
            "fp32_bytes": at.fp32_bytes,
            "device_share": device_macs(self.bundle.spec, number) / self.bundle.spec.macs,
            f"zstd{REFERENCE_LEVEL}": at.reference(),
        }

    def check(self, pairs: Sequence[Pair]) -> None:
        """Opens every codec; those that are yet to be fitted are tried on zeros."""
        for split, codec_id in pairs:
            if self._to_fit(split, codec_id):
                zeros = np.zeros((2, *self.bundle.spec.shape_at(split)), np.float32)
                try:
                    self._open(split, codec_id, _fitted(codec_id, zeros, zeros.copy))
                except InputError as error:
                    raise InputError(f"{error} (split {split})") from error
        codecs.open_codecs(self.bundle, [pair for pair in pairs if not self._to_fit(*pair)])

    @cached_property
    def _net(self) -> MultiExitNet:
        return multi_exit.load(self.bundle).to(self.device).requires_grad_(False)

    @cached_property
    def _tensors(self) -> Mapping[Pair, Tensors]:
        return codecs.read(self.bundle)

    @cached_property
    def _machine(self) -> Document:
        return describe_machine() | {"network": self.device.type}

    def _to_fit(self, split: int, codec_id: str) -> bool:
        """Whether the codec is fitted here; those that the bundle holds are taken as they are."""
        return issubclass(zoo.load(codec_id), FittedCodec) and (split, codec_id) not in self._tensors

    def _row(self, at: Split, codec_id: str) -> Document:
        """One row, as it is kept or measured now."""
        what = self._about(at.split, codec_id)
        name = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
        file = self.folder / "rows" / f"s{at.split}-{name}.json"
        if not file.exists():
            row = self._measured(at, codec_id)
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(".partial")
            partial.write_text(to_json({"about": what, "row": row}) + "\n", encoding="utf-8")
            partial.replace(file)
        return dict(json.loads(file.read_text(encoding="utf-8"))["row"])

    def _about(self, split: int, codec_id: str) -> Document:
        """Everything that decides a row's figures."""
        tensors = self._tensors.get((split, codec_id))
        return {
            "format": FORMAT,
            "weights": self.bundle.spec.weights_sha256,
            "split": split,
            "codec": codec_id,
            "tensors": None if tensors is None else codecs.digest(tensors),
            "fit": self.images.fit.sha256 if self._to_fit(split, codec_id) else None,
            "test": self.images.test.sha256,
            "machine": self._machine,
        }

    def _measured(self, at: Split, codec_id: str) -> Document:
        fit = self._to_fit(at.split, codec_id)
        tensors = _fitted(codec_id, *at.to_fit) if fit else self._tensors.get((at.split, codec_id))
        codec, passed = self._open(at.split, codec_id, tensors), Passed()
        answers = [
            at.answers(np.stack(passed.through(codec.encode, codec.decode, features))) for features in at.chunks()
        ]
        labels, spec = self.images.test.labels, self.bundle.spec
        right, plain = np.concatenate(answers) == labels, at.plain == labels
        return {
            "split": at.split,
            "codec": codec_id,
            "family": zoo.parse(codec_id)[0],
            "input": codec.input_only,
            "tensors": "fitted here" if fit else "bundle" if codec.learned else None,
            "images": len(labels),
            "fp32_bytes": at.fp32_bytes,
            **passed.figures(at.fp32_bytes),
            "accuracy": 100.0 * float(right.mean()),
            "plain_accuracy": 100.0 * float(plain.mean()),
            "difference": difference(right, plain, SEED),
            "encoder_macs": codec.encoder_macs,
            "device_share": (device_macs(spec, at.split) + codec.encoder_macs) / spec.macs,
        }

    def _open(self, split: int, codec_id: str, tensors: Tensors | None) -> Codec:
        channels, height, width = self.bundle.spec.shape_at(split)
        return zoo.create(codec_id, shape=(channels, height, width), tensors=tensors)


def device_macs(spec: ModelSpec, split: int) -> int:
    """What the stages in front of a split cost, without heads."""
    return sum(stage.macs for stage in spec.stages[:split])


def _fitted(codec_id: str, features: Array, gradients: Callable[[], Array]) -> Tensors:
    kind, (_, params) = zoo.load(codec_id), zoo.parse(codec_id)
    assert issubclass(kind, FittedCodec)
    return kind.fit(features, gradients, **params)


def _described(images: data.ImageSet) -> Document:
    return {"source": images.origin, "sha256": images.sha256, "images": len(images)}
