"""What both ends remember for codecs whose payloads may refer to an earlier tensor (splitexit.codecs.ReferringCodec).

A device refers only to tensors whose requests the edge has answered: those it is known to have had. The edge keeps the
last few of every device; a payload that refers to one it has no more is refused, and the device sends the tensor whole.
Names are digests of levels, so that neither a restart nor two devices under one number can mix up tensors.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import partial
from typing import Any

import numpy as np

from splitexit.calibration import Pair
from splitexit.codecs import Codec, ReferringCodec

Array = np.ndarray[Any, Any]

EACH = 8
"""Tensors that an edge keeps of a device for each (split, codec)."""

CAP_BYTES = 64 * 2**20
"""Levels that an edge keeps in all."""


class DeviceMemory:
    """The last tensor of every (split, codec) that the edge has."""

    def __init__(self) -> None:
        self._answered: dict[Pair, tuple[int, Array]] = {}

    def encode(self, codec: Codec, pair: Pair, features: Array) -> tuple[bytes, Array | None]:
        """The payload, and what is to be remembered of it once it is answered."""
        if not isinstance(codec, ReferringCodec):
            return codec.encode(features), None
        levels = codec.levels(features)
        _, reference = self._answered.get(pair, (0, None))
        return codec.write(levels, reference), levels

    def answered(self, pair: Pair, request: int, levels: Array) -> None:
        """The edge has had the tensor of this request; replies may come in another order."""
        if pair not in self._answered or self._answered[pair][0] < request:
            self._answered[pair] = request, levels

    def forget(self, pair: Pair) -> None:
        """The edge has it no more."""
        self._answered.pop(pair, None)


class EdgeMemory:
    """The last tensors of every device, the oldest of all making room; may be shared between threads.

    Args:
        each: how many for each device, split and codec.
        cap_bytes: of levels in all.

    size_bytes  of the levels that are kept
    """

    def __init__(self, each: int = EACH, cap_bytes: int = CAP_BYTES) -> None:
        self._each, self._cap_bytes, self._lock = each, cap_bytes, threading.Lock()
        self._kept: OrderedDict[tuple[int, Pair], OrderedDict[bytes, Array]] = OrderedDict()
        self.size_bytes = 0

    def decode(self, codec: Codec, pair: Pair, device: int, payload: bytes) -> Array:
        """The tensor of a device's payload; raises PayloadError, and of that UnknownReferenceError."""
        if not isinstance(codec, ReferringCodec):
            return codec.decode(payload)
        levels = codec.read(payload, partial(self._find, (device, pair)))
        self._keep((device, pair), codec.digest(levels), levels)
        return codec.restore(levels)

    def _find(self, key: tuple[int, Pair], name: bytes) -> Array | None:
        with self._lock:
            own = self._kept.get(key)
            return None if own is None else own.get(name)

    def _keep(self, key: tuple[int, Pair], name: bytes, levels: Array) -> None:
        with self._lock:
            own = self._kept.setdefault(key, OrderedDict())
            self._kept.move_to_end(key)
            if name not in own:
                self.size_bytes += levels.nbytes
            own[name] = levels
            own.move_to_end(name)
            while len(own) > self._each:
                self._drop(own)
            while self.size_bytes > self._cap_bytes:
                oldest = next(iter(self._kept))
                self._drop(self._kept[oldest])
                if not self._kept[oldest]:
                    del self._kept[oldest]

    def _drop(self, own: OrderedDict[bytes, Array]) -> None:
        self.size_bytes -= own.popitem(last=False)[1].nbytes
