"""A learned reduction whose rate was part of its training."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from splitexit.codecs import Array, Shape, Tensors
from splitexit.codecs._convolution import convolve, spread
from splitexit.codecs._latent import LatentCodec

BITS = 8
"""Of a level. With entropy coding, levels that do not occur cost nothing."""


class Entropic(LatentCodec):
    """A convolution of blocks to the latent, rounded to whole numbers; a transposed convolution back.

        z = conv(x) + b_e                encoder.weight (channels, C, stride, stride), encoder.bias (channels,)
        x' = max(conv'(z) + b_d, floor)  decoder.weight (channels, C, stride, stride), decoder.bias (C,)

    After the entropic student (Matsubara, Yang, Levorato, Mandt, WACV 2022, arXiv 2108.11898): the training weighs the
    bits against the error, and the tables are those of the prior that it learned. Where that replaces the first layers
    of a network by a deep encoder, this is one linear layer each way behind any split, on a frozen backbone (inferred).
    `floor` as in `Aecnn`.

    Layout after the header: see `LatentCodec`.

    Args:
        channels: of the latent.
        stride: side of a block, 1 or 2; height and width of the latent are rounded up.
        tensors: the above and those of `LatentCodec`.
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
        super().__init__(shape=shape, tensors=tensors)
        self.channels = channels
        self.stride = stride
        wide, height, width = shape
        weight = (channels, wide, stride, stride)
        self._encoder = self._take("encoder.weight", weight), self._take("encoder.bias", (channels,))
        self._decoder = self._take("decoder.weight", weight), self._take("decoder.bias", (wide,))
        self._floor = self._take("floor", ())
        self._send((channels, -(-height // stride), -(-width // stride)), BITS)

    @property
    def encoder_macs(self) -> int:
        """Of the convolution."""
        return self._encoder[0].size * self._latent[1] * self._latent[2]

    def latent(self, features: Array) -> Array:
        """What is rounded."""
        return convolve(features, *self._encoder, stride=self.stride)

    def _restore(self, latent: Array) -> Array:
        features = spread(latent, *self._decoder, (self.shape[1], self.shape[2]))
        return np.maximum(features, self._floor, out=features)
