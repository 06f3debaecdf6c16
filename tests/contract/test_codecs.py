"""What every codec in the table must do."""

from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from splitexit import codecs
from splitexit.codecs import CODECS, Array, Codec, FittedCodec
from splitexit.codecs.affine import Affine
from splitexit.codecs.channels import Channels
from splitexit.codecs.range import Range
from splitexit.codecs.topk import TopK
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


QUANTISED = [i for i in CASES if codecs.parse(i)[0] in ("uint8", "affine", "topk", "range", "delta", "channels")]


def bound(codec: Codec, features: Array) -> tuple[Array, Array]:
    """Which values are quantised, by the codec's own words, and how far each may be off: step / 2, and rounding."""
    sent, rows = np.ones(codec.shape, bool), features.reshape(1, -1)
    if isinstance(codec, Affine | Range) and codec.per == "channel":
        rows = features.reshape(codec.shape[0], -1)
    if isinstance(codec, Channels):
        sent[:] = np.isin(np.arange(codec.shape[0]), codec._kept)[:, None, None]
    if isinstance(codec, TopK):
        sent[:] = np.abs(features) > np.sort(np.abs(features), axis=None)[codec.size - codec.count]
    if isinstance(codec, Range):
        low, step = codec._low, codec._step
        sent = ((rows >= low) & (rows <= low + codec._top * step)).reshape(codec.shape)
    else:
        # A bfloat16 step is at most 1 / 128 longer than it has to be, and so is the way down to `low`.
        step = (np.ptp(rows, axis=1, keepdims=True) + np.abs(rows).max() / 128) / (2 ** getattr(codec, "bits", 8) - 1)
        step *= 1 + 1 / 128
    halves = np.broadcast_to(step / 2, rows.shape).reshape(codec.shape)
    return sent, halves + 1e-6 * np.abs(features).max()


@pytest.mark.parametrize("codec_id", QUANTISED)
@pytest.mark.parametrize("seed", range(5))
def test_quantised_values_are_off_by_half_a_step_at_most(codec_id: str, seed: int) -> None:
    """Those that are sent; for what a ReLU leaves and for values of both signs."""
    codec = create(codec_id, CASES[codec_id])
    rng = np.random.default_rng(seed)
    for features in (example(codec), rng.normal(1, 3, codec.shape).astype(np.float32)):
        sent, most = bound(codec, features)
        off = np.abs(codec.decode(codec.encode(features)).astype(np.float64) - features)
        assert sent.any()
        assert (off[sent] <= most[sent]).all()


@pytest.mark.parametrize("codec_id", ["affine", "affine:per=channel", "topk", "range", "delta", "channels:keep=5"])
def test_more_bits_are_more_bytes_and_less_error(codec_id: str) -> None:
    """Of a map as a ReLU leaves it; strictly."""
    shape = (8, 16, 16)
    features = np.maximum(np.random.default_rng(0).normal(0, 2, (40, *shape)), 0).astype(np.float32)
    joint = "," if ":" in codec_id else ":"
    sizes, errors = [], []
    for bits in (1, 2, 3, 4, 5, 6, 7, 8):
        codec = fitted_to(features[:30], f"{codec_id}{joint}bits={bits}")
        payloads = [codec.encode(one) for one in features[30:]]
        sizes.append(sum(map(len, payloads)))
        errors.append(float(np.square(np.stack([codec.decode(p) for p in payloads]) - features[30:]).mean()))
    assert all(few < many for few, many in pairwise(sizes))
    assert all(coarse > fine for coarse, fine in pairwise(errors))


def fitted_to(features: Array, codec_id: str) -> Codec:
    """The codec, fitted where it needs it; all gradients are one."""
    kind, params = codecs.load(codec_id), codecs.parse(codec_id)[1]
    ones = partial(np.ones_like, features)
    group = kind.fit(features, ones, **params) if issubclass(kind, FittedCodec) else None
    return codecs.create(codec_id, shape=features.shape[1:], tensors=group)


@pytest.mark.parametrize("codec_id", ["range", "range:bits=3,per=channel", "delta", "channels:keep=3"])
def test_what_is_fitted_is_fitted_the_same_again(codec_id: str) -> None:
    """Equal features, equal tensors, whatever order they lie in; and a codec of them takes the features."""
    features = np.maximum(np.random.default_rng(1).normal(0, 1, (9, 4, 5, 6)), 0).astype(np.float32)
    one, other = fitted_to(features, codec_id), fitted_to(np.asfortranarray(features), codec_id)
    assert one.encode(features[0]) == other.encode(features[0])
    assert one.decode(one.encode(features[0])).shape == (4, 5, 6)


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
