"""Fitting the codecs that need no training, only statistics of features: ranges, tables, the channels that matter.

Features and gradients are those of the frozen network on the bundle's validation split, which is what recordings call
the calibration split; never of the test set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from splitexit import codecs as zoo
from splitexit.bundle import Bundle
from splitexit.codecs import FittedCodec
from splitexit.errors import UsageError
from splitexit.models import codecs, data, multi_exit
from splitexit.models.evaluate import pick_device
from splitexit.models.multi_exit import MultiExitNet
from splitexit.models.train_codec import CodecReport, accuracy_through, report

Array = np.ndarray[Any, Any]

IMAGES = 1000
"""How many images are enough: a table per channel then comes of 64,000 values where a map has 8x8."""

BATCH = 100


def is_fitted(codec_id: str) -> bool:
    """Whether this codec is fitted here, not trained; raises as `splitexit.codecs.parse`."""
    return issubclass(zoo.load(codec_id), FittedCodec)


def fit_codec(
    bundle: Bundle, codec_id: str, splits: list[int], *, source: str, images: int = IMAGES, device: str = "auto"
) -> Iterator[CodecReport]:
    """Fits the codec at every split in turn, writes its tensors into the bundle and reports on it.

    The report is on the whole validation split, of which the fit has seen the first `images`.

    Args:
        source: the training images of the bundle, which the validation split is taken from.

    Raises DataError, InputError or UsageError for wrong input. What is finished is in the bundle.
    """
    codec_id, (_, params) = zoo.canonical(codec_id), zoo.parse(codec_id)
    kind = zoo.load(codec_id)
    if not issubclass(kind, FittedCodec):
        raise UsageError(f"codec {codec_id!r} is not fitted; give range:bits=4 or the like")
    net = multi_exit.load(bundle).to(pick_device(device)).requires_grad_(False)
    _, validation, _ = data.parted(bundle.spec, source)
    seen = validation.take(np.arange(min(images, len(validation))))
    plain = None
    for split in splits:
        if plain is None:
            plain = accuracy_through(net, validation, split, None)
        at = Features(net, seen, split)
        group = kind.fit(at.features, at.gradients, **params)
        made = codecs.made(bundle) | {f"{codec_id}/s{split}": {"images": len(seen), "fitted on": "validation split"}}
        codecs.write(bundle, codecs.read(bundle) | {(split, codec_id): group}, made)
        yield report(bundle, net, (split, codec_id), validation, plain)


@dataclass(frozen=True)
class Features:
    """What the network makes of images at one split: what `FittedCodec.fit` is given."""

    net: MultiExitNet
    images: data.ImageSet
    split: int

    @cached_property
    def features(self) -> Array:
        """float32 n×C×H×W."""
        return torch.cat([self._at_split(start) for start in self._starts()]).cpu().numpy()

    def gradients(self) -> Array:
        """Of the cross entropy of the final exit, each sample's own, by the features; same shape."""
        return torch.cat([self._gradient(start) for start in self._starts()]).cpu().numpy()

    def _starts(self) -> range:
        return range(0, len(self.images), BATCH)

    @torch.no_grad()
    def _at_split(self, start: int) -> Tensor:
        pixels = torch.from_numpy(self.images.images[start : start + BATCH]).to(next(self.net.parameters()).device)
        return self.net.run_stages(pixels.permute(0, 3, 1, 2).float() / 255, 0, self.split)

    def _gradient(self, start: int) -> Tensor:
        features = self._at_split(start).requires_grad_()
        spec = self.net.spec
        logits = self.net.read_exit(self.net.run_stages(features, self.split, spec.num_stages), spec.final_exit)
        labels = torch.from_numpy(self.images.labels[start : start + BATCH]).to(logits.device).long()
        loss = F.cross_entropy(logits, labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, features)
        return gradient
