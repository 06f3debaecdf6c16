"""Counts and sums over rows, as they come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from splitexit.sim.compiled.jit import SOURCES, entry, inlined
from splitexit.sim.compiled.layout import ANSWERED, GIVEN_UP, REPLIED, UNSENT, Array, record

OCTAVE_BITS = 13
"""Buckets per octave of response times, as a power of two: the middle of one is at most 2^-14 off, relatively."""

SHIFT = 52 - OCTAVE_BITS
LOWEST = (1023 - 40) << OCTAVE_BITS
"""The bucket of 2^-40 s, a picosecond; what is shorter counts as nothing."""

BUCKETS = 73 << OCTAVE_BITS

JOURNEY_VALUE = record(payload_bytes="i8", said_exit="i4", alone_exit="i4", said_right="i1", alone_right="i1")
"""What a journey is worth, with a reply or without."""

TALLY = record(
    response_s="f8",
    payload_bytes="i8",
    requests="i8",
    right="i8",
    missed="i8",
    sent="i8",
    fallback="i8",
    shed="i8",
    shortest_s="f8",
    longest_s="f8",
)


def _build(sources: int) -> Callable[[Array, Array, Array, Array, Array, Array, Array, float], None]:
    @entry
    def add(
        rows: Array,
        values: Array,
        tally: Array,
        exits: Array,
        buckets: Array,
        scratch: Array,
        bits: Array,
        warmup_s: float,
    ) -> None:
        total = tally[0]
        scratch[0] = 0.0 if sources else 1.0
        for number in range(len(rows)):
            row = rows[np.uint64(number)]
            if row.arrival_s >= warmup_s:
                value = values[row.journey]
                response_s = row.done_s - row.arrival_s
                total.response_s += response_s
                total.shortest_s = min(total.shortest_s, response_s)
                total.longest_s = max(total.longest_s, response_s)
                scratch[0] = response_s
                bucket = (bits[0] >> SHIFT) - LOWEST
                buckets[np.uint64(min(max(bucket, 0), BUCKETS - 1))] += 1
                _count(total, exits, row, value)

    return add


@inlined
def _count(total: Any, exits: Array, row: Any, value: Any) -> None:
    outcome = row.outcome
    total.requests += 1
    total.missed += not row.met
    total.shed += row.shed
    if outcome in (ANSWERED, REPLIED):
        total.right += value.said_right
        exits[np.uint64(value.said_exit)] += 1
    else:
        total.right += value.alone_right
        exits[np.uint64(value.alone_exit)] += 1
    if outcome in (REPLIED, GIVEN_UP):
        total.sent += 1
        total.payload_bytes += value.payload_bytes
    if outcome in (GIVEN_UP, UNSENT):
        total.fallback += 1


add = _build(SOURCES)
"""add(rows, values, tally, exits, buckets, scratch, bits, warmup_s): counts the rows that arrived from `warmup_s` on.

`values` holds JOURNEY_VALUE by journey; `bits` is the memory of `scratch`, one float, read as an integer.
"""
