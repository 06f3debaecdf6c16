"""Codecs: how features, or the image itself, become bytes on the wire.

The interface, then the menu. One file and one line in the table add a codec. A codec id names a codec
with its parameters: `name` or `name:key=value,key=value`; in canonical form the parameters are sorted
and those at their default are left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from math import prod
from typing import Any, ClassVar

import numpy as np

from splitexit.codecs._ids import join, read, split
from splitexit.codecs._payload import Header
from splitexit.errors import ArtifactError, InputError, PayloadError
from splitexit.registry import Registry

Array = np.ndarray[Any, np.dtype[Any]]
Tensors = Mapping[str, Array]
Shape = tuple[int, int, int]
"""Channels, height, width."""

SLACK_BYTES = 4096
"""What a payload may be longer than the raw tensor: JPEG's constant headers, zstd's frame."""


class Codec(ABC):
    """Features to bytes and back, for tensors of one shape. Instances may be shared between threads.

    name        the codec's name in the table
    lossless    decoding gives back the very tensor (image codecs: every image of pixel / 255)
    input_only  works for split 0 only, the image
    learned     needs the tensors of a bundle

    Members implement `_pack` and `_unpack`; the header around them is the same for all.

    Args:
        shape: channels, height, width, each in 1..65535.
    """

    name: ClassVar[str]
    lossless: ClassVar[bool] = False
    input_only: ClassVar[bool] = False
    learned: ClassVar[bool] = False

    def __init__(self, *, shape: Shape) -> None:
        if len(shape) != 3 or not all(0 < side < 2**16 for side in shape):
            raise InputError(f"codec {self.name}: shape {tuple(shape)} is not (channels, height, width) in 1..65535")
        self.shape = shape
        self.size = prod(shape)
        self.max_bytes = 4 * self.size + SLACK_BYTES

    @cached_property
    def codec_id(self) -> str:
        """The canonical id of this codec with its parameters."""
        return join(type(self), self.name, vars(self))

    @property
    def encoder_macs(self) -> int:
        """Multiply-accumulates of the layers that `encode` runs, for one tensor; 0 where it has none."""
        return 0

    def encode(self, features: Array) -> bytes:
        """The payload of one tensor, finite float32 C x H x W; raises PayloadError for any other."""
        self._require(features)
        return b"".join((self._header.bytes, self._pack(features)))

    def _require(self, features: Array) -> None:
        if features.shape != self.shape or features.dtype != "float32":
            got = f"{features.dtype} {features.shape}"
            raise PayloadError(f"codec {self.codec_id} is for float32 {self.shape}, not for {got}")
        if not np.isfinite(features).all():
            raise PayloadError(f"codec {self.codec_id}: the tensor holds values that are not finite")

    def decode(self, payload: bytes) -> Array:
        """The tensor of one payload: finite float32 C x H x W, the caller's own.

        Raises:
            PayloadError: for anything that `encode` of the same codec and shape does not write, before
                memory for more than `max_bytes` is taken.
        """
        return self._checked(payload, self._unpack).reshape(self.shape)

    def _checked(self, payload: bytes, unpack: Callable[[memoryview], Array]) -> Array:
        """What follows the header, unpacked; raises PayloadError, with what was expected."""
        try:
            if len(payload) > self.max_bytes:
                raise PayloadError(f"{len(payload)} bytes, at most {self.max_bytes} expected")
            return unpack(self._header.strip(payload))
        except PayloadError as error:
            raise type(error)(f"not a payload of {self.codec_id} {self.shape}: {error}") from error

    @cached_property
    def _header(self) -> Header:
        return Header(self.codec_id, self.shape, self._shared())

    def _shared(self) -> bytes:
        """What both sides must have in common beyond id and shape: tables, weights."""
        return b""

    @abstractmethod
    def _pack(self, features: Array) -> bytes | memoryview:
        """What follows the header."""

    @abstractmethod
    def _unpack(self, body: memoryview) -> Array:
        """The inverse; raises PayloadError. Any array of `size` writable float32 values."""


Known = Callable[[bytes], "Array | None"]
"""The levels that a side has under a name; None where it has none."""


class ReferringCodec(Codec):
    """A codec whose payload may name an earlier tensor and say only how this one differs.

    What both sides remember of a tensor are its levels: whole numbers, of which `restore` makes the same tensor on
    either side. `encode` and `decode` are for whole payloads, as of any codec; whoever remembers levels asks the rest:

        device   levels(x), then write(levels, reference)   the reference: levels that the edge is known to have
        edge     read(payload, known), then restore(levels)
    """

    def levels(self, features: Array) -> Array:
        """What is remembered of a tensor: uint8, of one shape for all; raises PayloadError as `encode`."""
        self._require(features)
        return self._levels(features)

    @abstractmethod
    def restore(self, levels: Array) -> Array:
        """The tensor, float32 C x H x W."""

    @abstractmethod
    def digest(self, levels: Array) -> bytes:
        """What payloads call a tensor with these levels."""

    def write(self, levels: Array, reference: Array | None) -> bytes:
        """The payload, whole where there is no reference or it would be no longer."""
        return self._header.bytes + self._write(levels, reference)

    def read(self, payload: bytes, known: Known) -> Array:
        """The levels of a payload; raises PayloadError, and of that UnknownReferenceError where `known` has none."""
        return self._checked(payload, lambda body: self._read(body, known))

    def _pack(self, features: Array) -> bytes:
        return self._write(self._levels(features), None)

    def _unpack(self, body: memoryview) -> Array:
        return self.restore(self._read(body, lambda name: None))

    @abstractmethod
    def _levels(self, features: Array) -> Array:
        """`levels` of a tensor that fits."""

    @abstractmethod
    def _write(self, levels: Array, reference: Array | None) -> bytes:
        """What follows the header."""

    @abstractmethod
    def _read(self, body: memoryview, known: Known) -> Array:
        """The inverse; raises as `read`."""


class FittedCodec(Codec):
    """A learned codec whose tensors are computed from features in one pass: statistics, no training."""

    learned = True

    @classmethod
    @abstractmethod
    def fit(cls, features: Array, gradients: Callable[[], Array], *args: Any, **params: Any) -> Tensors:
        """The tensors for a codec with the parameters `params`, those of its id.

        Args:
            features: finite float32 n x C x H x W, of the calibration split.
            gradients: computes the derivative of the loss (cross entropy of the final exit, for each sample) with
                respect to the features, of the same shape; asked only where it is needed, because it takes a pass
                through the network and back.

        Raises InputError where the parameters do not fit the shape.
        """


CODECS: Registry[Codec] = Registry(
    "codec",
    {
        "raw": "splitexit.codecs.raw:Raw",
        "fp16": "splitexit.codecs.fp16:Fp16",
        "uint8": "splitexit.codecs.uint8:Uint8",
        "affine": "splitexit.codecs.affine:Affine",
        "topk": "splitexit.codecs.topk:TopK",
        "image": "splitexit.codecs.image:Image",
        "png": "splitexit.codecs.png:Png",
        "jpeg": "splitexit.codecs.jpeg:Jpeg",
        "webp": "splitexit.codecs.webp:Webp",
        "range": "splitexit.codecs.range:Range",
        "delta": "splitexit.codecs.delta:Delta",
        "channels": "splitexit.codecs.channels:Channels",
        "bottleneck": "splitexit.codecs.bottleneck:Bottleneck",
        "aecnn": "splitexit.codecs.aecnn:Aecnn",
        "bottlenetpp": "splitexit.codecs.bottlenetpp:BottleNetPlusPlus",
        "progressive": "splitexit.codecs.progressive:Progressive",
        "entropic": "splitexit.codecs.entropic:Entropic",
        "crbq": "splitexit.codecs.crbq:CrBq",
    },
)


def parse(codec_id: str) -> tuple[str, dict[str, Any]]:
    """Name and given parameters, typed and checked against the codec's constructor.

    Raises:
        InputError: an unknown name or parameter, a missing parameter, a value of the wrong type or range.
    """
    name, pairs = split(codec_id, CODECS)
    return name, read(codec_id, CODECS.load(name), pairs)


def canonical(codec_id: str) -> str:
    """The one id among those that mean the same: parameters sorted, defaults left out. Raises as `parse`."""
    name, params = parse(codec_id)
    return join(CODECS.load(name), name, params)


def load(codec_id: str) -> type[Codec]:
    """The class behind an id, for its attributes (`lossless`, `input_only`, `learned`). Raises as `parse`."""
    return CODECS.load(parse(codec_id)[0])


def create(codec_id: str, *, shape: Shape, tensors: Tensors | None = None) -> Codec:
    """The codec with this id for tensors of this shape.

    Args:
        tensors: a learned codec's weights, by the names that its docstring gives.

    Raises:
        InputError: as `parse`, or the codec is not for such a shape.
        ArtifactError: a learned codec without its tensors, or with ones that do not fit.
    """
    name, params = parse(codec_id)
    kind = CODECS.load(name)
    if kind.learned:
        if tensors is None:
            raise ArtifactError(f"codec {codec_id!r} is learned and the bundle has no weights for it at this split")
        params["tensors"] = tensors
    return kind(shape=shape, **params)
