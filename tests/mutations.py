"""Payloads with something wrong, for tests and for benchmarks/codec_fuzz.py."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

HEADER_BYTES = 10


def mutations(payload: bytes, rng: random.Random, rounds: int) -> Iterator[bytes]:
    """Payloads with one to three things wrong, most of them behind the header."""
    for _ in range(rounds):
        data = bytearray(payload)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            _spoil(data, rng)
        yield bytes(data)


def _spoil(data: bytearray, rng: random.Random) -> None:
    start = rng.choice((0, HEADER_BYTES, HEADER_BYTES)) if len(data) > HEADER_BYTES else 0
    place = rng.randrange(start, len(data)) if len(data) > start else 0
    match rng.randrange(7):
        case 0 if data:
            data[place] ^= 1 << rng.randrange(8)
        case 1 if data:
            data[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF))
        case 2:
            del data[place:]
        case 3:
            data += rng.randbytes(rng.randrange(1, 40))
        case 4:
            data[place : place + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, struct.pack("<f", 3e38), rng.randbytes(4)))
        case 5:
            del data[place : place + rng.randrange(1, 9)]
        case _:
            data[place:place] = data[start : start + rng.randrange(1, 30)]
