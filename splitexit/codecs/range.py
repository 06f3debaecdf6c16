"""Quantised values, entropy-coded with tables that both sides have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from splitexit.codecs import Array, FittedCodec, Shape, Tensors
from splitexit.codecs import _ans as ans
from splitexit.codecs._affine import LARGEST, Per, groups
from splitexit.codecs._tensors import take
from splitexit.errors import ArtifactError

TAIL = 1e-4
"""Share of the values beyond either end of the range. An entropy coder pays for a smaller step, so cutting off more
gains nothing: on the shipped ResNet-32 (behind stage 4, 4 bits, one table, 600 test images) cutting off 1e-4 sends
2,563 bytes and agrees with the whole network on 99.3 %, 1e-3 2,785 bytes and 99.2 %, nothing 1,922 bytes and 96.8 %."""

SEEN = 1_000_000
"""Values that the range comes from, for each row, and that are counted at a time."""


class Range(FittedCodec):
    """Affine quantisation with a fixed range, then entropy coding (range ANS) with fixed tables.

        q = round((x - low) / step), clipped to 0 .. 2^bits - 1
        x' = low + step q

    After JALAD (Li et al., ICPADS 2018), which codes with Huffman, at least one bit for each value: most of what a ReLU
    leaves is worth less. Range and tables are fitted on the calibration split and not sent. The range, unlike JALAD's,
    is not the tensor's own, because the tables are of levels that mean the same for every sample (inferred). A value
    inside it is off by step / 2 at most; one outside, which `TAIL` leaves at either end, is clipped.

    Layout after the header: see `_ans`. Decoding needs whole numbers only up to the levels, so that it is the same on
    every machine. Needs the package constriction (`pip install 'splitexit[codecs]'`), which comes compiled for Linux on
    x86-64, macOS and Windows; on other machines, Linux on ARM among them, pip compiles it and needs Rust.

    Args:
        bits: of a level.
        per: what has a range and a table of its own.
        tensors: `low` and `step` (rows,), float32; `table` (rows, 2^bits), uint16, every row 2^16 in all, no zeros;
            one row, or one for every channel.
    """

    name = "range"

    def __init__(
        self, *, shape: Shape, tensors: Tensors, bits: Annotated[int, Ge(1), Le(8)] = 8, per: Per = "tensor"
    ) -> None:
        super().__init__(shape=shape)
        self.bits = bits
        self.per = per
        self._rows = groups(self.name, shape, per)
        self._top = np.float32(2**bits - 1)
        self._low = take(self.codec_id, tensors, "low", (self._rows, 1))
        self._step = take(self.codec_id, tensors, "step", (self._rows, 1))
        self._table = take(self.codec_id, tensors, "table", (self._rows, 2**bits), np.uint16)
        self._check()
        self._models = ans.models(self._table)

    def _check(self) -> None:
        ends = np.abs(self._low.astype(np.float64) + np.array([0.0, self._top]) * self._step)
        if not (self._step > 0).all() or ends.max() > LARGEST:
            raise ArtifactError(f"codec {self.codec_id}: a range is empty or beyond {LARGEST}; fit it again")
        if not self._table.all() or (self._table.sum(axis=1, dtype=np.int64) != ans.TABLE_SUM).any():
            raise ArtifactError(f"codec {self.codec_id}: a table has zeros or another sum than 2^16; fit it again")

    @classmethod
    def fit(cls, features: Array, gradients: Callable[[], Array], *, bits: int = 8, per: Per = "tensor") -> Tensors:
        """See `FittedCodec.fit`; needs no gradients."""
        rows, top = groups(cls.name, features.shape[1:], per), np.float32(2**bits - 1)
        values = features.reshape(len(features), rows, -1).swapaxes(0, 1).reshape(rows, -1)
        low, step = np.array([_range(row, top) for row in values], np.float32).T[:, :, None]
        counts = [_counts(row, low_, step_, top) for row, low_, step_ in zip(values, low, step, strict=True)]
        return {"low": low[:, 0], "step": step[:, 0], "table": np.stack([ans.table(row) for row in counts])}

    def _shared(self) -> bytes:
        ends = np.concatenate((self._low, self._step))
        return ends.astype("<f4").tobytes() + self._table.astype("<u2").tobytes()

    def _pack(self, features: Array) -> bytes:
        return ans.encode(self._quantise(features), self._models)

    def _unpack(self, body: memoryview) -> Array:
        return self._dequantise(ans.decode(body, self.size // self._rows, self._models))

    def _quantise(self, features: Array) -> Array:
        """Levels, uint8 (rows, values)."""
        return _levels(features.reshape(self._rows, -1), self._low, self._step, self._top)

    def _dequantise(self, levels: Array) -> Array:
        """The inverse: float32 (rows, values)."""
        values: Array = levels.astype(np.float32)
        values *= self._step
        values += self._low
        return values


def _levels(values: Array, low: Array | np.float32, step: Array | np.float32, top: np.float32) -> Array:
    """The nearest level of each value; doubles, because a value far outside would overflow."""
    return np.clip(np.rint((values.astype(np.float64) - low) / step), 0, top).astype(np.uint8)


def _counts(values: Array, low: Array, step: Array, top: np.float32) -> Array:
    """How often each level occurs; part by part, because `_levels` takes many times the memory of its result."""
    parts = np.array_split(values, len(values) // SEEN + 1)
    counts = [np.bincount(_levels(part, low, step, top), minlength=int(top) + 1) for part in parts]
    return np.asarray(np.sum(counts, axis=0))


def _range(values: Array, top: np.float32) -> tuple[float, float]:
    """low and step of the range that leaves out TAIL of the values at either end; step 1 where all are equal."""
    # An odd stride, so that not the same column of every map is seen.
    some = values[:: len(values) // SEEN | 1]
    low, high = (float(end) for end in np.quantile(some, [TAIL, 1 - TAIL]))
    step = np.float32((high - low) / float(top))
    return low, float(step) if step > 0 else 1.0
