"""The channels that an attention module ranks highest, and a light decoder."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from splitexit.codecs import Array, Shape, Tensors
from splitexit.codecs._convolution import add_up
from splitexit.codecs._latent import RAW_BITS, LatentCodec
from splitexit.errors import ArtifactError, InputError


class Aecnn(LatentCodec):
    """Sends the most important channels; the decoder makes all of them from these.

        z = x[kept]
        x' = max(W_d z + b_d, floor)                              decoder.weight (C, channels), decoder.bias (C,)
        x'' = max(conv3x3(x') + b_r, floor), with `refine`        refine.weight (C, C, 3, 3), refine.bias (C,)

    After AECNN (Li, Iosifidis, Zhang, arXiv 2211.13745): a channel attention, which only the training computes, ranks
    the channels. Encoding costs the device nothing but the copying; the convolutions that make the channels that are
    not sent could be left out as well, which is not done here. Without batch normalisation, because the training starts
    at the least-squares solution (inferred). `floor` is 0 for features that a ReLU has left, so that the maximum is a
    ReLU, and the lowest float32 for features of both signs.

    Layout after the header: see `LatentCodec`.

    Args:
        channels: sent, at most as many as the tensor has.
        bits: of a level, 1 to 8; 32 sends float32, which with all channels and the start of the training gives the
            features back as they were.
        refine: whether the 3×3 convolution follows, which at 64×8×8 takes some 8 ms to decode, 0.1 ms without.
        tensors: the above; `kept` (channels,), whole numbers in ascending order; `floor`, one number; those of
            `LatentCodec`.
    """

    name = "aecnn"

    def __init__(
        self,
        *,
        shape: Shape,
        tensors: Tensors,
        channels: Annotated[int, Ge(1), Le(4096)],
        bits: Annotated[int, Ge(1), Le(RAW_BITS)] = 8,
        refine: bool = False,
    ) -> None:
        super().__init__(shape=shape, tensors=tensors)
        self.channels = channels
        self.bits = bits
        self.refine = refine
        wide, height, width = shape
        check(wide, channels, bits)
        self._kept = self._take("kept", (channels,), np.uint16)
        if (np.diff(self._kept.astype(np.int64)) <= 0).any() or self._kept[-1] >= wide:
            raise ArtifactError(f"codec {self.codec_id}: kept is not an ascending list of channels below {wide}")
        self._decoder = self._take("decoder.weight", (wide, channels, 1, 1)), self._take("decoder.bias", (wide,))
        if refine:
            self._refine = self._take("refine.weight", (wide, wide, 3, 3)), self._take("refine.bias", (wide,))
        self._floor = self._take("floor", ())
        self._send((channels, height, width), bits)

    def latent(self, features: Array) -> Array:
        """The kept channels."""
        return features[self._kept]

    def _restore(self, latent: Array) -> Array:
        features = add_up(latent, *self._decoder)
        np.maximum(features, self._floor, out=features)
        if self.refine:
            features = add_up(features, *self._refine)
            np.maximum(features, self._floor, out=features)
        return features


def check(wide: int, channels: int, bits: int) -> None:
    """Raises InputError where there are not so many channels, or such a number of bits is not sent."""
    if channels > wide:
        raise InputError(f"codec aecnn: channels={channels}, but the tensor has {wide} channels")
    if 8 < bits < RAW_BITS:
        raise InputError(f"codec aecnn: bits={bits}, expected 1 to 8, or {RAW_BITS}")
