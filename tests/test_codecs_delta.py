"""Codec delta: the levels of `range`, in fewer bytes where the edge has an earlier tensor; and who remembers what."""

from __future__ import annotations

import random
from functools import cache, partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitexit import codecs
from splitexit.codecs import Array, Codec
from splitexit.codecs import _ans as ans
from splitexit.codecs.delta import SHRINK, STILL, Delta, _table
from splitexit.codecs.range import Range
from splitexit.errors import PayloadError, UnknownReferenceError
from splitexit.live.references import DeviceMemory, EdgeMemory
from tests.golden.codecs import create, features
from tests.mutations import HEADER_BYTES, mutations

SHAPE = (16, 12, 12)
PAIR = (1, "delta")
GOLDEN = "5e01af7a0800060005000151ab476f507b428e0407010301aff7aaab6090bb391feda225354401d41e8e30670f55c1bf13"


def frames(count: int, step: float = 0.2, seed: int = 0) -> Array:
    """Maps that move on by `step` values from one to the next, cut off as by a ReLU: float32 (count, *SHAPE)."""
    rng = np.random.default_rng(seed)
    waves, phase = rng.uniform(0.2, 0.7, (16, 2, 1, 1)), rng.uniform(0, 6, (16, 1, 1))
    row, column = np.indices(SHAPE[1:])
    moved = [np.sin(waves[:, 0] * row + waves[:, 1] * (column + step * t) + phase) for t in range(count)]
    maps: Array = np.maximum(np.array(moved), 0).astype(np.float32)
    return maps


@cache
def fitted(bits: int = 4, per: str = "tensor", name: str = "delta") -> Codec:
    kind = codecs.load(name)
    assert issubclass(kind, Range)
    tensors = kind.fit(frames(30, 3.0, 1), partial(np.empty, 0), bits=bits, per=per)  # type: ignore[arg-type]
    return codecs.create(f"{name}:bits={bits},per={per}", shape=SHAPE, tensors=tensors)


def delta(bits: int = 4, per: str = "tensor") -> Delta:
    made = fitted(bits, per)
    assert isinstance(made, Delta)
    return made


@pytest.mark.parametrize("per", ["tensor", "channel"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_it_decodes_what_range_decodes(bits: int, per: str) -> None:
    """Whole and as a difference; the first payload is a byte longer than `range`'s, the others are shorter."""
    codec, base = delta(bits, per), fitted(bits, per, "range")
    reference, seen = None, dict[bytes, Array]()
    for number, frame in enumerate(frames(5)):
        levels = codec.levels(frame)
        payload = codec.write(levels, reference)
        read = codec.read(payload, seen.get)
        np.testing.assert_array_equal(read, levels)
        np.testing.assert_array_equal(codec.restore(read), base.decode(base.encode(frame)))
        if number == 0:
            assert payload == codec.encode(frame)
            assert len(payload) == len(base.encode(frame)) + 1
        elif bits < 8:
            assert len(payload) < 0.8 * len(base.encode(frame))
        reference, seen[codec.digest(levels)] = levels, levels


def test_what_differs_too_much_is_sent_whole() -> None:
    codec, rng = delta(), np.random.default_rng(0)
    noise = [np.maximum(rng.normal(0, 1, SHAPE), 0).astype(np.float32) for _ in range(2)]
    payload = codec.write(codec.levels(noise[0]), codec.levels(noise[1]))
    assert payload == codec.encode(noise[0])


def test_nothing_changed_takes_next_to_nothing() -> None:
    """2304 values in some bytes behind header and name."""
    codec = delta()
    levels = codec.levels(frames(1)[0])
    assert len(codec.write(levels, levels)) < HEADER_BYTES + 13 + 12


@pytest.mark.parametrize("scale", [0.2, 0.5, 1.0, 3.0])
def test_differences_cost_little_more_than_their_entropy(scale: float) -> None:
    """Of both kinds of values: the tables have two numbers each, and serve changes of a Laplace distribution."""
    codec, rng = delta(5), np.random.default_rng(1)
    reference = np.asarray(rng.integers(0, 24, (1, codec.size)), np.uint8)
    reference = np.where(rng.random(reference.shape) < 0.5, codec._rest, reference)
    change = np.rint(rng.laplace(0, scale, reference.shape)).astype(np.int64)
    levels: Array = np.clip(reference + change, 0, 31).astype(np.uint8)
    at_rest, entropy = reference == codec._rest, 0.0
    for part in (at_rest, ~at_rest):
        counts = np.bincount((levels - reference)[part] & 31)
        shares = counts[counts > 0] / counts.sum()
        entropy -= float((shares * np.log2(shares)).sum()) * counts.sum() / 8
    assert len(codec._difference(levels, reference)) - 13 < 1.1 * entropy + 8


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_any_levels_come_back(bits: int, seed: int, same: float) -> None:
    codec, rng = delta(bits), np.random.default_rng(seed)
    shape = (1, codec.size)
    reference, levels = (rng.integers(0, 2**bits, shape).astype(np.uint8) for _ in range(2))
    levels = np.where(rng.random(shape) < same, reference, levels)
    body = codec._difference(levels, reference)
    known = {codec.digest(reference): reference}
    np.testing.assert_array_equal(codec._read(memoryview(body), known.get), levels)


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_table_is_one(bits: int) -> None:
    """2^16 in all, no zeros; where a change is more, it is never more frequent."""
    for still in STILL:
        for shrink in SHRINK:
            for one_sided in (False, True):
                table = _table(bits, still, shrink, one_sided)
                assert table.dtype == np.uint16
                assert table.sum(dtype=np.int64) == ans.TABLE_SUM
                assert table.min() > 0
                half = table[1:] if one_sided else table[1 : 2 ** (bits - 1) + 1]
                assert (np.diff(half.astype(int)) <= 0).all()


def test_a_difference_that_is_committed_is_read_as_ever() -> None:
    """To the last bit: tables come of whole numbers alone."""
    codec = create("delta", (8, 6, 5))
    assert isinstance(codec, Delta)
    before, now = features((8, 6, 5)), features((8, 6, 5))
    now[:, ::2][before[:, ::2] > 0] += np.float32(0.25)
    known = {codec.digest(codec.levels(before)): codec.levels(before)}
    np.testing.assert_array_equal(codec.read(bytes.fromhex(GOLDEN), known.get), codec.levels(now))


def test_broken_differences_are_refused_or_read() -> None:
    """Levels of the shape and below 2^bits, or a PayloadError in one line."""
    codec = delta(3)
    before, now = (codec.levels(frame) for frame in frames(2))
    payload, known = codec.write(now, before), {codec.digest(before): before}
    refused = 0
    for broken in mutations(payload, random.Random(0), 3000):
        try:
            levels = codec.read(broken, known.get)
        except PayloadError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert levels.shape == now.shape
            assert levels.dtype == np.uint8
            assert levels.max() < 8
    assert 0 < refused <= 3000


def test_a_reference_that_is_not_here_is_an_error_of_its_own() -> None:
    """Also for whoever remembers nothing."""
    codec = delta()
    before, now = (codec.levels(frame) for frame in frames(2))
    payload = codec.write(now, before)
    with pytest.raises(UnknownReferenceError, match=rf"{codec.digest(before).hex()}.*send it whole"):
        codec.read(payload, lambda name: None)
    with pytest.raises(UnknownReferenceError, match="not a payload of delta"):
        codec.decode(payload)


def test_levels_are_of_what_encode_takes() -> None:
    with pytest.raises(PayloadError, match="float32"):
        delta().levels(np.zeros((1, 2, 3), np.float32))


def test_device_and_edge_remember_the_same() -> None:
    """The device refers to what was answered last, whatever the order of replies."""
    codec, device, edge = delta(), DeviceMemory(), EdgeMemory()
    sent = [device.encode(codec, PAIR, frame) for frame in frames(4)]
    assert len({len(payload) for payload, _ in sent}) == 4 or all(payload[HEADER_BYTES] == 0 for payload, _ in sent)
    for number in (2, 0, 1):
        payload, levels = sent[number]
        edge.decode(codec, PAIR, 7, payload)
        assert levels is not None
        device.answered(PAIR, number, levels)
    payload, levels = device.encode(codec, PAIR, frames(4)[3])
    assert payload[HEADER_BYTES] == 1
    assert payload[HEADER_BYTES + 1 : HEADER_BYTES + 9] == codec.digest(codec.levels(frames(4)[2]))
    np.testing.assert_array_equal(edge.decode(codec, PAIR, 7, payload), codec.restore(codec.levels(frames(4)[3])))
    with pytest.raises(UnknownReferenceError):  # another device's tensors are not its own
        edge.decode(codec, PAIR, 8, payload)
    device.forget(PAIR)
    assert device.encode(codec, PAIR, frames(4)[3])[0] == codec.encode(frames(4)[3])


def test_other_codecs_are_not_remembered() -> None:
    codec, device, edge = codecs.create("uint8", shape=SHAPE), DeviceMemory(), EdgeMemory()
    payload, levels = device.encode(codec, (1, "uint8"), frames(1)[0])
    assert levels is None
    np.testing.assert_array_equal(edge.decode(codec, (1, "uint8"), 0, payload), codec.decode(payload))
    assert edge.size_bytes == 0


def test_the_edge_keeps_the_last_few_under_its_cap() -> None:
    """The oldest of a device first, then those of the device that was silent longest."""
    codec = delta()
    payloads = [codec.encode(frame) for frame in frames(6)]
    size = codec.size
    edge = EdgeMemory(each=3, cap_bytes=5 * size)

    def has(device: int, number: int) -> bool:
        levels = codec.levels(frames(6)[number])
        try:
            edge.decode(codec, PAIR, device, codec._header.bytes + codec._difference(levels, levels))
        except UnknownReferenceError:
            return False
        return True

    for payload in payloads:
        edge.decode(codec, PAIR, 0, payload)
    assert edge.size_bytes == 3 * size
    assert [has(0, number) for number in range(6)] == [False] * 3 + [True] * 3
    for payload in payloads[:3]:
        edge.decode(codec, PAIR, 1, payload)
        edge.decode(codec, PAIR, 1, payload)  # the same again takes no more room
    assert edge.size_bytes == 5 * size
    assert [has(0, number) for number in (3, 4, 5)] == [False, True, True]
    for payload in payloads[3:]:
        edge.decode(codec, PAIR, 2, payload)
    assert edge.size_bytes == 5 * size
