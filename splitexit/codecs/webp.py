"""The image as lossy WebP."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Annotated

from annotated_types import Ge, Le

from splitexit.codecs import Array, Shape
from splitexit.codecs._pixels import PillowCodec
from splitexit.errors import InputError, PayloadError

LARGEST = 16383
"""Pixels in a row or column (RFC 6386, section 9.1)."""

_CONTAINER = struct.Struct("<4sI4s4sI")
_TAG_BYTES = 3


class Webp(PillowCodec):
    """Lossy WebP (RFC 9649): one VP8 key frame (RFC 6386) with 4:2:0 chroma. Grey images are sent as colour.

    Args:
        quality: libwebp's scale; 75 is its default.
        headers: False leaves out what follows from the image's size and the payload's length, 27 bytes and the padding:
            the RIFF container, and start code and size of the frame. Such a payload is no WebP file of its own. One
            byte at its start, the last of the frame's length, shows a cut, which libwebp would fill in.
    """

    name = "webp"

    def __init__(self, *, shape: Shape, quality: Annotated[int, Ge(0), Le(100)] = 75, headers: bool = True) -> None:
        super().__init__(shape=shape)
        if max(shape[1:]) > LARGEST:
            raise InputError(f"codec webp: images of at most {LARGEST} pixels a side, not {shape}")
        self.quality = quality
        self.headers = headers
        self._mode_in_file = "RGB"
        height, width = shape[1:]
        self._start = b"\x9d\x01\x2a" + struct.pack("<HH", width, height)

    def _file(self, frame: bytes) -> bytes:
        """The file around a frame."""
        padding = len(frame) % 2
        return (
            _CONTAINER.pack(b"RIFF", 12 + len(frame) + padding, b"WEBP", b"VP8 ", len(frame)) + frame + bytes(padding)
        )

    def _frame(self, file: bytes) -> bytes:
        """The frame in a file; raises PayloadError for a file of anything else, or of another size.

        Pillow takes memory for the size that the container declares as soon as it opens a file.
        """
        frame = file[_CONTAINER.size : len(file) - file[16] % 2] if len(file) > _CONTAINER.size else b""
        if file != self._file(frame) or frame[_TAG_BYTES : _TAG_BYTES + len(self._start)] != self._start:
            raise PayloadError("not a lossy WebP file of this size")
        return frame

    def _pack(self, features: Array) -> bytes:
        written = BytesIO()
        self._image(features).save(written, "WEBP", quality=self.quality)
        file = written.getvalue()
        if self.headers:
            return file
        frame = self._frame(file)
        return bytes([len(frame) % 256]) + frame[:_TAG_BYTES] + frame[_TAG_BYTES + len(self._start) :]

    def _unpack(self, body: memoryview) -> Array:
        file = bytes(body) if self.headers else self._file(self._restored(body))
        self._frame(file)
        return self._pixels(file)

    def _restored(self, body: memoryview) -> bytes:
        tag, rest = body[1 : 1 + _TAG_BYTES], body[1 + _TAG_BYTES :]
        frame = b"".join((tag, self._start, rest))
        if body[:1] != bytes([len(frame) % 256]):
            raise PayloadError("the WebP frame is cut short or continues behind its end")
        return frame
