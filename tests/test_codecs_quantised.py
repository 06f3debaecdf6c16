"""What is particular to the codecs of few bits: ranges, planes, tables, positions, channels."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from splitexit import codecs
from splitexit.codecs import Array, Codec
from splitexit.codecs import _ans as ans
from splitexit.codecs._affine import dequantise, quantise
from splitexit.codecs._packing import pack, unpack
from splitexit.codecs.channels import Channels
from splitexit.codecs.range import Range
from splitexit.errors import ArtifactError, InputError, PayloadError
from tests.golden.codecs import FEATURES, features, fitted

HEADER_BYTES = 10
FLOATS = st.floats(-(2.0**126), 2.0**126, width=32)


@settings(max_examples=300, deadline=None)
@given(arrays(np.float32, (3, 7), elements=FLOATS), st.integers(1, 8))
def test_a_row_is_off_by_half_its_own_step_at_most(rows: Array, bits: int) -> None:
    """Ranges of every size; and the step is at most 1/128 longer than it has to be, on either end."""
    ranges, levels = quantise(rows, bits)
    decoded = dequantise(memoryview(ranges), levels, bits).astype(np.float64)
    size = np.abs(rows).max(axis=1).astype(np.float64)
    span = rows.max(axis=1).astype(np.float64) - rows.min(axis=1)
    step = (span + size / 128) / (2**bits - 1) * (1 + 1 / 128) + 1e-40
    assert (np.abs(decoded - rows).max(axis=1) <= step / 2 + 4e-7 * size).all()


def test_ranges_travel_as_upper_halves() -> None:
    """-1 and 2.99 in 3 steps: low is exact, the step is the bfloat16 number above 1.33."""
    ranges, levels = quantise(np.array([[-1, 0.3, 2.99]], np.float32), 2)
    assert ranges == bytes.fromhex("80bf ab3f")
    np.testing.assert_array_equal(levels, [[0, 1, 3]])


@pytest.mark.parametrize("ranges", ["807f 0000", "c07f 0000", "817f 0000", "0000 807f", "0000 80bf", "807f c0ff"])
def test_ranges_that_lead_to_no_number_are_refused(ranges: str) -> None:
    """Infinity, NaN, signalling NaN, a step below zero."""
    with pytest.raises(PayloadError, match="ranges beyond"):
        dequantise(memoryview(bytes.fromhex(ranges)), np.zeros((1, 4), np.uint8), 8)


def test_values_beyond_the_largest_are_refused() -> None:
    """Before they overflow."""
    with pytest.raises(PayloadError, match=r"1e\+38"):
        codecs.create("affine", shape=(2, 3, 4)).encode(np.full((2, 3, 4), 2e38, np.float32))


@pytest.mark.parametrize("packing", ["zstd", "lz4", "none"])
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [1, 8, 1001])
def test_levels_come_back(packing: Any, bits: int, count: int) -> None:
    """Whatever their number, also where the last byte of a plane is not full."""
    levels = np.random.default_rng(bits).integers(0, 2**bits, (1, count)).astype(np.uint8)
    body = pack(levels, bits, packing)
    np.testing.assert_array_equal(unpack(memoryview(body), (1, count), bits, packing), levels)
    if packing == "none":
        assert len(body) == bits * -(-count // 8)


def test_planes_are_the_bits_from_the_highest_on() -> None:
    """Eight levels of three bits: three bytes."""
    levels = np.array([4, 0, 0, 0, 0, 0, 7, 1], np.uint8)
    assert pack(levels, 3, "none") == bytes([0b10000010, 0b00000010, 0b00000011])


def test_bit_shuffling_helps_lz4() -> None:
    """As SPINN has it: fewer bytes than LZ4 on the values themselves, on a sparse map."""
    import lz4.block

    rng = np.random.default_rng(0)
    levels = (np.maximum(rng.normal(-1, 20, 8192), 0)).astype(np.uint8)
    assert len(pack(levels, 8, "lz4")) < len(lz4.block.compress(levels.tobytes(), store_size=False))


def test_levels_out_of_range_are_refused() -> None:
    """Seven bits travel one to a byte, which could hold eight."""
    with pytest.raises(PayloadError, match="a level of 200, at most 127"):
        unpack(memoryview(pack(np.full(9, 200, np.uint8), 8)), (9,), 7)


@pytest.mark.parametrize(("missing", "codec_id"), [("lz4", "affine:pack=lz4"), ("constriction", "range:bits=2")])
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, missing: str, codec_id: str) -> None:
    """With what to install, when the codec is made."""
    monkeypatch.setitem(sys.modules, missing, None)
    tensors = fitted("range", {"bits": 2}, 8)
    with pytest.raises(InputError, match=rf"needs the package {missing}: pip install 'splitexit\[codecs\]'"):
        codecs.create(codec_id, shape=FEATURES, tensors=tensors)


def test_a_range_for_every_single_value_is_refused() -> None:
    """It would weigh more than the value."""
    with pytest.raises(InputError, match="per=tensor"):
        codecs.create("affine:per=channel", shape=(100, 1, 1))


def by_hand(rows: Array, tables: Array) -> bytes:
    """The format as `_ans` describes it, in Python's whole numbers."""
    state, words = 1, []
    for symbols, table in zip(reversed(rows.tolist()), reversed(tables.tolist()), strict=True):
        starts = np.concatenate(([0], np.cumsum(table))).tolist()
        for symbol in reversed(symbols):
            frequency, start = table[symbol] << 8, starts[symbol] << 8
            if state >> 40 >= frequency:
                words.append(state & 0xFFFFFFFF)
                state >>= 32
            state = (state // frequency << 24) + start + state % frequency
    while state:
        words.append(state & 0xFFFFFFFF)
        state >>= 32
    return np.array(words, "<u4").tobytes().rstrip(b"\0")


@pytest.mark.parametrize("symbols", [2, 16, 256])
@pytest.mark.parametrize("seed", range(4))
def test_the_coder_writes_the_described_format(symbols: int, seed: int) -> None:
    """To the byte: the library's tables are the whole numbers that it was given, so any machine decodes alike."""
    rng = np.random.default_rng(seed)
    tables = np.stack([ans.table(rng.geometric(0.02, symbols) ** seed - 1 + (np.arange(symbols) < 2)) for _ in "abc"])
    rows = np.stack([rng.choice(symbols, 500, p=table / 2**16) for table in tables])
    rows[0, :symbols] = np.arange(symbols)[: len(rows[0])]
    models = ans.models(tables)
    coded = ans.encode(rows, models)
    assert coded == by_hand(rows, tables)
    np.testing.assert_array_equal(ans.decode(memoryview(coded), 500, models), rows)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=256).filter(any))
def test_a_table_leaves_no_symbol_out(counts: list[int]) -> None:
    """Whole, 2^16 in all, and close to what was counted."""
    table = ans.table(np.array(counts)).astype(np.int64)
    assert table.min() >= 1
    assert table.sum() == 2**16
    expected = np.array(counts) / sum(counts) * (2**16 - len(counts)) + 1
    assert np.abs(table - expected).max() <= len(counts)


def test_range_bytes_are_close_to_the_entropy_of_new_samples() -> None:
    """Within 2 % where every sample comes from the distribution that the tables were fitted to."""
    maps = np.maximum(np.random.default_rng(0).normal(0, 1, (60, 4, 16, 16)), 0).astype(np.float32)
    kind = Range.fit(maps[:40], lambda: maps, bits=4, per="channel")
    codec = codecs.create("range:bits=4,per=channel", shape=(4, 16, 16), tensors=kind)
    new = maps[40:]
    sent = sum(len(codec.encode(one)) - HEADER_BYTES for one in new)
    low, step = kind["low"][:, None, None], kind["step"][:, None, None]
    levels = np.clip(np.rint((new - low) / step), 0, 15).astype(int).swapaxes(0, 1).reshape(4, -1)
    shares = [np.bincount(row) / row.size for row in levels]
    entropy = sum(-(p[p > 0] * np.log2(p[p > 0])).sum() for p in shares) * levels.shape[1] / 8
    assert entropy * 0.99 < sent < entropy * 1.02


def test_range_clips_what_the_fit_has_not_seen() -> None:
    """To the ends of its range."""
    maps = np.linspace(0, 3, 32, dtype=np.float32).reshape(2, 1, 4, 4)
    codec = codecs.create("range:bits=2", shape=(1, 4, 4), tensors=Range.fit(maps, lambda: maps, bits=2))
    decoded = codec.decode(codec.encode(np.full((1, 4, 4), 1e30, np.float32)))
    assert decoded.max() == decoded.min() == pytest.approx(3, abs=0.35)


def test_a_constant_map_can_be_fitted() -> None:
    """A dead channel: every value comes back."""
    maps = np.full((3, 2, 4, 4), 0.7, np.float32)
    codec = codecs.create("range:bits=3", shape=(2, 4, 4), tensors=Range.fit(maps, lambda: maps, bits=3))
    np.testing.assert_allclose(codec.decode(codec.encode(maps[0])), maps[0], rtol=1e-6)


TABLE = np.array([[2**15, 2**15]], np.uint16)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"table": TABLE - np.array([1, 0], np.uint16)}, "another sum"),
        ({"table": np.array([[0, 65535]])}, "zeros"),
        ({"table": TABLE[:, :1]}, r"'table' is \(1, 1\), expected"),
        ({"table": TABLE + 0.5}, "no uint16"),
        ({"table": TABLE.astype(np.int64) - 2**17}, "no uint16"),
        ({"step": np.zeros(1)}, "range is empty"),
        ({"step": np.full(1, np.nan)}, "expected finite"),
        ({"low": np.full(1, 1e39)}, "no float32"),
        ({"low": np.full(1, 2e38)}, "beyond"),
    ],
)
def test_range_refuses_tensors_that_do_not_fit(changes: dict[str, Any], said: str) -> None:
    """One line each."""
    whole: dict[str, Any] = {"low": np.zeros(1), "step": np.ones(1), "table": TABLE}
    codecs.create("range:bits=1", shape=(1, 2, 2), tensors=whole)
    with pytest.raises(ArtifactError, match=said):
        codecs.create("range:bits=1", shape=(1, 2, 2), tensors=whole | changes)


def topk(tensor: Array, **params: Any) -> Array:
    """What comes back."""
    codec_id = "topk:" + ",".join(f"{key}={value}" for key, value in params.items())
    codec = codecs.create(codec_id, shape=tensor.shape)
    return codec.decode(codec.encode(tensor))


def test_topk_keeps_the_largest_magnitudes() -> None:
    """Of both signs, exactly so many; the rest is zero."""
    tensor = np.array([[[5, -9, 1], [0, 7, -2], [3, 4, -8]]], np.float32)
    decoded = topk(tensor, share=0.4)
    expected = np.where(np.abs(tensor) >= 5, tensor, 0)
    np.testing.assert_allclose(decoded, expected, atol=17 / 255 / 2 * 1.02)
    np.testing.assert_array_equal(decoded == 0, expected == 0)


def test_topk_of_equal_values_takes_the_first() -> None:
    """So that payloads are the same everywhere."""
    np.testing.assert_array_equal(topk(np.full((1, 2, 4), 3, np.float32), share=0.3)[0], [[3, 3, 3, 0], [0, 0, 0, 0]])


def test_topk_of_everything_is_the_quantiser() -> None:
    """A share of 1 drops nothing."""
    tensor = features(FEATURES)
    affine = codecs.create("affine:bits=5", shape=FEATURES)
    np.testing.assert_array_equal(topk(tensor, share=1, bits=5), affine.decode(affine.encode(tensor)))


def test_topk_wants_as_many_positions_as_it_sends() -> None:
    """A payload with a mask of another number is refused, whatever the mask's frame says."""
    few, many = (codecs.create(f"topk:share={share}", shape=(1, 4, 4)) for share in (0.25, 0.5))
    tensor = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    with pytest.raises(PayloadError, match="8 positions, expected 4"):
        few.decode(few.encode(tensor)[:HEADER_BYTES] + many.encode(tensor)[HEADER_BYTES:])


def test_channels_keeps_what_the_loss_depends_on() -> None:
    """Large where nothing depends on it, or constant, counts for nothing."""
    maps = np.random.default_rng(0).normal(2, [[[[5]], [[1]], [[0]], [[1]]]], (50, 4, 3, 3)).astype(np.float32)
    weight = np.array([0, 3, 9, 1], np.float32)[:, None, None]
    kept = Channels.fit(maps, lambda: np.broadcast_to(weight, maps.shape), keep=2)["kept"]
    np.testing.assert_array_equal(kept, [1, 3])
    kept = Channels.fit(maps, lambda: np.ones_like(maps), keep=2)["kept"]
    assert kept[0] == 0


def channels(**changes: Any) -> Codec:
    """Three of eight channels, with some tensors replaced."""
    group = fitted("channels", {"keep": 3}, 8) | changes
    return codecs.create("channels:keep=3", shape=FEATURES, tensors=group)


def test_channels_fills_in_the_mean() -> None:
    """At every position of what was not sent; what was sent is the quantiser's."""
    decoded = channels().decode(channels().encode(features(FEATURES)))
    affine = codecs.create("affine", shape=(3, 6, 5))
    np.testing.assert_array_equal(decoded[[1, 3, 5]], affine.decode(affine.encode(features(FEATURES)[[1, 3, 5]])))
    for channel in (0, 2, 4, 6, 7):
        np.testing.assert_array_equal(decoded[channel], np.full((6, 5), channel / 8, np.float32))


@pytest.mark.parametrize("kept", [[1, 1, 2], [3, 2, 1], [1, 2, 8], [1, 2]])
def test_channels_refuses_other_lists(kept: list[int]) -> None:
    """Twice the same, another order, a channel that is not there, too few."""
    with pytest.raises(ArtifactError, match="kept"):
        channels(kept=np.array(kept, np.uint16))


def test_channels_cannot_keep_more_than_there_are() -> None:
    """Said when it is fitted and when it is made."""
    maps = np.zeros((2, 4, 3, 3), np.float32)
    with pytest.raises(InputError, match="keep=5, but the tensor has 4"):
        Channels.fit(maps, lambda: maps, keep=5)
    with pytest.raises(InputError, match="keep=9, but the tensor has 8"):
        codecs.create("channels:keep=9", shape=FEATURES, tensors={})
