"""Learned codecs whose layers each way are one convolution of blocks that do not overlap."""

from __future__ import annotations

import numpy as np

from splitexit.codecs import Array, Shape, Tensors
from splitexit.codecs._convolution import convolve, spread
from splitexit.codecs._latent import LatentCodec


class BlockCodec(LatentCodec):
    """A convolution whose kernel is its stride to the latent; the transposed convolution back.

        z = conv(x) + b_e                encoder.weight (channels, C, stride, stride), encoder.bias (channels,)
        x' = max(conv'(z) + b_d, floor)  decoder.weight (channels, C, stride, stride), decoder.bias (C,)

    `floor` is 0 for features that a ReLU has left, and the lowest float32 for features of both signs.

    Args:
        channels, stride: of the latent, whose height and width are rounded up; positive.
        bits: as `LatentCodec` sends it, the bits of a level.
    """

    def __init__(self, *, shape: Shape, tensors: Tensors, channels: int, stride: int, bits: int) -> None:
        super().__init__(shape=shape, tensors=tensors)
        self.channels = channels
        self.stride = stride
        wide, height, width = shape
        weight = (channels, wide, stride, stride)
        self._encoder = self._take("encoder.weight", weight), self._take("encoder.bias", (channels,))
        self._decoder = self._take("decoder.weight", weight), self._take("decoder.bias", (wide,))
        self._floor = self._take("floor", ())
        self._send((channels, -(-height // stride), -(-width // stride)), bits)

    @property
    def encoder_macs(self) -> int:
        """Of the convolution."""
        return self._encoder[0].size * self._latent[1] * self._latent[2]

    def latent(self, features: Array) -> Array:
        """What the convolution puts out."""
        return convolve(features, *self._encoder, stride=self.stride)

    def _restore(self, latent: Array) -> Array:
        features = spread(latent, *self._decoder, (self.shape[1], self.shape[2]))
        return np.maximum(features, self._floor, out=features)
