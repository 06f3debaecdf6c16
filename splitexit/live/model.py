"""A model with its codecs, as either end runs it: one sample at a time, on one thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from splitexit.bundle import Bundle, ModelSpec
from splitexit.calibration import Pair
from splitexit.codecs import Codec
from splitexit.confidence import reading
from splitexit.decision import Reading

Array = np.ndarray[Any, Any]


class Net(Protocol):
    """What computes: splitexit.models.runtime.Runtime, or something of its shape."""

    def run_stages(self, features: Array, first: int, last: int) -> Array:
        """Stages first+1..last on one sample: float32 C×H×W -> float32 C'×H'×W'."""

    def read_exit(self, features: Array, exit_: int) -> Array:
        """Logits (num_classes,) of one exit."""


@dataclass(frozen=True)
class LiveModel:
    """What answers the steps of `splitexit.inference` by computing.

    codecs   for every (split, codec id) on offer
    digests  sha256 of the files that decide what it answers
    """

    spec: ModelSpec
    net: Net
    codecs: Mapping[Pair, Codec]
    digests: Mapping[str, str]

    @classmethod
    def open(cls, bundle: Bundle, pairs: Iterable[Pair]) -> LiveModel:
        """Loads the weights and the codecs of these pairs; raises ArtifactError or InputError."""
        from splitexit.models.codecs import open_codecs
        from splitexit.models.runtime import Runtime

        return cls(bundle.spec, Runtime(bundle), open_codecs(bundle, pairs), bundle.digests())

    def read(self, features: Array, exit_: int) -> Reading:
        """What one exit says, with its logits."""
        return reading(exit_, self.net.read_exit(features, exit_))


def use_one_thread() -> None:
    """Makes torch compute on one thread in this process, and in the calling thread whatever it did before."""
    import torch

    torch.set_num_threads(1)
