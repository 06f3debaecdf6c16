"""Learned codecs that send a small tensor, the latent, in the place of the features.

What they share: convolutions there and back (`_convolution`), and between them levels of a fixed range for every
channel of the latent, entropy-coded with fixed tables (`_ans`). Ranges are set by the training, tables afterwards on
the calibration split.
"""

from __future__ import annotations

from abc import abstractmethod
from math import prod

import numpy as np

from splitexit.codecs import Array, Codec, Shape, Tensors
from splitexit.codecs import _ans as ans
from splitexit.codecs._affine import LARGEST
from splitexit.codecs._tensors import take
from splitexit.errors import ArtifactError, PayloadError

RAW_BITS = 32
"""Of a latent that is sent as it is, in float32: what nothing is lost by, to compare with."""


class LatentCodec(Codec):
    """Features to a latent, its levels to bytes, and back.

    A member stores its parameters, takes its weights with `_take` and calls `_send`; then `latent` and `_restore` say
    what it computes.

    Args:
        tensors: those of the member; and of every channel of the latent `low` and `step` (channels,), float32, and
            `table` (channels, 2^bits), uint16, every row 2^16 in all, no zeros. With 32 bits, none of these three.
    """

    learned = True

    def __init__(self, *, shape: Shape, tensors: Tensors) -> None:
        super().__init__(shape=shape)
        self._tensors = tensors
        self._taken: list[Array] = []

    def _take(self, key: str, shape: tuple[int, ...], dtype: type[np.generic] = np.float32) -> Array:
        self._taken.append(take(self.codec_id, self._tensors, key, shape, dtype))
        return self._taken[-1]

    def _send(self, shape: Shape, bits: int) -> None:
        """What is sent: a latent of this shape in so many bits for a value."""
        self._latent = shape
        self._bits = bits
        if bits == RAW_BITS:
            return
        rows = shape[0]
        self._top = np.float32(2**bits - 1)
        self._low, self._step = self._take("low", (rows, 1)), self._take("step", (rows, 1))
        table = self._take("table", (rows, 2**bits), np.uint16)
        ends = np.abs(self._low.astype(np.float64) + np.array([0.0, self._top]) * self._step)
        if not (self._step > 0).all() or ends.max() > LARGEST:
            raise ArtifactError(f"codec {self.codec_id}: a range is empty or beyond {LARGEST}; train it again")
        if not table.all() or (table.sum(axis=1, dtype=np.int64) != ans.TABLE_SUM).any():
            raise ArtifactError(f"codec {self.codec_id}: a table has zeros or another sum than 2^16; train it again")
        self._models = ans.models(table)

    @abstractmethod
    def latent(self, features: Array) -> Array:
        """What is quantised of C×H×W features: float32 of the latent's shape."""

    @abstractmethod
    def _restore(self, latent: Array) -> Array:
        """Features from a quantised latent, adding in a fixed order."""

    def _analysed(self, features: Array) -> Array:
        """`latent`; raises PayloadError where the features are so large that it holds no numbers."""
        with np.errstate(over="ignore", invalid="ignore"):
            latent = self.latent(features)
        if not np.isfinite(latent).all():
            raise PayloadError(f"codec {self.codec_id}: values in {features.min()}..{features.max()} are too large")
        return latent

    def _restored(self, latent: Array) -> Array:
        """`_restore`; raises PayloadError likewise."""
        with np.errstate(over="ignore", invalid="ignore"):
            features = self._restore(latent)
        if not np.isfinite(features).all():
            raise PayloadError(f"values in {latent.min()}..{latent.max()} are too large for its weights")
        return features

    def levels(self, features: Array) -> Array:
        """The whole numbers that are sent of C×H×W features, uint8 (channels, positions); not with 32 bits."""
        rows = self._analysed(features).reshape(self._latent[0], -1)
        # Doubles, because a value far outside the range would overflow.
        levels = np.rint((rows.astype(np.float64) - self._low) / self._step)
        return np.clip(levels, 0, self._top).astype(np.uint8)

    def fitted(self, features: Array) -> Tensors:
        """The tensors of this codec with tables for n×C×H×W features, which are those of the calibration split."""
        if self._bits == RAW_BITS:
            return self._tensors
        rows = np.stack([self.levels(one) for one in features], axis=1).reshape(self._latent[0], -1)
        counts = [np.bincount(row, minlength=2**self._bits) for row in rows]
        return {**self._tensors, "table": np.stack([ans.table(row) for row in counts])}

    def _values(self, levels: Array, rows: slice = slice(None)) -> Array:
        """What the levels of these channels stand for."""
        values: Array = levels.astype(np.float32)
        values *= self._step[rows]
        values += self._low[rows]
        return values

    def _pack(self, features: Array) -> bytes:
        if self._bits == RAW_BITS:
            return self._analysed(features).astype("<f4").tobytes()
        return ans.encode(self.levels(features), self._models)

    def _unpack(self, body: memoryview) -> Array:
        if self._bits == RAW_BITS:
            return self._restored(_floats(body, self._latent))
        levels = ans.decode(body, prod(self._latent[1:]), self._models)
        return self._restored(self._values(levels).reshape(self._latent))

    def _shared(self) -> bytes:
        return b"".join(part.astype("<f4").tobytes() for part in self._taken)


def _floats(body: memoryview, shape: Shape) -> Array:
    if len(body) != 4 * prod(shape):
        raise PayloadError(f"{len(body)} bytes of values, expected {4 * prod(shape)}")
    return np.frombuffer(body, "<f4").astype(np.float32).reshape(shape)


def even_table(channels: int, bits: int) -> Array:
    """A `table` by which all levels are as likely, until one is fitted."""
    return np.full((channels, 2**bits), ans.TABLE_SUM >> bits, np.uint16)
