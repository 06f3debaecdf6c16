"""A trained network as the device and the edge run it: one thread, numpy in and out.

Recordings, calibrations and live runs all go through this file, so that they compute the same bits: at batch 1,
on one thread, without autocast, a network that is cut at any split answers what the whole network answers.
Several samples in one pass are added up in another order: their logits differ from those at batch 1 by some 1e-7 of
the largest, so that nothing changes but what was as good as undecided.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splitexit.bundle import Bundle, ModelSpec
from splitexit.models import multi_exit

Array = np.ndarray[Any, Any]


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, this process computes on one thread, as the contract of this module asks."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Runtime:
    """The stages and heads of a bundle, on a sample or several of the same shape.

    Args:
        bundle: whose weights are checked against their digest; raises ArtifactError where they do not fit.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._net = multi_exit.load(bundle)

    @property
    def spec(self) -> ModelSpec:
        """What the network looks like."""
        return self._net.spec

    @torch.inference_mode()
    def run_stages(self, features: Array, first: int, last: int) -> Array:
        """Stages first+1..last: float32 C×H×W -> float32 C'×H'×W', or N of them in one pass: N×C×H×W."""
        out: Array = self._net.run_stages(_batch(features), first, last).numpy()
        return out if features.ndim == 4 else out[0]

    @torch.inference_mode()
    def read_exit(self, features: Array, exit_: int, classes: Array | None = None) -> Array:
        """Output of one exit from what its stage put out: (num_classes,) logits, or (N, num_classes) of N.

        A head that learns when to stop adds the logit of its confidence as the last column. Of an additive exit it is
        what it adds to the logits of the one before.

        Args:
            classes: int64 numbers of the n classes that are asked for; then (n,) or (N, n) in their order.
        """
        chosen = None if classes is None else torch.from_numpy(classes)
        logits: Array = self._net.read_exit(_batch(features), exit_, chosen).numpy()
        return logits if features.ndim == 4 else logits[0]

    def exits_from(
        self, features: Array, split: int, exits: tuple[int, ...], before: Array | None = None
    ) -> dict[int, Array]:
        """What these exits say, in ascending order and none in front of `split`; every stage and head runs once.

        Exits behind `split` that an additive one adds to are read as well.

        Args:
            before: what the last exit says that is not behind `split`; an additive exit right behind it adds to that.
        """
        said: dict[int, Array] = {}
        stage, spec = split, self.spec
        needed = {read for exit_ in exits for read in spec.evidence(exit_) if spec.exit_stages[read] > split}
        for exit_ in sorted({*exits, *needed}):
            at = spec.exit_stages[exit_]
            features = self.run_stages(features, stage, at)
            output, stage = self.read_exit(features, exit_), at
            said[exit_] = summed(output, said.get(exit_ - 1, before)) if spec.exits[exit_].additive else output
        return {exit_: said[exit_] for exit_ in exits}


def summed(output: Array, before: Array | None) -> Array:
    """What an additive exit says; raises ValueError where nobody read the exit before it."""
    if before is None:
        raise ValueError("an additive exit needs what the exit before it says")
    return np.asarray(output + before)


def _batch(features: Array) -> Tensor:
    tensor = torch.from_numpy(features)
    return tensor if features.ndim == 4 else tensor.unsqueeze(0)
