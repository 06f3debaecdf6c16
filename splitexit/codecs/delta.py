"""The difference to a tensor that the other side has, for images that follow one another."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le

from splitexit.codecs import Array, Known, ReferringCodec, Shape, Tensors
from splitexit.codecs import _ans as ans
from splitexit.codecs._affine import Per
from splitexit.codecs.range import Range
from splitexit.errors import PayloadError, UnknownReferenceError

WHOLE, DIFFERENCE = 0, 1
NAME_BYTES = 8
_START = struct.Struct("<B8s4B")

STILL = tuple(2**16 - 2 ** (16 - k) for k in range(1, 13)) + tuple(2**16 >> k for k in range(2, 6))
"""Of 2^16, what the shares of values that stay as they were are rounded to: 1/2, 3/4, 7/8 … and 1/4, 1/8 … 1/32."""

SHRINK = (1, 4, 8, 12, 16, 20, 24, 28)
"""Of 32, how many times as rare a change is as one smaller by 1."""


class Delta(ReferringCodec, Range):
    """`range`, and where the edge has an earlier tensor, how its levels differ from that one's.

    After the idea of inter-frame coding in video (differences of quantised values, entropy-coded, key frames where
    there is nothing to refer to), on the levels of `range` with its fixed range: what is decoded is what `range` with
    the same parameters decodes, and only the bytes change (inferred). Consecutive images make similar features;
    a payload is never more than a byte longer than `range`'s, because the shorter form is sent.

    Differences are taken modulo 2^bits and coded by two tables, one for values whose reference is at the level that is
    most frequent by the fitted table (what a ReLU cut off), one for all others. A table comes from two numbers that
    travel with it: the share of values that stay, and how fast larger changes become rarer, a discrete Laplace
    distribution, of one side where the values at rest only rise. All of it in whole numbers.

    Layout after the header: 0, then as `range`; or 1, the name of the reference (its digest), for each of the two
    tables a byte for each of its two numbers, then the differences (see `_ans`). A name is a digest of levels: a
    reference that was mistaken for another cannot go unnoticed.

    Args:
        bits: of a level; by default fewer than `range`'s, because the lowest bits differ at random.
        per, tensors: as of `range`.
    """

    name = "delta"

    def __init__(
        self, *, shape: Shape, tensors: Tensors, bits: Annotated[int, Ge(1), Le(8)] = 4, per: Per = "tensor"
    ) -> None:
        super().__init__(shape=shape, tensors=tensors, bits=bits, per=per)
        self._rest = self._table.argmax(axis=1).astype(np.uint8)[:, None]
        self._mask = np.uint8(2**bits - 1)

    @classmethod
    def fit(cls, features: Array, gradients: Callable[[], Array], *, bits: int = 4, per: Per = "tensor") -> Tensors:
        """As `range`'s, with the default of this codec."""
        return super().fit(features, gradients, bits=bits, per=per)

    def _levels(self, features: Array) -> Array:
        return self._quantise(features)

    def restore(self, levels: Array) -> Array:
        """See `ReferringCodec`."""
        return self._dequantise(levels).reshape(self.shape)

    def _write(self, levels: Array, reference: Array | None) -> bytes:
        whole = bytes([WHOLE]) + ans.encode(levels, self._models)
        if reference is None:
            return whole
        difference = self._difference(levels, reference)
        return min(whole, difference, key=len)

    def _difference(self, levels: Array, reference: Array) -> bytes:
        change = (levels - reference) & self._mask
        at_rest = reference == self._rest
        parts = [change[at_rest], change[~at_rest]]
        numbers = [_fitting(part, self.bits) for part in parts]
        models = [_model(self.bits, *pair) for pair in numbers]
        start = _START.pack(DIFFERENCE, self.digest(reference), *numbers[0], *numbers[1])
        return start + ans.encode(parts, models)

    def _read(self, body: memoryview, known: Known) -> Array:
        if not body or body[0] not in (WHOLE, DIFFERENCE):
            raise PayloadError(f"it begins with {bytes(body[:1])!r}, expected 0 or 1")
        if body[0] == WHOLE:
            return ans.decode(body[1:], self.size // self._rows, self._models).astype(np.uint8)
        if len(body) < _START.size:
            raise PayloadError(f"{len(body)} bytes in the place of a difference")
        _, name, *numbers = _START.unpack_from(body)
        reference = known(name)
        if reference is None:
            raise UnknownReferenceError(f"the tensor {name.hex()} that it refers to is not here; send it whole")
        at_rest = reference == self._rest
        models = [_model(self.bits, *numbers[:2]), _model(self.bits, *numbers[2:])]
        counts = [int(at_rest.sum()), int(at_rest.size - at_rest.sum())]
        change = np.empty(reference.shape, np.uint8)
        change[at_rest], change[~at_rest] = ans.decode_rows(body[_START.size :], counts, models)
        return np.asarray((reference + change) & self._mask)

    def digest(self, levels: Array) -> bytes:
        """The name of a tensor in payloads that refer to it."""
        return blake2b(levels.astype(np.uint8).tobytes(), digest_size=NAME_BYTES).digest()


def _fitting(change: Array, bits: int) -> tuple[int, int]:
    """The two numbers of the table that these changes are coded with: the nearest, not always the best."""
    half = 2 ** (bits - 1)
    moved = change[change != 0].astype(np.int64)
    still = len(change) - len(moved)
    share = int(np.argmin([abs(number * max(len(change), 1) - still * ans.TABLE_SUM) for number in STILL]))
    if not len(moved):
        return share, 0
    one_sided = int(not (moved >= half).any() or bits == 1)
    size = moved if one_sided else np.minimum(moved, 2**bits - moved)
    mean = float(size.mean())  # of a geometric distribution from 1 with the ratio r: 1 / (1 - r)
    shrink = int(np.argmin([abs(1 - number / 32 - 1 / mean) for number in SHRINK]))
    return share, 2 * shrink + one_sided


@lru_cache(maxsize=1024)
def _model(bits: int, share: int, shape: int) -> Any:
    """The coder's model of one table; raises PayloadError for numbers that `_fitting` does not give."""
    if share >= len(STILL) or shape >= 2 * len(SHRINK):
        raise PayloadError(f"a table numbered {share}, {shape}")
    return ans.models(_table(bits, STILL[share], SHRINK[shape // 2], bool(shape % 2))[None])[0]


def _table(bits: int, still: int, shrink: int, one_sided: bool) -> Array:
    """uint16 (2^bits,), 2^16 in all: `still` for 0, the rest by how large a change is, at least 1 each."""
    symbols = 2**bits
    sizes = [d if one_sided else min(d, symbols - d) for d in range(1, symbols)]
    weights, weight = [0], 2**40
    for _ in range(max(sizes)):
        weights.append(weight)
        weight = weight * shrink // 32
    each = [weights[size] for size in sizes]
    total = sum(each)
    room = ans.TABLE_SUM - still - (symbols - 1)
    if room < 0:
        still, room = still + room, 0
    frequencies = [still, *(1 + room * weight // total for weight in each)]
    frequencies[0 if room == 0 else 1] += ans.TABLE_SUM - sum(frequencies)
    return np.array(frequencies, np.uint16)
