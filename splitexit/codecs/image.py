"""The image's pixels as they are."""

from __future__ import annotations

import numpy as np

from splitexit.codecs import Array, Codec
from splitexit.codecs._pixels import to_features, to_pixels
from splitexit.errors import PayloadError


class Image(Codec):
    """One byte per pixel and channel, row by row; lossless for images."""

    name = "image"
    lossless = True
    input_only = True

    def _pack(self, features: Array) -> bytes:
        return to_pixels(features).tobytes()

    def _unpack(self, body: memoryview) -> Array:
        if len(body) != self.size:
            raise PayloadError(f"{len(body)} bytes of pixels, expected {self.size}")
        channels, height, width = self.shape
        return to_features(np.frombuffer(body, np.uint8).reshape(height, width, channels))
