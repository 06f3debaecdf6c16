"""A learned reduction of channels."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from splitexit.codecs import Array, Codec, Shape, Tensors
from splitexit.codecs._tensors import take
from splitexit.codecs._zstd import compress, decompress
from splitexit.errors import ArtifactError

LEVEL = 1


class Bottleneck(Codec):
    """A 1x1 convolution to fewer channels, one byte per value, zstd; a 1x1 convolution and ReLU back.

        z = W_e x + b_e             encoder.weight (channels, C), encoder.bias (channels,)
        q = round(255 (z - low) / (high - low)), clipped to 0..255
        z' = low + q (high - low) / 255
        x' = relu(W_d z' + b_d)     decoder.weight (C, channels), decoder.bias (C,)

    After Eshratifar et al., "BottleNet", ISLPED 2019, without its spatial part, on a frozen backbone.
    The training is elsewhere; this file needs only the tensors. `low` and `high` are scalars.

    Layout after the header: a zstd frame of channels*H*W bytes. Decoding adds in a fixed order, so that
    equal payloads give equal tensors on every machine, which a matrix product does not.

    Args:
        channels: channels sent, fewer than the tensor has.
        tensors: the six above, any float type.
    """

    name = "bottleneck"
    learned = True

    def __init__(self, *, shape: Shape, tensors: Tensors, channels: Annotated[int, Ge(1), Le(4096)]) -> None:
        super().__init__(shape=shape)
        self.channels = channels
        wide = shape[0]
        self._encode_weight = take(self.codec_id, tensors, "encoder.weight", (channels, wide))
        self._encode_bias = take(self.codec_id, tensors, "encoder.bias", (channels, 1))
        self._decode_weight = take(self.codec_id, tensors, "decoder.weight", (wide, channels))
        self._decode_bias = take(self.codec_id, tensors, "decoder.bias", (wide, 1))
        self._low = take(self.codec_id, tensors, "low", ())
        high = take(self.codec_id, tensors, "high", ())
        self._step = np.float32((high - self._low) / np.float32(255))
        if not self._step > 0:
            raise ArtifactError(f"codec {self.codec_id}: range {self._low}..{high} is empty; train it again")

    def _shared(self) -> bytes:
        parts = (self._encode_weight, self._encode_bias, self._decode_weight, self._decode_bias, self._low, self._step)
        return b"".join(part.astype("<f4").tobytes() for part in parts)

    @property
    def encoder_macs(self) -> int:
        """Of the 1x1 convolution."""
        return self.channels * self.size

    def _pack(self, features: Array) -> bytes:
        z = self._encode_weight @ features.reshape(self.shape[0], -1)
        z += self._encode_bias
        z -= self._low
        z /= self._step
        levels = np.clip(np.rint(z, out=z), 0, 255, out=z)
        return compress(levels.astype(np.uint8).tobytes(), LEVEL)

    def _unpack(self, body: memoryview) -> Array:
        pixels = self.shape[1] * self.shape[2]
        data = decompress(body, self.channels * pixels)
        z = np.frombuffer(data, np.uint8).reshape(self.channels, pixels).astype(np.float32)
        z *= self._step
        z += self._low
        features = np.repeat(self._decode_bias, pixels, axis=1)
        share = np.empty_like(features)
        for channel in range(self.channels):
            features += np.multiply(self._decode_weight[:, channel, None], z[channel], out=share)
        np.maximum(features, np.float32(0), out=features)
        return features
