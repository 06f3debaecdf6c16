"""A learned reduction of channels of which every beginning can be decoded."""

from __future__ import annotations

import struct
from math import prod
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from splitexit.codecs import Array, Shape, Tensors
from splitexit.codecs import _ans as ans
from splitexit.codecs._convolution import add_up, convolve
from splitexit.codecs._latent import LatentCodec
from splitexit.errors import InputError, PayloadError

LENGTH = struct.Struct("<H")
MOST_VALUES = 2**15 - 4
"""In a slice: each takes two bytes at most, so that the length of a slice fits into its 16 bits."""


class Progressive(LatentCodec):
    """A 1×1 convolution to few channels, sent slice by slice, the most important ones first.

        z = W_e x + b_e                encoder.weight (channels, C), encoder.bias (channels,)
        x' = max(W_d z + b_d, floor)   decoder.weight (C, channels), decoder.bias (C,); z is 0 where it was not sent

    After progressive slicing in CLIO (Huang et al., MobiCom 2020): the training leaves out the last slices, so that
    any prefix serves. A sender that runs out of time stops after any slice. `floor` as in `Aecnn`.

    Layout after the header: for each slice its length (uint16) and its levels, entropy-coded. A payload that was cut
    between two slices is decoded, with one slice at the least.

    Args:
        channels: of the latent.
        slices: that the channels are divided into, as evenly as it goes.
        bits: of a level of the channel that spreads most; the step is the same for all.
        send: slices that `encode` writes; 0 writes all.
        tensors: the above and those of `LatentCodec`.
    """

    name = "progressive"

    def __init__(
        self,
        *,
        shape: Shape,
        tensors: Tensors,
        channels: Annotated[int, Ge(1), Le(4096)],
        slices: Annotated[int, Ge(1), Le(64)] = 4,
        bits: Annotated[int, Ge(1), Le(8)] = 5,
        send: Annotated[int, Ge(0), Le(64)] = 0,
    ) -> None:
        super().__init__(shape=shape, tensors=tensors)
        self.channels = channels
        self.slices = slices
        self.bits = bits
        self.send = send
        wide, height, width = shape
        self._bounds = bounds(channels, slices)
        if send > slices:
            raise InputError(f"codec {self.codec_id}: send={send}, but there are {slices} slices")
        if -(-channels // slices) * height * width > MOST_VALUES:
            raise InputError(
                f"codec {self.codec_id}: a slice has over {MOST_VALUES} values at {shape}; take more slices"
            )
        self._encoder = self._take("encoder.weight", (channels, wide, 1, 1)), self._take("encoder.bias", (channels,))
        self._decoder = self._take("decoder.weight", (wide, channels, 1, 1)), self._take("decoder.bias", (wide,))
        self._floor = self._take("floor", ())
        self._send((channels, height, width), bits)

    @property
    def encoder_macs(self) -> int:
        """Of the convolution, for the channels that are sent."""
        return self._bounds[self.send or self.slices] * self.size

    def latent(self, features: Array) -> Array:
        """All channels of the latent, whatever is sent of them."""
        return convolve(features, *self._encoder)

    def _pack(self, features: Array) -> bytes:
        levels = self.levels(features)
        return b"".join(self._slice(levels, number) for number in range(self.send or self.slices))

    def _slice(self, levels: Array, number: int) -> bytes:
        rows = slice(*self._bounds[number : number + 2])
        coded = ans.encode(levels[rows], self._models[rows])
        return LENGTH.pack(len(coded)) + coded

    def _unpack(self, body: memoryview) -> Array:
        latent = np.zeros(self._latent, np.float32)
        number = 0
        while body or not number:
            if number == self.slices:
                raise PayloadError(f"{len(body)} bytes behind the last slice")
            rows = slice(*self._bounds[number : number + 2])
            part, body = _first(body)
            levels = ans.decode(part, prod(self._latent[1:]), self._models[rows])
            latent[rows] = self._values(levels, rows).reshape(-1, *self._latent[1:])
            number += 1
        return self._restored(latent)

    def _restore(self, latent: Array) -> Array:
        features = add_up(latent, *self._decoder)
        return np.maximum(features, self._floor, out=features)


def bounds(channels: int, slices: int) -> list[int]:
    """Where slices begin and the last one ends; raises InputError where there are more slices than channels."""
    if slices > channels:
        raise InputError(f"codec progressive: {slices} slices of {channels} channels; take at most as many")
    return [channels * number // slices for number in range(slices + 1)]


def _first(body: memoryview) -> tuple[memoryview, memoryview]:
    """The first slice, and what follows it."""
    if len(body) < LENGTH.size:
        raise PayloadError(f"{len(body)} bytes in the place of a slice")
    (length,) = LENGTH.unpack_from(body)
    end = LENGTH.size + length
    if len(body) < end:
        raise PayloadError(f"a slice of {length} bytes is cut off after {len(body) - LENGTH.size}")
    return body[LENGTH.size : end], body[end:]
