"""One byte per value."""

from __future__ import annotations

import struct
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from splitexit.codecs import Array, Codec, Shape
from splitexit.codecs._zstd import compress, decompress
from splitexit.errors import PayloadError

LARGEST = 1e38
"""The largest magnitude that is encoded; float32 ends at 3.4e38."""

_RANGE = struct.Struct("<ff")


class Uint8(Codec):
    """Affine quantisation of the whole tensor, then zstd: x = low + step * q, q in 0..255.

    Uniform affine quantisation as in Jacob et al., CVPR 2018, section 2.1, with the range of the tensor
    itself, so that no value is off by more than step / 2.

    Layout after the header: low, step (float32 each), a zstd frame of C*H*W bytes.

    Args:
        level: zstd's level; 1 because more gains nothing on features (measured, see `_zstd`).
    """

    name = "uint8"

    def __init__(self, *, shape: Shape, level: Annotated[int, Ge(1), Le(19)] = 1) -> None:
        super().__init__(shape=shape)
        self.level = level

    def _pack(self, features: Array) -> bytes:
        low, high = float(features.min()), float(features.max())
        if max(-low, high) > LARGEST:
            raise PayloadError(f"{self.codec_id}: values in {low}..{high}, at most {LARGEST} expected")
        # Both sides must use the step that the payload can hold.
        step = np.float32((high - low) / 255.0)
        levels = (features - np.float32(low)) / (step or np.float32(1))
        values = np.clip(np.rint(levels, out=levels), 0, 255, out=levels).astype(np.uint8)
        return _RANGE.pack(low, step) + compress(values.tobytes(), self.level)

    def _unpack(self, body: memoryview) -> Array:
        if len(body) < _RANGE.size:
            raise PayloadError(f"{len(body)} bytes after the header, at least {_RANGE.size} expected")
        low, step = (np.float32(number) for number in _RANGE.unpack_from(body))
        # Values lie between the two ends: finite ends are enough. Doubles, so that the check cannot overflow.
        if not (step >= 0 and abs(low) <= LARGEST and float(low) + 255.0 * float(step) <= 2 * LARGEST):
            raise PayloadError(f"a range from {low} in steps of {step}")
        values = np.frombuffer(decompress(body[_RANGE.size :], self.size), np.uint8).astype(np.float32)
        values *= step
        values += low
        return values
