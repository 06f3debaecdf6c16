"""Images between features (float32 C x H x W, pixel / 255) and pixels (uint8 H x W x C)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from splitexit.codecs import Array, Codec, Shape
from splitexit.errors import InputError, PayloadError

if TYPE_CHECKING:
    from PIL import Image

MODES = {1: "L", 3: "RGB"}


def to_pixels(features: Array) -> Array:
    """uint8 H x W x C, contiguous; the nearest pixel to each value."""
    levels = np.rint(features.transpose(1, 2, 0) * np.float32(255))
    return np.clip(levels, 0, 255, out=levels).astype(np.uint8, order="C")


def to_features(pixels: Array) -> Array:
    """float32 C x H x W, contiguous: pixel / 255 in single precision, as data sets are read."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)


class PillowCodec(Codec):
    """A codec that Pillow writes and reads: grey or colour images only."""

    input_only = True

    def __init__(self, *, shape: Shape) -> None:
        super().__init__(shape=shape)
        if shape[0] not in MODES:
            raise InputError(f"codec {self.name}: images have 1 or 3 channels, not {shape[0]} (shape {shape})")
        self._mode = self._mode_in_file = MODES[shape[0]]

    def _image(self, features: Array) -> Image.Image:
        from PIL import Image

        height, width = self.shape[1:]
        return Image.frombuffer(self._mode, (width, height), to_pixels(features), "raw", self._mode, 0, 1)

    def _pixels(self, file: bytes) -> Array:
        """The features in an image file whose declared size was checked; raises PayloadError."""
        from io import BytesIO

        from PIL import Image

        height, width = self.shape[1:]
        try:
            with Image.open(BytesIO(file), formats=[self.name.upper()]) as image:
                if (image.mode, image.size) != (self._mode_in_file, (width, height)):
                    raise PayloadError(f"holds {image.mode} {image.size}, expected {self._mode_in_file}")
                pixels = np.asarray(image.convert(self._mode))
                return to_features(pixels.reshape(height, width, -1))
        except PayloadError:
            raise
        except Exception as error:  # Pillow's readers raise whatever their parsing runs into
            raise PayloadError(f"not a {self.name} image: {error}") from error
