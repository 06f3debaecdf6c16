"""Promise 6, and 5 for payloads: whatever bytes come, a tensor of the declared shape or PayloadError.

The full form of the fuzzing: python benchmarks/codec_fuzz.py
"""

from __future__ import annotations

import io
import random
import resource
import struct
import time
import tracemalloc
import zlib

import lz4.block
import numpy as np
import pytest
import zstandard
from PIL import PngImagePlugin

from splitexit import codecs
from splitexit.codecs import Codec
from splitexit.codecs._zstd import decompress
from splitexit.errors import PayloadError
from tests.golden.codecs import CASES, create, example
from tests.mutations import HEADER_BYTES, mutations

ROUNDS = 5000
BOMB_BYTES = 64 * 2**20
SLACK_BYTES = 32 * 1024
FEATURES = (64, 16, 16)


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


@pytest.mark.parametrize("codec_id", CASES)
def test_promise_6_memory_is_bounded_by_the_tensor(codec_id: str) -> None:
    """At most three times the float32 values while decoding, and a constant, whatever the payload says."""
    codec = create(codec_id, (3, 64, 48) if codecs.load(codec_id).input_only else FEATURES)
    payload = codec.encode(example(codec))
    check(codec, payload)
    tracemalloc.start()
    try:
        for broken in (payload, *mutations(payload, random.Random(codec_id), 100)):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            check(codec, broken)
            assert tracemalloc.get_traced_memory()[1] - before < 3 * 4 * codec.size + SLACK_BYTES
    finally:
        tracemalloc.stop()


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


def lz4_block(size_bytes: int) -> bytes:
    """An LZ4 block: some hundred KB for 64 MiB."""
    block: bytes = lz4.block.compress(bytes(size_bytes), store_size=False)
    return block


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


@pytest.mark.serial
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


@pytest.mark.parametrize("size_bytes", [SIZE - 1, SIZE + 1, BOMB_BYTES])
def test_promise_6_lz4_blocks_of_another_size(size_bytes: int) -> None:
    """Refused, and neither is memory left as it was found handed out nor more of it taken."""
    codec = create("affine:pack=lz4", FEATURES)
    start = codec.encode(np.zeros(FEATURES, np.float32))[: HEADER_BYTES + 4]
    np.testing.assert_array_equal(codec.decode(start + lz4_block(SIZE)), np.zeros(FEATURES, np.float32))
    payload = (start + lz4_block(size_bytes))[: codec.max_bytes]
    with pytest.raises(PayloadError, match="LZ4|bytes of levels"):
        codec.decode(payload)


@pytest.mark.parametrize("size", [(16, 12), (16, 16), (16383, 16383)])
def test_promise_6_webp_files_that_declare_another_size(size: tuple[int, int]) -> None:
    """Refused before Pillow opens them, in the frame and in an extended container."""
    codec = create("webp", (3, 16, 12))
    file = bytearray(codec.encode(example(codec)))
    frame = file.index(b"\x9d\x01\x2a")
    file[frame + 3 : frame + 7] = struct.pack("<HH", *size)
    assert not check(codec, bytes(file))
    canvas = b"VP8X" + struct.pack("<I4s", 10, b"") + b"".join(struct.pack("<I", side - 1)[:3] for side in size)
    body = file[HEADER_BYTES + 12 :]
    riff = b"RIFF" + struct.pack("<I", 4 + len(canvas) + len(body)) + b"WEBP" + canvas + bytes(body)
    assert not check(codec, bytes(file[:HEADER_BYTES]) + riff)


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
