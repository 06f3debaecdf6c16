"""Images under distortions: noise and blur, the same pixels wherever they are made.

I-SplitEE (arXiv 2401.10541) streams a test set under Gaussian noise of σ 0.5 to 3 and blur of 0.5 to 1. Its program was
not published with the distortions; inferred here: noise is added to the normalised image, that is σ standard deviations
of the training images' channel; blur is a Gaussian kernel with σ in pixels; a camera hands on 8 bits, so what comes out
is rounded and clipped to 0..255. The noise of an image is drawn from its number, so that a device can make it again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from splitexit.errors import ArtifactError, UsageError
from splitexit.models.data import ImageSet

Array = np.ndarray[Any, Any]
KINDS = ("noise", "blur")


def parse(text: str) -> str:
    """`noise=1.5` or `blur=0.75` in its one form, which is the name of the context; raises UsageError."""
    kind, _, value = text.partition("=")
    try:
        sigma = float(value)
    except ValueError:
        sigma = math.nan
    if kind not in KINDS or not 0.0 < sigma < math.inf:
        raise UsageError(f"--distort {text!r}: expected noise=SIGMA or blur=SIGMA with a SIGMA above 0, e.g. noise=1.5")
    return f"{kind}={sigma:g}"


@dataclass(frozen=True)
class Distortions:
    """What a recording's samples are repeated under.

    contexts  such as noise=1.5, each of them once
    std       of the pixels in [0, 1], one for every channel: what the network divides by
    stride    the copy under context k (from 0) of the sample with number n has the number n + (k + 1)·stride
    """

    contexts: tuple[str, ...]
    std: tuple[float, ...]
    stride: int

    @classmethod
    def of_made(cls, made: Mapping[str, Any]) -> Distortions | None:
        """Of a recording's metadata; None where it has no distorted copies. Raises ArtifactError."""
        found = made.get("distort")
        if found is None:
            return None
        try:
            contexts = tuple(parse(str(context)) for context in found["contexts"])
            return cls(contexts, tuple(map(float, found["std"])), int(found["stride"]))
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise ArtifactError(
                f"the recording's distortions cannot be read ({error}); run `splitexit record`"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """For the metadata."""
        return {"contexts": list(self.contexts), "std": list(self.std), "stride": self.stride}

    def repeat(self, images: ImageSet, numbers: Sequence[int] | Array) -> tuple[ImageSet, Array]:
        """The images, then the same under every context; and the numbers of all."""
        own, copies = np.asarray(numbers, np.int64), 1 + len(self.contexts)
        pixels = [
            distort(image, context, int(number), self.std)
            for context in self.contexts
            for image, number in zip(images.images, own, strict=True)
        ]
        every = np.concatenate([images.images, np.stack(pixels)])
        found = replace(images, images=every, labels=np.tile(images.labels, copies))
        return found, np.concatenate([own + copy * self.stride for copy in range(copies)])

    def names(self, count: int) -> Array:
        """The contexts of `count` samples and their copies; "" of the samples themselves."""
        return np.repeat(np.array(["", *self.contexts]), count)


def distort(image: Array, context: str, number: int, std: Sequence[float]) -> Array:
    """One image under a distortion: uint8 H×W×C to the same.

    Args:
        number: of the image in its data set, from which its noise is drawn.
        std: see Distortions.
    """
    kind, _, value = context.partition("=")
    sigma, pixels = float(value), image.astype(np.float64)
    if kind == "noise":
        rng = np.random.default_rng(np.random.SeedSequence(number, spawn_key=(round(1000 * sigma),)))
        pixels += 255.0 * sigma * np.asarray(std) * rng.standard_normal(pixels.shape)
    else:
        from scipy.ndimage import gaussian_filter

        pixels = gaussian_filter(pixels, sigma=(sigma, sigma, 0.0))
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
