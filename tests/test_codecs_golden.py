"""Committed payloads decode to the same tensors on every machine (house rule 9)."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from tests.golden.codecs import CASES, FILE, create, digest, example

GOLDEN = json.loads(FILE.read_text(encoding="utf-8"))
OWN_BYTES = {"raw", "fp16", "image"}
"""Codecs whose bytes no library of others has a hand in."""


def test_every_case_is_committed() -> None:
    """`python -m tests.golden.codecs` adds new ones."""
    assert set(GOLDEN) == set(CASES)


@pytest.mark.parametrize("codec_id", CASES)
def test_committed_payloads_decode_as_ever(codec_id: str) -> None:
    """To the last bit."""
    golden = GOLDEN[codec_id]
    codec = create(codec_id, tuple(golden["shape"]))
    assert digest(example(codec)) == golden["input_sha256"]
    assert digest(codec.decode(base64.b64decode(golden["payload"]))) == golden["decoded_sha256"]


@pytest.mark.parametrize("codec_id", CASES)
def test_encoding_means_the_same_as_ever(codec_id: str) -> None:
    """Equal bytes where they are ours alone; otherwise bytes that decode to the same tensor."""
    golden = GOLDEN[codec_id]
    codec = create(codec_id, tuple(golden["shape"]))
    payload, committed = codec.encode(example(codec)), base64.b64decode(golden["payload"])
    assert payload[:10] == committed[:10]
    np.testing.assert_array_equal(codec.decode(payload), codec.decode(committed))
    if codec.name in OWN_BYTES:
        assert payload == committed
