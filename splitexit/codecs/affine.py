"""A few bits per value."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

from splitexit.codecs import Array, Codec, Shape
from splitexit.codecs._affine import RANGE_BYTES, Per, dequantise, groups, quantise
from splitexit.codecs._packing import Packing, check, pack, unpack


class Affine(Codec):
    """Affine quantisation to 2^bits levels with the range of the tensor or of each channel, bit-shuffled, compressed.

    No value is off by more than step / 2; `_affine` has the equations, `_packing` the layout of the levels.
    `affine:pack=lz4` is the codec of SPINN (Laskaridis et al., MobiCom 2020): 8 bits, bit-shuffle, LZ4.

    Layout after the header: low of every row, step of every row (upper halves of float32), the packed levels.

    Args:
        bits: of a level.
        per: what has a range of its own.
        pack: the compressor; `none` makes payloads of one size.
    """

    name = "affine"

    def __init__(
        self, *, shape: Shape, bits: Annotated[int, Ge(1), Le(8)] = 8, per: Per = "tensor", pack: Packing = "zstd"
    ) -> None:
        super().__init__(shape=shape)
        self.bits = bits
        self.per = per
        self.pack = pack
        self._rows = groups(self.name, shape, per)
        check(pack)

    def _pack(self, features: Array) -> bytes:
        ranges, levels = quantise(features.reshape(self._rows, -1), self.bits)
        return ranges + pack(levels, self.bits, self.pack)

    def _unpack(self, body: memoryview) -> Array:
        cut = RANGE_BYTES * self._rows
        levels = unpack(body[cut:], (self._rows, self.size // self._rows), self.bits, self.pack)
        return dequantise(body[:cut], levels, self.bits)
