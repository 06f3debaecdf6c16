"""The codec cases that tests share, and the committed payloads: `python -m tests.golden.codecs` writes them.

Inputs come from whole numbers, so that they are the same everywhere. A payload that is committed here must
decode to the same tensor for ever: a change of `codecs.json` for an old id is a change of the wire format.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from splitexit import codecs

FILE = Path(__file__).parent / "codecs.json"
Array = np.ndarray[Any, np.dtype[Any]]

IMAGE, GREY, FEATURES = (3, 16, 12), (1, 16, 12), (8, 6, 5)
CASES: dict[str, tuple[int, int, int]] = {
    "raw": FEATURES,
    "fp16": FEATURES,
    "uint8": FEATURES,
    "uint8:level=3": FEATURES,
    "image": IMAGE,
    "png": IMAGE,
    "jpeg": IMAGE,
    "jpeg:quality=50": GREY,
    "jpeg:headers=false": IMAGE,
    "jpeg:headers=false,quality=90": GREY,
    "bottleneck:channels=2": FEATURES,
    "affine": FEATURES,
    "affine:bits=3,per=channel": FEATURES,
    "affine:bits=5,pack=none": FEATURES,
    "affine:bits=1,pack=lz4": FEATURES,
    "affine:bits=7": FEATURES,
    "affine:pack=lz4": FEATURES,
    "topk": FEATURES,
    "topk:bits=4,share=0.3": FEATURES,
    "range:bits=4": FEATURES,
    "range:bits=2,per=channel": FEATURES,
    "channels:bits=6,keep=3": FEATURES,
    "delta": FEATURES,
    "delta:bits=2,per=channel": FEATURES,
    "webp": IMAGE,
    "webp:headers=false,quality=50": IMAGE,
    "webp:headers=false": GREY,
    "aecnn:bits=5,channels=3": FEATURES,
    "aecnn:channels=2,refine=true": FEATURES,
    "aecnn:bits=32,channels=8": FEATURES,
    "bottlenetpp:channels=2": FEATURES,
    "bottlenetpp:bits=4,channels=3,stride=2": FEATURES,
    "progressive:channels=5": FEATURES,
    "progressive:channels=4,send=1,slices=2": FEATURES,
    "entropic:channels=3": FEATURES,
    "entropic:channels=2,stride=2": FEATURES,
    "crbq:channels=3": FEATURES,
    "crbq:bits=3,channels=2,stride=2": FEATURES,
}


def image(shape: tuple[int, int, int]) -> Array:
    """A smooth picture: float32 in [0, 1], pixel / 255."""
    channel, row, column = np.indices(shape)
    pixels = (row * 11 + column * 7 + channel * 40) % 256
    return np.asarray(pixels / np.float32(255), np.float32)


def features(shape: tuple[int, int, int]) -> Array:
    """What a ReLU leaves: about 40 % zeros, multiples of 1/16."""
    numbers = np.arange(np.prod(shape)).reshape(shape) * 37 % 101 - 40
    return np.maximum(numbers, 0).astype(np.float32) / np.float32(16)


def tensors(channels: int, wide: int) -> dict[str, Array]:
    """Weights of a bottleneck; multiples of 1/8, so that sums are exact in any order."""
    weight = (np.arange(channels * wide).reshape(channels, wide) * 5 % 13 - 6).astype(np.float32) / np.float32(8)
    return {
        "encoder.weight": weight,
        "encoder.bias": np.arange(channels, dtype=np.float32) / np.float32(8),
        "decoder.weight": np.ascontiguousarray(weight.T),
        "decoder.bias": np.ones(wide, np.float32) / np.float32(8),
        "low": np.array(-12.0, np.float32),
        "high": np.array(12.0, np.float32),
    }


FITTED_BITS = {"range": 8, "delta": 4}


def fitted(name: str, params: dict[str, Any], wide: int) -> dict[str, Array]:
    """Tensors of a codec that is fitted to features, in whole numbers and eighths."""
    if name == "channels":
        kept = np.arange(params["keep"], dtype=np.uint16) * 2 + 1
        return {"kept": kept, "mean": np.arange(wide, dtype=np.float32) / np.float32(8)}
    rows, symbols = (wide if params.get("per") == "channel" else 1), 2 ** params.get("bits", FITTED_BITS[name])
    table = np.full((rows, symbols), 2**15 // symbols, np.uint16)
    table[:, 0] += 2**15
    steps = (np.arange(rows) + 2).astype(np.float32) / np.float32(8)
    return {"low": np.zeros(rows, np.float32), "step": steps, "table": table}


def eighths(*shape: int) -> Array:
    """Weights that are small multiples of 1/8."""
    return (np.arange(np.prod(shape)).reshape(shape) * 5 % 13 - 6).astype(np.float32) / np.float32(8)


DEFAULT_BITS = {"aecnn": 8, "bottlenetpp": 8, "progressive": 5, "entropic": 8, "crbq": 8}


def latent(name: str, params: dict[str, Any], wide: int) -> dict[str, Array]:
    """Tensors of a codec that sends a latent: weights in eighths, so that sums are exact in any order."""
    channels, bits, stride = params["channels"], params.get("bits", DEFAULT_BITS[name]), params.get("stride", 1)
    table = np.full((channels, 2 ** min(bits, 8)), 2**15 >> min(bits, 8), np.uint16)
    table[:, 0] += 2**15
    # The bottom of the range is no multiple of the step: no value stands between two levels.
    group = {
        "low": np.full(channels, -9.03125 if name == "progressive" else 0, np.float32),
        "step": np.full(channels, 1 / (2 ** min(bits, 8) - 1) if name == "bottlenetpp" else 0.1875, np.float32),
        "table": table,
        "floor": np.array(0, np.float32),
        "encoder.bias": np.arange(channels, dtype=np.float32) / np.float32(8),
        "decoder.bias": np.ones(wide, np.float32) / np.float32(8),
        "decoder.weight": eighths(wide, channels, 1, 1),
        "encoder.weight": eighths(channels, wide, 1, 1),
        "kept": np.arange(channels, dtype=np.uint16),
        "refine.weight": eighths(wide, wide, 3, 3),
        "refine.bias": np.zeros(wide, np.float32),
    }
    if name == "bottlenetpp":
        kernel = {1: 3, 2: 2}[stride]
        group["encoder.weight"] = eighths(channels, wide, kernel, kernel) / np.float32(32)
        back = (wide, channels) if stride == 1 else (channels, wide)
        group["decoder.weight"] = eighths(*back, kernel, kernel)
    if name in ("entropic", "crbq"):
        group["encoder.weight"] = group["decoder.weight"] = eighths(channels, wide, stride, stride)
        group |= {"low": np.full(channels, -63.03125, np.float32), "step": np.ones(channels, np.float32)}
    return group


def group(codec_id: str, wide: int) -> dict[str, Array]:
    """Tensors of any learned codec for features of so many channels."""
    name, params = codecs.parse(codec_id)
    if name == "bottleneck":
        return tensors(params["channels"], wide)
    return (fitted if issubclass(codecs.load(codec_id), codecs.FittedCodec) else latent)(name, params, wide)


def create(codec_id: str, shape: tuple[int, int, int]) -> codecs.Codec:
    """The codec, with tensors where it needs any."""
    learned = codecs.load(codec_id).learned
    return codecs.create(codec_id, shape=shape, tensors=group(codec_id, shape[0]) if learned else None)


def example(codec: codecs.Codec) -> Array:
    """An input for this codec."""
    return image(codec.shape) if codec.input_only else features(codec.shape)


def digest(tensor: Array) -> str:
    """sha256 of the values, little-endian."""
    return hashlib.sha256(tensor.astype("<f4").tobytes()).hexdigest()


def entry(codec_id: str, shape: tuple[int, int, int]) -> dict[str, Any]:
    """One case as it is committed."""
    codec = create(codec_id, shape)
    payload = codec.encode(example(codec))
    return {
        "shape": shape,
        "input_sha256": digest(example(codec)),
        "payload": base64.b64encode(payload).decode(),
        "decoded_sha256": digest(codec.decode(payload)),
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps({i: entry(i, s) for i, s in CASES.items()}, indent=1) + "\n", encoding="utf-8")
