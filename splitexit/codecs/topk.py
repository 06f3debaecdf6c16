"""Only the largest values."""

from __future__ import annotations

import struct
from math import ceil
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le

from splitexit.codecs import Array, Codec, Shape
from splitexit.codecs._affine import RANGE_BYTES, dequantise, quantise
from splitexit.codecs._packing import LEVEL, pack, unpack
from splitexit.codecs._zstd import compress, decompress
from splitexit.errors import PayloadError

_LENGTH = struct.Struct("<I")


class TopK(Codec):
    """The share of values with the largest magnitudes, quantised; all others decode to zero.

    For what a ReLU leaves, where small means close to zero. Of equal magnitudes at the border the first ones are sent.
    Positions are a mask of one bit per value, compressed: at a share p that comes close to the p log 1/p +
    (1 - p) log 1/(1 - p) bits per value that any code for them needs, as gaps between them would.

    Layout after the header: low and step of the values (upper halves of float32), the length of the mask's frame
    (4 bytes), the mask (a zstd frame), the values' levels (packed as in `_packing`).

    Args:
        share: of the values that is sent, rounded up to whole values.
        bits: of a level.
    """

    name = "topk"

    def __init__(
        self,
        *,
        shape: Shape,
        share: Annotated[float, Gt(0), Le(1)] = 0.1,
        bits: Annotated[int, Ge(1), Le(8)] = 8,
    ) -> None:
        super().__init__(shape=shape)
        self.share = share
        self.bits = bits
        self.count = min(self.size, ceil(share * self.size))

    def _pack(self, features: Array) -> bytes:
        flat = features.reshape(-1)
        mask = self._largest(np.abs(flat))
        ranges, levels = quantise(flat[None, mask], self.bits)
        positions = compress(np.packbits(mask).tobytes(), LEVEL)
        return b"".join((ranges, _LENGTH.pack(len(positions)), positions, pack(levels, self.bits)))

    def _largest(self, magnitudes: Array) -> Array:
        """Which `count` values are sent. Sorting would leave the choice among equal ones to the library."""
        border = np.partition(magnitudes, self.size - self.count)[self.size - self.count]
        mask: Array = magnitudes > border
        mask[np.flatnonzero(magnitudes == border)[: self.count - np.count_nonzero(mask)]] = True
        return mask

    def _unpack(self, body: memoryview) -> Array:
        start = RANGE_BYTES + _LENGTH.size
        if len(body) < start:
            raise PayloadError(f"{len(body)} bytes after the header, at least {start} expected")
        end = start + _LENGTH.unpack_from(body, RANGE_BYTES)[0]
        packed = np.frombuffer(decompress(body[start:end], -(-self.size // 8)), np.uint8)
        mask = np.unpackbits(packed, count=self.size).view(np.bool_)
        if np.count_nonzero(mask) != self.count:
            raise PayloadError(f"{np.count_nonzero(mask)} positions, expected {self.count}")
        levels = unpack(body[end:], (1, self.count), self.bits)
        values = np.zeros(self.size, np.float32)
        values[mask] = dequantise(body[:RANGE_BYTES], levels, self.bits)[0]
        return values
