"""Scenes with a label for every pixel, made from two image sets: digits pasted onto photographs.

A task for per-pixel exits that anybody can make again: no segmentation set has to be fetched, and both sides are real
images. Class 0 is the background, class k+1 the digit k.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from splitexit.models.data import ImageSet

Array = np.ndarray[Any, Any]

SIZE = 64
CLASSES = ("background", *"0123456789")
DIGITS, HEIGHTS = (1, 4), (20, 41)
"""How many digits a scene has, and how high they are in pixels: from the first up to, not including, the second."""

INK = 100
"""Grey value from which a pixel of a digit is ink; some 19 % of MNIST's pixels are brighter than 0."""


@dataclass(frozen=True)
class Scenes:
    """n scenes.

    images  uint8 (n, SIZE, SIZE, 3)
    masks   int64 (n, SIZE, SIZE): class of every pixel
    """

    images: Array
    masks: Array

    def __len__(self) -> int:
        return len(self.images)

    @property
    def sha256(self) -> str:
        """Of all pixels and labels."""
        digest = hashlib.sha256(self.images.tobytes())
        digest.update(self.masks.tobytes())
        return digest.hexdigest()

    def take(self, index: Array | slice) -> Scenes:
        """Those at these positions."""
        return Scenes(self.images[index], self.masks[index])


def parts(scenes: int) -> tuple[tuple[str, int, int], ...]:
    """Of which images, how many scenes, and their seed: to train, to choose thresholds, to test."""
    return ("train", scenes, 0), ("train", scenes // 8, 1), ("test", scenes // 4, 2)


def compose(digits: ImageSet, photographs: ImageSet, count: int, seed: int) -> Scenes:
    """`count` scenes, drawn with `seed`: where digits overlap, the later one covers the earlier.

    Args:
        digits: grey; a label is the digit's class.
        photographs: of any size and classes; scaled to SIZE.
    """
    rng = np.random.default_rng(seed)
    images = np.empty((count, SIZE, SIZE, 3), dtype=np.uint8)
    masks = np.zeros((count, SIZE, SIZE), dtype=np.int64)
    for image, mask in zip(images, masks, strict=True):
        image[:] = _scaled(photographs.images[rng.integers(len(photographs))], SIZE).reshape(SIZE, SIZE, -1)
        for _ in range(rng.integers(*DIGITS)):
            number = int(rng.integers(len(digits)))
            _paste(image, mask, digits.images[number], int(digits.labels[number]) + 1, rng)
    return Scenes(images, masks)


def _paste(image: Array, mask: Array, digit: Array, label: int, rng: np.random.Generator) -> None:
    """Draws one digit in a random colour, size and place; both arrays are changed."""
    height = int(rng.integers(*HEIGHTS))
    ink = _scaled(digit, height).reshape(height, height)
    y, x = rng.integers(0, SIZE - height + 1, 2)
    colour = rng.integers(0, 256, 3)
    window = slice(y, y + height), slice(x, x + height)
    cover = (ink / 255.0)[..., None]
    image[window] = ((1.0 - cover) * image[window] + cover * colour).astype(np.uint8)
    mask[window][ink >= INK] = label


def _scaled(image: Array, size: int) -> Array:
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))
