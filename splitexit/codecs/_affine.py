"""Affine quantisation of rows of values: x = low + step * q with q in 0 .. 2^bits - 1 (Jacob et al., CVPR 2018).

A row, the whole tensor or one channel of it, has a range of its own, which travels with the payload as two bfloat16
numbers (the upper half of a float32): `low` rounded down and `step` up, so that the levels always reach from the
smallest value to the largest. That costs at most 0.8 % of the step, and half of what float32 ranges would weigh where
every channel has one.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from splitexit.codecs import Array, Shape
from splitexit.errors import InputError, PayloadError

Per = Literal["tensor", "channel"]

LARGEST = 1e38
"""The largest magnitude that is quantised; float32 ends at 3.4e38."""

TINY = np.finfo(np.float32).smallest_subnormal
"""Divides in the place of a step of 0, where all values are equal."""

RANGE_BYTES = 4
"""Of one row: low and step."""


def groups(name: str, shape: Shape, per: Per) -> int:
    """How many rows a tensor has; raises InputError where a channel's range would outweigh its values."""
    if per == "tensor":
        return 1
    if shape[1] * shape[2] < 2:
        raise InputError(f"codec {name}: per=channel needs channels of more than one value, not {shape}; per=tensor")
    return shape[0]


def quantise(rows: Array, bits: int) -> tuple[bytes, Array]:
    """The ranges as they travel, RANGE_BYTES for each row, and the levels, uint8 of the same shape.

    Args:
        rows: float32 (rows, values). Raises PayloadError for values beyond LARGEST.
    """
    low, high = rows.min(axis=1), rows.max(axis=1)
    if max(-low.min(), high.max()) > LARGEST:
        raise PayloadError(f"values in {low.min()}..{high.max()}, magnitudes of at most {LARGEST} expected")
    top = np.float32(2**bits - 1)
    low = _bfloat16(low, up=False)
    step = _bfloat16((high - low) / top, up=True)
    levels = rows - low[:, None]
    levels /= np.maximum(step, TINY)[:, None]
    np.minimum(np.rint(levels, out=levels), top, out=levels)
    ranges = np.concatenate((low, step)).view(np.uint32) >> 16
    return ranges.astype("<u2").tobytes(), levels.astype(np.uint8)


def dequantise(ranges: memoryview, levels: Array, bits: int) -> Array:
    """The inverse: float32 of the shape of `levels`; raises PayloadError for ranges that `quantise` does not write."""
    if len(ranges) != RANGE_BYTES * len(levels):
        raise PayloadError(f"{len(ranges)} bytes of ranges, expected {RANGE_BYTES * len(levels)}")
    halves = np.frombuffer(ranges, "<u2").reshape(2, -1)
    # Magnitudes of floats are ordered as their bits are: infinities and NaN, above all numbers, are refused as well.
    if (halves[0] & 0x7FFF).max() > _half(1.01 * LARGEST) or halves[1].max() > _half(2.1 * LARGEST / (2**bits - 1)):
        raise PayloadError(f"ranges beyond {LARGEST}, or a step below zero")
    low, step = (halves.astype(np.uint32) << 16).view(np.float32)
    values: Array = levels.astype(np.float32)
    values *= step[:, None]
    values += low[:, None]
    return values


def _half(value: float) -> int:
    """The upper half of the bits of a float32."""
    return int(np.float32(value).view(np.uint32)) >> 16


def _bfloat16(values: Array, *, up: bool) -> Array:
    """The next bfloat16 number not below (`up`) or not above each finite float32."""
    away = np.signbit(values) != up
    bits: Array = (values.view(np.uint32) + away * np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)
    return bits.view(np.float32)
