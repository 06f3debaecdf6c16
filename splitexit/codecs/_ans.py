"""Entropy coding with static integer tables: a rANS coder (Duda, arXiv 1311.2540) from the package constriction.

The format, so that any other coder can read it: a state of 64 bits starts at 1, and symbols go in from last to first.
For a symbol of frequency f (of 2^24; symbols below it take c), if state / 2^40 >= f, the lower 32 bits of the state are
put out; then state = (state / f) 2^24 + c + state mod f, in whole numbers. At the end the state is put
out, low word first. Words are little-endian, and zero bytes at the very end are left out. Decoding runs backwards, and
what `encode` wrote leaves the state at 1.

Frequencies here are multiples of 2^8: tables are uint16 and sum to 2^16. The coder takes floats, whose sum it scales to
2^24 less the number of symbols before it adds 1 to each: handed frequency - 1, it scales by exactly 1, and single
precision holds all sums. Tests hold its bytes against the format above, computed in whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from splitexit.codecs import Array
from splitexit.errors import InputError, PayloadError

TABLE_SUM = 2**16
_TO_24_BITS = 8
START = np.ones(1, np.uint32)


def table(counts: Array) -> Array:
    """Frequencies, uint16, at least 1 and TABLE_SUM in all, from how often every symbol was seen.

    Args:
        counts: whole numbers (symbols,), 2 to 2^15 symbols, not all zero.
    """
    share = counts.astype(np.int64) * (TABLE_SUM - len(counts)) // counts.sum()
    frequencies = share + 1
    frequencies[np.argmax(frequencies)] += TABLE_SUM - frequencies.sum()
    return np.asarray(frequencies, np.uint16)


def models(tables: Array) -> list[Any]:
    """The coder's models of tables (rows, symbols); raises InputError where constriction is not installed."""
    categorical = _constriction().stream.model.Categorical
    frequencies = tables.astype(np.int64) << _TO_24_BITS
    return [categorical((row - 1).astype(np.float32), lazy=False, perfect=False) for row in frequencies]


def encode(rows: Array | Sequence[Array], models: Sequence[Any]) -> bytes:
    """The bytes of integer symbols (rows, n), or rows of several lengths; every row by its own model."""
    coder = _constriction().stream.stack.AnsCoder(START)
    for symbols, model in zip(reversed(rows), reversed(models), strict=True):
        coder.encode_reverse(symbols.astype(np.int32), model)
    words: Array = coder.get_compressed()
    return words.astype("<u4").tobytes().rstrip(b"\0")


def decode(body: memoryview, count: int, models: Sequence[Any]) -> Array:
    """`count` symbols for each model, int32 (rows, count); raises PayloadError for what `encode` does not write."""
    return np.stack(decode_rows(body, [count] * len(models), models))


def decode_rows(body: memoryview, counts: Sequence[int], models: Sequence[Any]) -> list[Array]:
    """So many symbols for each model, int32; raises as `decode`."""
    if body and body[-1] == 0:
        raise PayloadError("zero bytes at the end")
    words = np.frombuffer(bytes(body) + bytes(-len(body) % 4), "<u4").astype(np.uint32)
    coder = _constriction().stream.stack.AnsCoder(words)
    rows = [coder.decode(model, count) for model, count in zip(models, counts, strict=True)]
    if not np.array_equal(coder.get_compressed(), START):
        raise PayloadError("the entropy coder does not end where it began")
    return rows


def _constriction() -> Any:
    try:
        import constriction
    except ModuleNotFoundError as error:
        raise InputError("codec range needs the package constriction: pip install 'splitexit[codecs]'") from error
    return constriction
