"""What every codec in the table must do."""

from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from splitexit import codecs
from splitexit.codecs import CODECS, Codec
from splitexit.errors import InputError, PayloadError
from tests.golden.codecs import CASES, create, example

HEADER_BYTES = 10


@pytest.fixture(params=CASES)
def codec(request: pytest.FixtureRequest) -> Codec:
    """Every case."""
    return create(request.param, CASES[request.param])


def test_every_codec_has_a_case() -> None:
    """A codec that is added to the table must be added to the cases."""
    assert {codecs.parse(codec_id)[0] for codec_id in CASES} == set(CODECS.names())


@pytest.mark.parametrize("name", CODECS.names())
def test_the_table_and_the_class_agree(name: str) -> None:
    """The name stands in both; every parameter is keyword-only and annotated."""
    kind = CODECS.load(name)
    assert kind.name == name
    assert issubclass(kind, Codec)
    for parameter in inspect.signature(kind).parameters.values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.annotation is not inspect.Parameter.empty


def test_parameters_are_stored_unchanged(codec: Codec) -> None:
    """And the id is rebuilt from them."""
    for key, value in codecs.parse(codec.codec_id)[1].items():
        assert getattr(codec, key) == value
    assert codec.codec_id == codecs.canonical(codec.codec_id)


def test_decoding_gives_a_tensor_of_the_shape(codec: Codec) -> None:
    """float32, contiguous, writable, finite; the exact one where the codec says that it loses nothing."""
    features = example(codec)
    before = features.copy()
    payload = codec.encode(features)
    decoded = codec.decode(payload)
    assert type(payload) is bytes
    assert HEADER_BYTES < len(payload) <= codec.max_bytes
    assert decoded.shape == codec.shape
    assert decoded.dtype == np.float32
    assert decoded.flags.c_contiguous
    assert decoded.flags.writeable
    assert np.isfinite(decoded).all()
    np.testing.assert_array_equal(features, before)
    if codec.lossless:
        np.testing.assert_array_equal(decoded, features)


def test_the_same_input_gives_the_same_bytes(codec: Codec) -> None:
    """Also from another instance, and from a tensor laid out in another order."""
    features = example(codec)
    strided = np.asfortranarray(features)
    other = create(codec.codec_id, codec.shape)
    assert codec.encode(features) == codec.encode(features) == other.encode(strided)


@pytest.mark.parametrize("codec_id", [i for i in CASES if codecs.load(i).lossless])
def test_lossless_means_every_tensor(codec_id: str) -> None:
    """All 256 pixel values, or any float32."""
    codec = create(codec_id, CASES[codec_id])
    rng = np.random.default_rng(0)
    for _ in range(20):
        if codec.input_only:
            tensor = rng.integers(0, 256, codec.shape).astype(np.float32) / np.float32(255)
        else:
            tensor = rng.standard_normal(codec.shape).astype(np.float32) * np.float32(1e30)
        np.testing.assert_array_equal(codec.decode(codec.encode(tensor)), tensor)


@pytest.mark.parametrize("kind", ["zeros", "ones", "noise"])
def test_extreme_tensors(codec: Codec, kind: str) -> None:
    """A constant tensor has no range; noise does not compress; both stay below `max_bytes`."""
    noise = np.random.default_rng(1).random(codec.shape, dtype=np.float32)
    tensor = {"zeros": np.zeros_like(noise), "ones": np.ones_like(noise), "noise": noise}[kind]
    payload = codec.encode(tensor)
    assert len(payload) <= codec.max_bytes
    assert np.isfinite(codec.decode(payload)).all()


def test_encoding_refuses_other_tensors(codec: Codec) -> None:
    """Another shape, another type, values that are not finite: one line each."""
    features = example(codec)
    spoilt = features.copy()
    spoilt[0, 0, 0] = np.nan
    for wrong in (features[:, :-1], features.astype(np.float64), spoilt):
        with pytest.raises(PayloadError, match="codec") as caught:
            codec.encode(wrong)
        assert "\n" not in str(caught.value)


def test_decoding_refuses_what_is_not_its_own(codec: Codec) -> None:
    """Nothing, too little, too much, an unknown version, another magic: each says what differs."""
    payload = codec.encode(example(codec))
    cases = {
        b"": "0 bytes",
        payload[:9]: "9 bytes",
        payload[:10]: codec.name,
        payload[:-1]: codec.name,
        payload + b"\0": codec.name,
        b"\0" + payload[1:]: "0x00",
        payload[:1] + b"\x07" + payload[2:]: "version 7",
        payload[:2] + b"\xff\xff" + payload[4:]: "codec tag",
        payload[:4] + b"\xff\xff" + payload[6:]: "shape",
        payload + bytes(codec.max_bytes): "at most",
    }
    for wrong, said in cases.items():
        with pytest.raises(PayloadError, match=said) as caught:
            codec.decode(wrong)
        assert "\n" not in str(caught.value)


def test_no_codec_reads_the_payload_of_another(codec: Codec) -> None:
    """Nor its own of another shape."""
    payload = codec.encode(example(codec))
    channels, height, width = codec.shape
    others = [create(i, s) for i, s in CASES.items() if i != codec.codec_id]
    for other in [*others, create(codec.codec_id, (channels, width, height))]:
        with pytest.raises(PayloadError):
            other.decode(payload)


def test_an_instance_may_be_shared_between_threads(codec: Codec) -> None:
    """A server decodes in a pool."""
    payload = codec.encode(example(codec))
    expected = codec.decode(payload)
    with ThreadPoolExecutor(4) as pool:
        for decoded in pool.map(codec.decode, [payload] * 100):
            np.testing.assert_array_equal(decoded, expected)
        assert set(pool.map(codec.encode, [example(codec)] * 100)) == {payload}


@pytest.mark.parametrize("shape", [(3, 4), (0, 4, 4), (3, 70_000, 4)])
def test_impossible_shapes(codec: Codec, shape: tuple[int, ...]) -> None:
    """Refused when the codec is made."""
    with pytest.raises(InputError, match="shape"):
        create(codec.codec_id, shape)  # type: ignore[arg-type]
