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

TAILS = (0.0, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1)
"""Shares of the values cut off at either end, of which the fit takes the best."""

SEARCHED = 100_000
"""Values that the search for the best range looks at, for each row."""


class Range(FittedCodec):
    """Affine quantisation with a fixed range, then entropy coding (range ANS) with fixed tables.

        q = round((x - low) / step), clipped to 0 .. 2^bits - 1
        x' = low + step q

    After JALAD (Li et al., ICPADS 2018), which codes with Huffman, at least one bit for each value: most of what a ReLU
    leaves is worth less. Range and tables are fitted on the calibration split and not sent. The range, unlike JALAD's,
    is not the tensor's own, because the tables are of levels that mean the same for every sample (inferred); it is the
    one of `TAILS` with the least squared error. A value inside it is off by step / 2 at most, one outside is clipped.

    Layout after the header: see `_ans`. Decoding needs whole numbers only up to the levels, so that it is the same on
    every machine. Needs the package constriction (`pip install 'splitexit[codecs]'`).

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
        counts = [np.bincount(row, minlength=2**bits) for row in _levels(values, low, step, top)]
        return {"low": low[:, 0], "step": step[:, 0], "table": np.stack([ans.table(row) for row in counts])}

    def _shared(self) -> bytes:
        return (
            self._low.astype("<f4").tobytes() + self._step.astype("<f4").tobytes() + self._table.astype("<u2").tobytes()
        )

    def _pack(self, features: Array) -> bytes:
        return ans.encode(_levels(features.reshape(self._rows, -1), self._low, self._step, self._top), self._models)

    def _unpack(self, body: memoryview) -> Array:
        values: Array = ans.decode(body, self.size // self._rows, self._models).astype(np.float32)
        values *= self._step
        values += self._low
        return values


def _levels(values: Array, low: Array | np.float32, step: Array | np.float32, top: np.float32) -> Array:
    """The nearest level of each value; doubles, because a value far outside would overflow."""
    return np.clip(np.rint((values.astype(np.float64) - low) / step), 0, top).astype(np.uint8)


def _range(values: Array, top: np.float32) -> tuple[float, float]:
    """low and step of the range among `TAILS` with the least squared error; step 1 where all values are equal."""
    some = np.sort(values[:: max(1, len(values) // SEARCHED)])
    best, least = (float(some[0]), 1.0), np.inf
    for tail in TAILS:
        low, high = (np.float32(end) for end in np.quantile(some, [tail, 1 - tail]))
        step = np.float32((high - low) / top)
        if not step > 0:
            continue
        error = float(np.square(_levels(some, low, step, top) * step + low - some).mean())
        if error < least:
            best, least = (float(low), float(step)), error
    return best
