"""The codecs of a bundle. Learned ones keep their weights in codecs.safetensors, a group for every (codec, split).

Tensors are float32, or whole numbers of any size, under `<codec id>/s<split>/<name>`. Needs safetensors and numpy,
not torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from splitexit import codecs
from splitexit.bundle import Bundle
from splitexit.calibration import Pair
from splitexit.codecs import Codec, Tensors
from splitexit.errors import ArtifactError, InputError


def read(bundle: Bundle) -> dict[Pair, dict[str, np.ndarray[Any, Any]]]:
    """All tensors by (split, codec id); empty where the bundle has no learned codec. Raises ArtifactError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = bundle.codec_weights
    if not path.exists():
        return {}
    try:
        flat = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path}: not readable ({error}); restore it or run `splitexit train-codec`") from error
    found: dict[Pair, dict[str, np.ndarray[Any, Any]]] = {}
    for key, values in flat.items():
        codec_id, split, name = _parts(key, str(path))
        found.setdefault((split, codec_id), {})[name] = values
    return found


def _parts(key: str, path: str) -> tuple[str, int, str]:
    codec_id, _, rest = key.partition("/s")
    split, slash, name = rest.partition("/")
    if not slash or not split.isdecimal():
        raise ArtifactError(f"{path}: the tensor {key!r} is not named <codec>/s<split>/<name>")
    return codec_id, int(split), name


def write(bundle: Bundle, tensors: Mapping[Pair, Tensors], made: Mapping[str, Any]) -> None:
    """Writes all tensors, and how they were made, through a temporary name."""
    from safetensors.numpy import save

    flat = {
        f"{codec_id}/s{split}/{name}": _stored(values)
        for (split, codec_id), group in sorted(tensors.items())
        for name, values in sorted(group.items())
    }
    partial = bundle.codec_weights.with_suffix(".partial")
    partial.write_bytes(save(flat, metadata={"made": json.dumps(dict(made), sort_keys=True)}))
    partial.replace(bundle.codec_weights)


def _stored(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Whole numbers as they are, all else as float32; contiguous and little-endian."""
    kind = values.dtype.newbyteorder("<") if values.dtype.kind in "iu" else "<f4"
    return np.asarray(values, dtype=kind, order="C")


def made(bundle: Bundle) -> dict[str, Any]:
    """How every group was made, by `<codec id>/s<split>`; empty where there is no file."""
    from safetensors import safe_open

    if not bundle.codec_weights.exists():
        return {}
    with safe_open(bundle.codec_weights, framework="numpy") as file:
        content: dict[str, Any] = json.loads((file.metadata() or {}).get("made", "{}"))
    return content


def digest(tensors: Tensors) -> str:
    """Hex sha256 of one group, so that pairs recorded with it can be told from those of another training."""
    sha = hashlib.sha256()
    for name, values in sorted(tensors.items()):
        stored = _stored(values)
        kind = "" if stored.dtype.kind == "f" else f"{stored.dtype.str} "
        sha.update(f"{name} {values.shape} {kind}".encode() + stored.tobytes())
    return sha.hexdigest()


def open_codecs(bundle: Bundle, pairs: Iterable[Pair]) -> dict[Pair, Codec]:
    """The codecs of these (split, codec id) pairs, with their weights if they are learned.

    Raises InputError for an unknown codec or one that does not fit the shape there, ArtifactError naming the
    command where its weights are missing.
    """
    tensors = read(bundle)
    return {pair: _open(bundle, *pair, tensors) for pair in pairs}


def _open(bundle: Bundle, split: int, codec_id: str, tensors: Mapping[Pair, Tensors]) -> Codec:
    if not 0 <= split < bundle.spec.num_stages:
        raise InputError(f"codec {codec_id!r} at split {split}: splits are 0..{bundle.spec.num_stages - 1}")
    kind, group = codecs.load(codec_id), tensors.get((split, codecs.canonical(codec_id)))
    if kind.input_only and split:
        raise InputError(f"codec {codec_id!r} sends the image itself: it is for split 0, not for split {split}")
    if kind.learned and group is None:
        raise ArtifactError(
            f"{bundle.path}: codec {codec_id!r} has no weights at split {split}; "
            f"`splitexit train-codec {bundle.path} --codec {codec_id} --split {split}` makes them"
        )
    channels, height, width = bundle.spec.shape_at(split)
    return codecs.create(codec_id, shape=(channels, height, width), tensors=group)
