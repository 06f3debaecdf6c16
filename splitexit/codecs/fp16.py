"""Half precision."""

from __future__ import annotations

import numpy as np

from splitexit.codecs import Array
from splitexit.codecs.raw import Raw

LARGEST = 65504.0
"""The largest finite half-precision number (IEEE 754-2019, binary16)."""


class Fp16(Raw):
    """Half precision, little-endian, 2 bytes per value; larger values than it can hold are clipped."""

    name = "fp16"
    lossless = False
    stored = np.dtype("<f2")

    def _pack(self, features: Array) -> memoryview:
        return super()._pack(np.clip(features, -LARGEST, LARGEST))
