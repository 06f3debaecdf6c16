"""A learned reduction of channels and of the map, trained for noisy channels too."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from splitexit.codecs import Array, Shape, Tensors
from splitexit.codecs._convolution import add_up, convolve, spread
from splitexit.codecs._latent import LatentCodec

STEEPEST = np.float32(30)
"""Beyond this the sigmoid is 0 or 1 in single precision, and its exponential would overflow."""

KERNELS = {1: 3, 2: 2}
"""Side of the kernel by stride."""


class BottleNetPlusPlus(LatentCodec):
    """A convolution and a sigmoid to the latent; a convolution back.

        z = sigmoid(conv(x) + b_e)       encoder.weight (channels, C, k, k), encoder.bias (channels,)
        x' = max(conv'(z) + b_d, floor)  decoder.weight, decoder.bias (C,)

    After BottleNet++ (Shao and Zhang, ICC Workshops 2020, arXiv 1910.14315), on a frozen backbone. With stride 1, k is
    3 and conv' is a 3×3 convolution, decoder.weight (C, channels, 3, 3); with stride 2, k is 2 and conv' is the
    transposed convolution, decoder.weight (channels, C, 2, 2). Batch normalisation is folded into the weights. The
    plane that tells the encoder the condition of the channel is all zeros here, because the link delivers whole
    payloads or none, so its weights stay out. `floor` as in `Aecnn`.

    Layout after the header: see `LatentCodec`; the published code sends the levels without entropy coding.

    Args:
        channels: of the latent.
        stride: 2 halves height and width, rounded up.
        bits: of a level.
        tensors: the above and those of `LatentCodec`.
    """

    name = "bottlenetpp"

    def __init__(
        self,
        *,
        shape: Shape,
        tensors: Tensors,
        channels: Annotated[int, Ge(1), Le(4096)],
        stride: Annotated[int, Ge(1), Le(2)] = 1,
        bits: Annotated[int, Ge(1), Le(8)] = 8,
    ) -> None:
        super().__init__(shape=shape, tensors=tensors)
        self.channels = channels
        self.stride = stride
        self.bits = bits
        wide, height, width = shape
        kernel = KERNELS[stride]
        there = (channels, wide, kernel, kernel)
        back = (wide, channels, kernel, kernel) if stride == 1 else there
        self._encoder = self._take("encoder.weight", there), self._take("encoder.bias", (channels,))
        self._decoder = self._take("decoder.weight", back), self._take("decoder.bias", (wide,))
        self._floor = self._take("floor", ())
        self._send((channels, -(-height // stride), -(-width // stride)), bits)

    @property
    def encoder_macs(self) -> int:
        """Of the convolution."""
        return self._encoder[0].size * self._latent[1] * self._latent[2]

    def latent(self, features: Array) -> Array:
        """The sigmoid's output, in 0..1."""
        mixed = convolve(features, *self._encoder, stride=self.stride)
        values: Array = np.float32(1) / (np.float32(1) + np.exp(-np.clip(mixed, -STEEPEST, STEEPEST)))
        return values

    def _restore(self, latent: Array) -> Array:
        if self.stride == 1:
            features = add_up(latent, *self._decoder)
        else:
            features = spread(latent, *self._decoder, (self.shape[1], self.shape[2]))
        return np.maximum(features, self._floor, out=features)
