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
    def read_exit(self, features: Array, exit_: int) -> Array:
        """Output of one exit from what its stage put out: (num_classes,) logits, or (N, num_classes) of N.

        A head that learns when to stop adds the logit of its confidence as the last column.
        """
        logits: Array = self._net.read_exit(_batch(features), exit_).numpy()
        return logits if features.ndim == 4 else logits[0]

    def exits_from(self, features: Array, split: int, exits: tuple[int, ...]) -> dict[int, Array]:
        """Outputs of these exits, in ascending order and none in front of `split`, every stage run once."""
        logits, stage = {}, split
        for exit_ in exits:
            at = self.spec.exit_stages[exit_]
            features = self.run_stages(features, stage, at)
            logits[exit_], stage = self.read_exit(features, exit_), at
        return logits


def _batch(features: Array) -> Tensor:
    tensor = torch.from_numpy(features)
    return tensor if features.ndim == 4 else tensor.unsqueeze(0)
