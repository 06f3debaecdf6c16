"""The tensor as it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from splitexit.codecs import Array, Codec
from splitexit.errors import PayloadError


class Raw(Codec):
    """Single precision, little-endian, 4 bytes per value; lossless."""

    name = "raw"
    lossless = True
    stored: np.dtype[Any] = np.dtype("<f4")

    def _pack(self, features: Array) -> memoryview:
        return np.ascontiguousarray(features, self.stored).data

    def _unpack(self, body: memoryview) -> Array:
        expected = self.size * self.stored.itemsize
        if len(body) != expected:
            raise PayloadError(f"{len(body)} bytes of values, expected {expected}")
        values = np.frombuffer(body, self.stored).astype(np.float32)
        if not np.isfinite(values).all():
            raise PayloadError("holds values that are not finite")
        return values
