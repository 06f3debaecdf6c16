"""A model with its codecs, as either end runs it: on one thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from splitexit.bundle import Bundle, ModelSpec
from splitexit.calibration import Pair
from splitexit.codecs import Codec
from splitexit.confidence import read_output, reading_among, remaining
from splitexit.decision import Reading
from splitexit.errors import PolicyError
from splitexit.live.references import EdgeMemory

Array = np.ndarray[Any, Any]


class Net(Protocol):
    """What computes: splitexit.models.runtime.Runtime, or something of its shape."""

    def run_stages(self, features: Array, first: int, last: int) -> Array:
        """Stages first+1..last: float32 C×H×W -> float32 C'×H'×W', or N of them in one pass: N×C×H×W."""

    def read_exit(self, features: Array, exit_: int, classes: Array | None = None) -> Array:
        """What one exit's head puts out, (width,) or (N, width) of N; see splitexit.confidence.cut.

        Args:
            classes: numbers of the classes that are asked for, (n,) int64; the width is n then.
        """


@dataclass(frozen=True)
class LiveModel:
    """What answers the steps of `splitexit.inference` by computing.

    codecs   for every (split, codec id) on offer
    digests  sha256 of the files that decide what it answers
    memory   what an edge keeps of its devices' tensors
    """

    spec: ModelSpec
    net: Net
    codecs: Mapping[Pair, Codec]
    digests: Mapping[str, str]
    memory: EdgeMemory = field(default_factory=EdgeMemory, compare=False)

    @classmethod
    def open(cls, bundle: Bundle, pairs: Iterable[Pair]) -> LiveModel:
        """Loads the weights and the codecs of these pairs; raises ArtifactError or InputError."""
        from splitexit.models.codecs import open_codecs
        from splitexit.models.runtime import Runtime

        return cls(bundle.spec, Runtime(bundle), open_codecs(bundle, pairs), bundle.digests())

    def decode(self, pair: Pair, device: int, payload: bytes) -> Array:
        """The tensor of a device's payload; raises PayloadError, and of that UnknownReferenceError."""
        return self.memory.decode(self.codecs[pair], pair, device, payload)

    def read(self, features: Array, exit_: int, before: Reading | None = None) -> Reading:
        """What one exit says, with its logits; `before` is the reading before it."""
        return self.read_together([features], exit_, [before])[0]

    def run_together(self, features: Sequence[Array], stage: int) -> list[Array]:
        """The stage with this number (from 0) on several samples, in one pass."""
        out = self.net.run_stages(_stack(features), stage, stage + 1)
        return list(out) if len(features) > 1 else [out]

    def read_together(self, features: Sequence[Array], exit_: int, before: Sequence[Reading | None]) -> list[Reading]:
        """What one exit says of several samples, in one pass; `before` are the readings before it.

        Of the final exit only the classes are computed that are still possible for one of the samples.

        Raises PolicyError for an exit that adds to another one, which was not read.
        """
        masks = [0 if reading is None else reading.ruled_out for reading in before]
        if exit_ == self.spec.final_exit and all(masks):
            return self._read_among(features, exit_, masks)
        outputs = self.net.read_exit(_stack(features), exit_)
        each = outputs if len(features) > 1 else [outputs]
        if self.spec.exits[exit_].additive:
            each = [output + _evidence(exit_, reading) for output, reading in zip(each, before, strict=True)]
        return [read_output(exit_, output, self.spec.num_classes) for output in each]

    def _read_among(self, features: Sequence[Array], exit_: int, masks: Sequence[int]) -> list[Reading]:
        """Tail pruning (arXiv 2309.13443): the last layer without the classes that are ruled out for all."""
        count = self.spec.num_classes
        left = [remaining(ruled_out, count) for ruled_out in masks]
        classes = np.flatnonzero(np.any(left, axis=0))
        outputs = self.net.read_exit(_stack(features), exit_, classes)
        each = outputs if len(features) > 1 else [outputs]
        return [
            reading_among(exit_, output[own[classes]], ruled_out, count)
            for output, own, ruled_out in zip(each, left, masks, strict=True)
        ]


def _evidence(exit_: int, before: Reading | None) -> Array:
    """The logits that an additive exit adds to."""
    if before is None or before.exit != exit_ - 1 or before.logits is None:
        raise PolicyError(f"exit {exit_} adds to what exit {exit_ - 1} says, which was not read just before")
    return before.logits


def _stack(features: Sequence[Array]) -> Array:
    """N×C×H×W; one sample as it is, for the bits of batch 1 and no copy."""
    return np.stack(features) if len(features) > 1 else features[0]


def use_one_thread() -> None:
    """Makes torch compute on one thread in this process, and in the calling thread whatever it did before."""
    import torch

    torch.set_num_threads(1)
