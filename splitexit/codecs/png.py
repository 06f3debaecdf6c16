"""The image as PNG."""

from __future__ import annotations

import struct
from io import BytesIO

from splitexit.codecs import Array, Shape
from splitexit.codecs._pixels import PillowCodec
from splitexit.errors import PayloadError

_CHUNK = struct.Struct(">I4s")
_COLOUR = {1: 0, 3: 2}
_CHUNKS = {b"IHDR", b"IDAT", b"IEND"}


class Png(PillowCodec):
    """PNG (ISO/IEC 15948), 8 bits per channel, grey or RGB; lossless for images.

    The first bytes of such a file follow from the shape, and the only chunks are IHDR, IDAT and IEND:
    anything else, text that unpacks to megabytes for one, is refused before Pillow sees it.
    """

    name = "png"
    lossless = True

    def __init__(self, *, shape: Shape) -> None:
        super().__init__(shape=shape)
        channels, height, width = shape
        ihdr = struct.pack(">II5B", width, height, 8, _COLOUR[channels], 0, 0, 0)
        self._start = b"\x89PNG\r\n\x1a\n" + _CHUNK.pack(len(ihdr), b"IHDR") + ihdr

    def _pack(self, features: Array) -> bytes:
        file = BytesIO()
        self._image(features).save(file, "PNG")
        return file.getvalue()

    def _unpack(self, body: memoryview) -> Array:
        file = bytes(body)
        if not file.startswith(self._start):
            raise PayloadError("not an 8-bit PNG of this shape")
        self._check_chunks(file)
        return self._pixels(file)

    def _check_chunks(self, file: bytes) -> None:
        offset, kind = 8, b""
        while offset + _CHUNK.size <= len(file) and kind != b"IEND":
            length, kind = _CHUNK.unpack_from(file, offset)
            offset += _CHUNK.size + length + 4
            if kind not in _CHUNKS:
                raise PayloadError(f"unexpected PNG chunk {kind!r}")
        if kind != b"IEND" or offset != len(file):
            raise PayloadError("the PNG is cut short or continues behind its end")
