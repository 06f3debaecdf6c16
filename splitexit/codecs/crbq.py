"""A learned reduction that knows nothing of its quantiser."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

from splitexit.codecs import Array, Shape, Tensors
from splitexit.codecs._affine import RANGE_BYTES, dequantise, quantise
from splitexit.codecs._blocks import BlockCodec
from splitexit.codecs._latent import RAW_BITS
from splitexit.codecs._packing import pack, unpack


class CrBq(BlockCodec):
    """A convolution of blocks, quantised by its own range; a transposed convolution back. See `BlockCodec`.

    After CR + BQ, channel reduction and bottleneck quantisation, as Matsubara, Yang, Levorato and Mandt compare with
    (WACV 2022, arXiv 2108.11898): trained to give the network's features again, without a quantiser, which comes with
    the inference. One linear layer each way behind any split, where theirs replaces the first layers (inferred).

    Layout after the header: low and step (upper halves of float32), the levels (see `_packing`).

    Args:
        channels: of the latent.
        stride: side of a block, 1 or 2; height and width of the latent are rounded up.
        bits: of a level.
        tensors: those of `BlockCodec`.
    """

    name = "crbq"

    def __init__(
        self,
        *,
        shape: Shape,
        tensors: Tensors,
        channels: Annotated[int, Ge(1), Le(4096)],
        stride: Annotated[int, Ge(1), Le(2)] = 1,
        bits: Annotated[int, Ge(1), Le(8)] = 8,
    ) -> None:
        self.bits = bits
        super().__init__(shape=shape, tensors=tensors, channels=channels, stride=stride, bits=RAW_BITS)

    def _pack(self, features: Array) -> bytes:
        ranges, levels = quantise(self._analysed(features).reshape(1, -1), self.bits)
        return ranges + pack(levels, self.bits)

    def _unpack(self, body: memoryview) -> Array:
        count = self._latent[0] * self._latent[1] * self._latent[2]
        levels = unpack(body[RANGE_BYTES:], (1, count), self.bits)
        return self._restored(dequantise(body[:RANGE_BYTES], levels, self.bits).reshape(self._latent))
