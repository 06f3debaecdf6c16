"""The ten bytes in front of every payload.

    offset  size  little-endian
    0       1     magic, 0x5E
    1       1     version of this layout, 1
    2       2     tag: low half of CRC-32 of the codec id and of what both sides must share (tables, weights)
    4       6     channels, height, width

The tag stands for the codec's name and all its parameters, and tells two codecs, two qualities or two trainings of a
bottleneck apart; on the wire the id itself travels beside the payload. The handshake, which compares the digests of
whole bundles, is what guards against a wrong model. What is decoded is always float32: a tensor of another type would
be another version.
"""

from __future__ import annotations

import struct
import zlib

from splitexit.errors import PayloadError

MAGIC, VERSION = 0x5E, 1
_LAYOUT = struct.Struct("<BBHHHH")


class Header:
    """The header of one codec and shape: its `bytes`, and how to take it off."""

    def __init__(self, codec_id: str, shape: tuple[int, int, int], shared: bytes) -> None:
        tag = zlib.crc32(shared, zlib.crc32(codec_id.encode())) & 0xFFFF
        self.bytes = _LAYOUT.pack(MAGIC, VERSION, tag, *shape)
        self._shape = shape

    def strip(self, payload: bytes) -> memoryview:
        """What follows the header; raises PayloadError saying what differs."""
        if payload[: _LAYOUT.size] != self.bytes:
            raise PayloadError(self._difference(payload))
        return memoryview(payload)[_LAYOUT.size :]

    def _difference(self, payload: bytes) -> str:
        if len(payload) < _LAYOUT.size:
            return f"{len(payload)} bytes, at least {_LAYOUT.size} expected"
        magic, version, tag, *shape = _LAYOUT.unpack_from(payload)
        if magic != MAGIC:
            return f"it starts with 0x{magic:02x}, expected 0x{MAGIC:02x}"
        if version != VERSION:
            return f"layout version {version}, expected {VERSION}; update the older side"
        if tuple(shape) != self._shape:
            return f"its shape is {tuple(shape)}"
        return f"codec tag 0x{tag:04x}: another codec, other parameters or other weights"
