"""Zstandard frames of a size known beforehand.

Level 1 reaches what can be reached on quantised ReLU features (1.4-1.5x in 40 us per 8 KB; higher levels
gain nothing), measured for this project. A context must not be used by two threads at once, and a fresh one for every
call costs 10 us: each thread has its own, which keeps nothing from one frame to the next.
"""

from __future__ import annotations

import threading

import zstandard

from splitexit.errors import PayloadError

MIN_WINDOW_BYTES = 1024
"""The smallest window that a frame can declare (RFC 8878, section 3.1.1.1.2)."""


class _Contexts(threading.local):
    """A thread's contexts: a compressor of every level that it used, and a decompressor."""

    def __init__(self) -> None:
        self.compressors: dict[int, zstandard.ZstdCompressor] = {}
        self.decompressor = zstandard.ZstdDecompressor()


_CONTEXTS = _Contexts()


def compress(data: bytes, level: int) -> bytes:
    """One frame that declares its content size."""
    known = _CONTEXTS.compressors
    compressor = known.get(level) or known.setdefault(
        level, zstandard.ZstdCompressor(level=level, write_content_size=True)
    )
    return compressor.compress(data)


def decompress(frame: bytes | memoryview, size_bytes: int) -> bytes:
    """Exactly `size_bytes` bytes; raises PayloadError.

    The declared size is what the library allocates, whatever limit it is given: it is compared first, and
    an undeclared size, a wide window, a dictionary and anything behind the frame are refused.
    """
    try:
        declared = zstandard.get_frame_parameters(frame)
        if declared.content_size != size_bytes:
            raise PayloadError(f"zstd frame declares {declared.content_size} bytes, expected {size_bytes}")
        if declared.dict_id or declared.window_size > max(size_bytes, MIN_WINDOW_BYTES):
            raise PayloadError(f"zstd frame asks for a dictionary or a window of {declared.window_size} bytes")
        data: bytes = _CONTEXTS.decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise PayloadError(f"not a zstd frame: {error}") from error
    if len(data) != size_bytes:
        raise PayloadError(f"zstd frame holds {len(data)} bytes, expected {size_bytes}")
    return data
