"""What is particular to single codecs."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from splitexit import codecs
from splitexit.errors import ArtifactError, InputError, PayloadError
from tests.golden.codecs import FEATURES, IMAGE, features, image, tensors

HEADER_BYTES = 10
Array = np.ndarray[Any, np.dtype[Any]]
SMALL = (2, 3, 4)


def test_sizes_that_follow_from_the_shape() -> None:
    """A CIFAR image is 3,072 pixels bytes; ten more for the header."""
    picture = image((3, 32, 32))
    sizes = {"raw": 4 * 3072, "fp16": 2 * 3072, "image": 3072}
    for codec_id, size in sizes.items():
        assert len(codecs.create(codec_id, shape=(3, 32, 32)).encode(picture)) == HEADER_BYTES + size


def test_raw_is_little_endian_single_precision() -> None:
    """Whatever the machine's own order."""
    payload = codecs.create("raw", shape=(1, 1, 2)).encode(np.array([[[1.0, -2.5]]], np.float32))
    assert payload[:2] == b"\x5e\x01"
    assert payload[4:] == bytes.fromhex("0100 0100 0200 0000803f 000020c0")


def test_raw_refuses_what_is_not_finite() -> None:
    """A NaN would pass through the whole network."""
    codec = codecs.create("raw", shape=(1, 1, 1))
    payload = codec.encode(np.zeros((1, 1, 1), np.float32))
    with pytest.raises(PayloadError, match="not finite"):
        codec.decode(payload[:-4] + bytes.fromhex("0000c07f"))


def test_fp16_clips() -> None:
    """Instead of sending infinity."""
    codec = codecs.create("fp16", shape=(1, 1, 3))
    decoded = codec.decode(codec.encode(np.array([[[1e6, -1e6, 0.1]]], np.float32)))
    np.testing.assert_array_equal(decoded[0, 0], np.array([65504, -65504, np.float16(0.1)], np.float32))


FLOATS = st.floats(-(2.0**126), 2.0**126, width=32)


@settings(max_examples=200, deadline=None)
@given(arrays(np.float32, SMALL, elements=FLOATS), st.sampled_from([1, 3]))
def test_uint8_is_off_by_half_a_step_at_most(tensor: Array, level: int) -> None:
    """The step being the tensor's range in 255 parts; rounding in single precision on top."""
    codec = codecs.create(f"uint8:level={level}", shape=SMALL)
    decoded = codec.decode(codec.encode(tensor)).astype(np.float64)
    low, high = float(tensor.min()), float(tensor.max())
    rounding = 4e-7 * max(abs(low), abs(high)) + 255 * 2e-45
    assert np.abs(decoded - tensor).max() <= (high - low) / 255 / 2 + rounding


def test_uint8_refuses_what_its_range_cannot_hold() -> None:
    """Before it sends a range that is infinite."""
    with pytest.raises(PayloadError, match=r"1e\+38"):
        codecs.create("uint8", shape=SMALL).encode(np.full(SMALL, 2e38, np.float32))


@pytest.mark.parametrize("codec_id", ["image", "png"])
def test_pixels_come_back_exactly(codec_id: str) -> None:
    """All 256 values; and a value between two pixels goes to the nearer one."""
    codec = codecs.create(codec_id, shape=(1, 16, 16))
    pixels = np.arange(256, dtype=np.float32).reshape(1, 16, 16)
    exact = pixels / np.float32(255)
    np.testing.assert_array_equal(codec.decode(codec.encode(exact)), exact)
    near = np.clip((pixels + np.float32(0.4)) / np.float32(255), 0, 1)
    np.testing.assert_array_equal(codec.decode(codec.encode(near)), exact)


@pytest.mark.parametrize("codec_id", ["png", "jpeg", "jpeg:headers=false", "webp"])
def test_image_codecs_want_images(codec_id: str) -> None:
    """One or three channels."""
    with pytest.raises(InputError, match="1 or 3 channels, not 16"):
        codecs.create(codec_id, shape=(16, 8, 8))


def test_a_jpeg_payload_is_a_jpeg_file() -> None:
    """Any viewer opens what follows the header, and sees what is decoded."""
    codec = codecs.create("jpeg", shape=IMAGE)
    payload = codec.encode(image(IMAGE))
    with Image.open(io.BytesIO(payload[HEADER_BYTES:])) as picture:
        assert (picture.format, picture.size) == ("JPEG", (12, 16))
        pixels = np.asarray(picture)
    decoded = np.rint(codec.decode(payload) * 255).astype(np.uint8)
    np.testing.assert_array_equal(decoded.transpose(1, 2, 0), pixels)
    assert np.abs(codec.decode(payload) - image(IMAGE)).mean() < 0.1


@pytest.mark.parametrize("quality", [5, 50, 75, 95])
@pytest.mark.parametrize(("shape", "saved"), [((3, 32, 32), 623), ((1, 28, 28), 328), ((3, 17, 33), 623)])
def test_without_headers_the_same_image_in_fewer_bytes(quality: int, shape: tuple[int, int, int], saved: int) -> None:
    """What is left out is the same for every image of one size and quality."""
    full = codecs.create(f"jpeg:quality={quality}", shape=shape)
    bare = codecs.create(f"jpeg:headers=false,quality={quality}", shape=shape)
    rng = np.random.default_rng(quality)
    for _ in range(10):
        picture = rng.integers(0, 256, shape).astype(np.float32) / np.float32(255)
        long, short = full.encode(picture), bare.encode(picture)
        assert len(long) - len(short) == saved
        assert long.endswith(short[HEADER_BYTES:])
        np.testing.assert_array_equal(full.decode(long), bare.decode(short))


@pytest.mark.parametrize("shape", [(3, 16, 12), (1, 28, 28), (3, 17, 33)])
@pytest.mark.parametrize("quality", [0, 60, 100])
def test_a_webp_payload_is_a_webp_file(shape: tuple[int, int, int], quality: int) -> None:
    """Any viewer opens what follows the header; without headers the same image comes in 26 bytes less, or 27."""
    full = codecs.create(f"webp:quality={quality}", shape=shape)
    bare = codecs.create(f"webp:headers=false,quality={quality}", shape=shape)
    payload = full.encode(image(shape))
    with Image.open(io.BytesIO(payload[HEADER_BYTES:])) as picture:
        assert (picture.format, picture.size) == ("WEBP", (shape[2], shape[1]))
        pixels = np.asarray(picture.convert("L" if shape[0] == 1 else "RGB")).reshape(*shape[1:], shape[0])
    decoded = full.decode(payload)
    np.testing.assert_array_equal(np.rint(decoded * 255).astype(np.uint8).transpose(1, 2, 0), pixels)
    assert len(payload) - len(bare.encode(image(shape))) in (26, 27)
    np.testing.assert_array_equal(bare.decode(bare.encode(image(shape))), decoded)
    assert np.abs(decoded - image(shape)).mean() < 0.2


def test_webp_is_for_sides_that_it_can_name() -> None:
    """Fourteen bits."""
    with pytest.raises(InputError, match="16383"):
        codecs.create("webp", shape=(3, 16384, 2))


def test_lower_quality_means_fewer_bytes() -> None:
    """And the parameter arrives."""
    for name in ("jpeg", "webp"):
        sizes = [len(codecs.create(f"{name}:quality={q}", shape=IMAGE).encode(image(IMAGE))) for q in (5, 50, 95)]
        assert sizes == sorted(sizes)
        assert len(set(sizes)) == 3


def bottleneck(**changes: Any) -> codecs.Codec:
    """With some of its tensors replaced, or left out where None."""
    given_ = {key: value for key, value in (tensors(2, 8) | changes).items() if value is not None}
    return codecs.create("bottleneck:channels=2", shape=FEATURES, tensors=given_)


def test_bottleneck_does_what_its_equations_say() -> None:
    """Against double precision."""
    x, t = features(FEATURES).astype(np.float64), tensors(2, 8)
    z = np.einsum("kc,chw->khw", t["encoder.weight"], x) + t["encoder.bias"][:, None, None]
    q = np.clip(np.rint(255 * (z - t["low"]) / (t["high"] - t["low"])), 0, 255)
    back = t["low"] + q * (t["high"] - t["low"]) / 255
    expected = np.einsum("ck,khw->chw", t["decoder.weight"], back) + t["decoder.bias"][:, None, None]
    codec = bottleneck()
    decoded = codec.decode(codec.encode(features(FEATURES)))
    np.testing.assert_allclose(decoded, np.maximum(expected, 0), rtol=1e-5, atol=1e-5)
    assert (decoded == 0).any()
    assert (decoded > 0).any()


def test_bottleneck_takes_a_convolution_s_weights() -> None:
    """As a 1x1 convolution stores them, in any float type; the payload is the same."""
    t = tensors(2, 8)
    conv = {key: np.asarray(value, np.float64) for key, value in t.items()}
    conv["encoder.weight"] = conv["encoder.weight"][:, :, None, None]
    conv["decoder.weight"] = conv["decoder.weight"][:, :, None, None]
    conv["low"] = conv["low"].reshape(1)
    assert bottleneck(**conv).encode(features(FEATURES)) == bottleneck().encode(features(FEATURES))


def test_another_training_is_another_codec() -> None:
    """Its payloads are refused, not decoded to nonsense."""
    payload = bottleneck(low=np.float32(-8)).encode(features(FEATURES))
    with pytest.raises(PayloadError, match="other weights"):
        bottleneck().decode(payload)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"low": None}, "tensor 'low' is missing"),
        ({"encoder.weight": np.zeros((3, 8))}, r"'encoder.weight' is \(3, 8\), expected finite values of \(2, 8\)"),
        ({"encoder.weight": np.zeros((8, 2))}, "encoder.weight"),
        ({"decoder.bias": np.full(8, np.inf)}, "decoder.bias"),
        ({"high": np.float32(-12)}, "is empty; train it again"),
    ],
)
def test_bottleneck_refuses_tensors_that_do_not_fit(changes: dict[str, Any], said: str) -> None:
    """One line with the tensor's name."""
    with pytest.raises(ArtifactError, match=said):
        bottleneck(**changes)


def test_promise_8_the_cap_follows_from_the_shape() -> None:
    """A server can take `max_bytes` of its largest tensor as its own cap; at the cap, one more is refused."""
    codec = codecs.create("raw", shape=SMALL)
    assert codec.max_bytes == 4 * 24 + 4096
    with pytest.raises(PayloadError, match="expected 96"):
        codec.decode(codec.encode(np.zeros(SMALL, np.float32)) + bytes(4086 - 10))
    with pytest.raises(PayloadError, match="at most 4192"):
        codec.decode(bytes(4193))
