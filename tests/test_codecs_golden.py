"""Committed payloads decode to the same tensors on every machine (house rule 9)."""

from __future__ import annotations

import ast
import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from splitexit import codecs
from splitexit.codecs import _ans
from tests.golden.codecs import CASES, FILE, create, digest, example, group

ROOT = Path(__file__).resolve().parents[1]
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


IN_ANOTHER_PROCESS = """
import json
from tests.golden.codecs import CASES, entry
print(json.dumps({codec_id: entry(codec_id, shape) for codec_id, shape in CASES.items()}))
"""


def test_two_processes_understand_each_other() -> None:
    """What a fresh interpreter, with hashes of its own, encodes decodes here to what it decodes there."""
    environment = os.environ | {"PYTHONHASHSEED": "77"}
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60)
    for codec_id, theirs in json.loads(done.stdout).items():
        codec = create(codec_id, CASES[codec_id])
        payload = base64.b64decode(theirs["payload"])
        assert codec.encode(example(codec)) == payload
        assert digest(codec.decode(payload)) == theirs["decoded_sha256"]


SOURCES = sorted(Path(codecs.__file__).parent.glob("*.py"))
STATED = {"np.uint8", "'<u2'", "'<u4'", "'<f4'", "self.stored"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_bytes_are_read_and_written_in_a_stated_order(path: Path) -> None:
    """A machine of another byte order reads the same payloads: no number of the machine's own order meets bytes.

    `frombuffer` names single bytes or a little-endian type; `tobytes` follows an `astype` to one, or is of single
    bytes; structs say `<`, or `>` where a file format does.
    """
    for call in (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)):
        text, function = ast.unparse(call), ast.unparse(call.func)
        if function == "np.frombuffer":
            assert ast.unparse(call.args[1]) in STATED, text
        elif function in ("struct.Struct", "struct.pack"):
            assert ast.unparse(call.args[0])[1] in "<>", text
        elif function.endswith(".tobytes"):
            single = text in SINGLE_BYTES or "np.uint8" in text or "np.packbits" in text
            assert single or ".astype('<" in text, text


SINGLE_BYTES = {"flat.tobytes()", "to_pixels(features).tobytes()", "values.tobytes()"}


def test_numbers_of_another_byte_order_are_the_same_codec() -> None:
    """A bundle's tensors as a big-endian machine may hold them: the same payload, accepted by the other side."""
    for codec_id in (i for i in CASES if codecs.load(i).learned):
        codec = create(codec_id, CASES[codec_id])
        own = group(codec_id, codec.shape[0])
        swapped = {key: values.astype(values.dtype.newbyteorder(">")) for key, values in own.items()}
        other = codecs.create(codec_id, shape=codec.shape, tensors=swapped)
        assert other.encode(example(codec)) == codec.encode(example(codec))


def test_the_entropy_coder_s_start_is_in_the_format() -> None:
    """A change of it would make old payloads unreadable."""
    np.testing.assert_array_equal(_ans.START, [1])
