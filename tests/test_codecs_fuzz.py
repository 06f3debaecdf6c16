"""Promise 6, and 5 for payloads: whatever bytes come, a tensor of the declared shape or PayloadError.

The full form of the fuzzing: SPLITEXIT_FUZZ=1000000 pytest tests/test_codecs_fuzz.py
"""

from __future__ import annotations

import io
import os
import random
import resource
import struct
import time
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
import zstandard
from PIL import PngImagePlugin

from splitexit.codecs import Codec
from splitexit.codecs._zstd import decompress
from splitexit.errors import PayloadError
from tests.golden.codecs import CASES, create, example

ROUNDS = int(os.environ.get("SPLITEXIT_FUZZ", "20000"))
HEADER_BYTES = 10
BOMB_BYTES = 64 * 2**20
FEATURES = (64, 16, 16)


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


def check(codec: Codec, payload: bytes) -> bool:
    """Whether it decodes; fails on anything but a good tensor or a one-line PayloadError."""
    try:
        decoded = codec.decode(payload)
    except PayloadError as error:
        assert "\n" not in str(error)
        return False
    assert decoded.shape == codec.shape
    assert decoded.dtype == np.float32
    assert np.isfinite(decoded).all()
    return True


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("codec_id", CASES)
def test_promise_5_mutated_payloads(codec_id: str) -> None:
    """Thousands of broken payloads per codec; each decodes or is refused."""
    codec = create(codec_id, CASES[codec_id])
    payload = codec.encode(example(codec))
    decoded = sum(check(codec, broken) for broken in mutations(payload, random.Random(codec_id), ROUNDS))
    assert decoded < ROUNDS


@pytest.mark.parametrize("codec_id", CASES)
def test_promise_5_random_bodies(codec_id: str) -> None:
    """A right header, and then anything."""
    codec, rng = create(codec_id, CASES[codec_id]), random.Random(1)
    header = codec.encode(example(codec))[:HEADER_BYTES]
    for _ in range(ROUNDS // 10):
        check(codec, header + rng.randbytes(rng.randrange(600)))


def honest(size_bytes: int) -> bytes:
    """A frame that declares its size: a few KB for 64 MiB."""
    return zstandard.ZstdCompressor(level=1).compress(bytes(size_bytes))


def undeclared(size_bytes: int) -> bytes:
    """A frame that does not."""
    return zstandard.ZstdCompressor(level=1, write_content_size=False).compress(bytes(size_bytes))


def lying(size_bytes: int, declared: int) -> bytes:
    """A frame whose declared size is not its own: descriptor 0xA0 is a single segment with four size bytes."""
    frame = honest(size_bytes)
    blocks = frame[zstandard.frame_header_size(frame) :]
    return frame[:4] + b"\xa0" + struct.pack("<I", declared) + blocks


def wide(size_bytes: int) -> bytes:
    """A frame of the right size with a window of 128 MiB: descriptor 0x80, window byte 0x88."""
    blocks = honest(size_bytes)[zstandard.frame_header_size(honest(size_bytes)) :]
    return zstandard.MAGIC_NUMBER.to_bytes(4, "little") + b"\x80\x88" + struct.pack("<I", size_bytes) + blocks


SIZE = int(np.prod(FEATURES))
SKIPPABLE = struct.pack("<II", 0x184D2A50, 4) + b"skip"
BOMBS = {
    "declared": honest(BOMB_BYTES),
    "undeclared": undeclared(BOMB_BYTES),
    "undeclared, right size": undeclared(SIZE),
    "lying": lying(BOMB_BYTES, SIZE),
    "lying, too little": lying(SIZE - 1, SIZE),
    "concatenated": honest(SIZE) + honest(BOMB_BYTES),
    "concatenated, right size": honest(SIZE // 2) + honest(SIZE // 2),
    "wide window": wide(SIZE),
    "skippable first": SKIPPABLE + honest(SIZE),
    "skippable last": honest(SIZE) + SKIPPABLE,
    "not zstd": b"\x28\xb5\x2f\xfc" + bytes(50),
    "nothing": b"",
}


def test_the_bombs_are_what_they_claim() -> None:
    """Otherwise the tests below would prove nothing: the frames themselves are sound."""
    assert decompress(honest(SIZE), SIZE) == bytes(SIZE)
    assert zstandard.get_frame_parameters(BOMBS["wide window"]).window_size == 2**27
    assert zstandard.get_frame_parameters(BOMBS["lying"]).content_size == SIZE
    assert zstandard.get_frame_parameters(BOMBS["declared"]).content_size == BOMB_BYTES
    assert zstandard.ZstdDecompressor(max_window_size=2**27).decompress(BOMBS["wide window"]) == bytes(SIZE)


@pytest.mark.parametrize("kind", BOMBS)
def test_promise_6_every_bomb_is_refused(kind: str) -> None:
    """By the frame reader itself, and inside a payload."""
    with pytest.raises(PayloadError):
        decompress(BOMBS[kind], SIZE)
    codec = create("uint8", FEATURES)
    start = codec.encode(np.zeros(FEATURES, np.float32))[: HEADER_BYTES + 8]
    with pytest.raises(PayloadError):
        codec.decode(start + BOMBS[kind])


def test_promise_6_a_thousand_bombs_cost_nothing() -> None:
    """Peak memory rises by less than twice the cap; ninety-nine in a hundred are refused in under 10 ms."""
    codec = create("uint8", FEATURES)
    start = codec.encode(np.zeros(FEATURES, np.float32))[: HEADER_BYTES + 8]
    bombs = [start + bomb for bomb in BOMBS.values()]
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for number in range(1000):
        begun = time.perf_counter()
        assert not check(codec, bombs[number % len(bombs)])
        seconds.append(time.perf_counter() - begun)
    rise_bytes = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib)
    assert rise_bytes < max(2 * codec.max_bytes, 2 * 2**20)
    assert sorted(seconds)[990] < 0.010


def test_promise_6_images_that_declare_another_size() -> None:
    """Refused before a single pixel is made."""
    png, jpeg = create("png", (3, 16, 12)), create("jpeg", (3, 16, 12))
    file = bytearray(png.encode(example(png)))
    file[HEADER_BYTES + 16 : HEADER_BYTES + 24] = struct.pack(">II", 60_000, 60_000)
    assert not check(png, bytes(file))
    file = bytearray(jpeg.encode(example(jpeg)))
    frame = file.index(b"\xff\xc0")
    for size in ((65_000, 65_000), (9_000, 9_000), (12, 16)):
        file[frame + 5 : frame + 9] = struct.pack(">HH", *size)
        assert not check(jpeg, bytes(file))


def test_promise_6_png_text_is_refused() -> None:
    """A text chunk of some hundred bytes unpacks to megabytes."""
    codec = create("png", (3, 16, 12))
    text = PngImagePlugin.PngInfo()
    text.add_text("bomb", "x" * 500_000, zip=True)
    payload = codec.encode(example(codec))
    file = io.BytesIO()
    with codec._image(example(codec)) as image:  # type: ignore[attr-defined]
        image.save(file, "PNG", pnginfo=text)
    assert len(file.getvalue()) < codec.max_bytes
    with pytest.raises(PayloadError, match="zTXt"):
        codec.decode(payload[:HEADER_BYTES] + file.getvalue())


def test_promise_6_png_data_beyond_the_image() -> None:
    """More rows than declared: whatever Pillow says to them, the tensor has its shape and memory stays."""
    codec = create("png", (3, 16, 12))
    payload = codec.encode(example(codec))
    data = zlib.compress(bytes(2**20), 9)
    chunk = struct.pack(">I", len(data)) + b"IDAT" + data + struct.pack(">I", zlib.crc32(b"IDAT" + data))
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    check(codec, payload[: HEADER_BYTES + 33] + chunk + end)
