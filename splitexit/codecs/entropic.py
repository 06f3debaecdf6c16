"""A learned reduction whose rate was part of its training."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

from splitexit.codecs import Shape, Tensors
from splitexit.codecs._blocks import BlockCodec

BITS = 8
"""Of a level. With entropy coding, levels that do not occur cost nothing."""


class Entropic(BlockCodec):
    """A convolution of blocks, rounded to whole numbers; a transposed convolution back. See `BlockCodec`.

    After the entropic student (Matsubara, Yang, Levorato, Mandt, WACV 2022, arXiv 2108.11898): the training weighs the
    bits against the error by a prior that it learns; the tables count levels of the calibration split (inferred).
    Where that replaces the first layers of a network by a deep encoder, this is one linear layer each way behind any
    split, on a frozen backbone (inferred).

    Layout after the header: see `LatentCodec`.

    Args:
        channels: of the latent.
        stride: side of a block, 1 or 2; height and width of the latent are rounded up.
        tensors: those of `BlockCodec` and of `LatentCodec`.
    """

    name = "entropic"

    def __init__(
        self,
        *,
        shape: Shape,
        tensors: Tensors,
        channels: Annotated[int, Ge(1), Le(4096)],
        stride: Annotated[int, Ge(1), Le(2)] = 1,
    ) -> None:
        super().__init__(shape=shape, tensors=tensors, channels=channels, stride=stride, bits=BITS)
