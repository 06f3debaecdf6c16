"""The image as JPEG: the baseline that a split has to beat."""

from __future__ import annotations

from io import BytesIO
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from splitexit.codecs import Array, Shape
from splitexit.codecs._pixels import PillowCodec
from splitexit.errors import PayloadError

_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"


class Jpeg(PillowCodec):
    """Baseline JPEG (ITU-T T.81) with 4:2:0 chroma and the standard Huffman tables.

    Args:
        quality: libjpeg's scale; 75 is Pillow's default, 95 the most that Pillow recommends.
        headers: False leaves out what is the same for every image of this size and quality (623 bytes for
            RGB, 328 for grey: quantisation and Huffman tables, frame and scan header) and puts it back on
            decoding. Such a payload is no JPEG file of its own; a checksum of what was left out is in the
            payload's tag, so that a library that would write other tables is noticed.
    """

    name = "jpeg"

    def __init__(self, *, shape: Shape, quality: Annotated[int, Ge(1), Le(95)] = 75, headers: bool = True) -> None:
        super().__init__(shape=shape)
        self.quality = quality
        self.headers = headers
        self._start = b"" if headers else self._constant_part()

    def _constant_part(self) -> bytes:
        file = self._file(np.zeros(self.shape, np.float32))
        scan = file.index(_START_OF_SCAN)
        return file[: scan + 2 + int.from_bytes(file[scan + 2 : scan + 4], "big")]

    def _shared(self) -> bytes:
        return self._start

    def _file(self, features: Array) -> bytes:
        file = BytesIO()
        self._image(features).save(file, "JPEG", quality=self.quality)
        return file.getvalue()

    def _pack(self, features: Array) -> bytes:
        return self._file(features)[len(self._start) :]

    def _unpack(self, body: memoryview) -> Array:
        # libjpeg fills in what is missing; the end marker, which cannot stand inside a scan, shows a cut.
        if body[-2:] != _END_OF_IMAGE:
            raise PayloadError("the JPEG is cut short")
        return self._pixels(b"".join((self._start, body)))
