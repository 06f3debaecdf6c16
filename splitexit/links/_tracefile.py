"""Reading trace files: one line per point, blank lines and `#` comments allowed."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from splitexit.errors import TraceError

T = TypeVar("T")

MAX_FILE_BYTES = 64 * 2**20
"""Hours of a 5G link in mahimahi's format; larger files are rather something else."""

LARGEST_MBPS = 1e6
LARGEST_S = 1e10
"""About three centuries: Unix time fits, in seconds."""


def read(path: Path, expected: str, point: Callable[[str], T | None]) -> list[tuple[int, T]]:
    """(line number, point) of every line that holds one.

    Args:
        expected: what a line should be, for messages.
        point: reads one line, None where it holds none; raises ValueError with what is wrong.

    Raises:
        TraceError: no such file, not text, no points, or a line that `point` refuses.
    """
    points = []
    for number, line in enumerate(_text(path, expected).split("\n"), 1):
        content = line.partition("#")[0].strip()
        if content and (found := _point(path, number, content, expected, point)) is not None:
            points.append((number, found))
    if not points:
        raise TraceError(f"{path}: the trace is empty; expected lines of {expected}")
    return points


def _point(path: Path, number: int, content: str, expected: str, point: Callable[[str], T | None]) -> T | None:
    try:
        return point(content)
    except ValueError as error:
        shown = content if len(content) <= 40 else content[:40] + "..."
        raise TraceError(f"{path}:{number}: {shown!r}: {error}; expected {expected}") from error


def _text(path: Path, expected: str) -> str:
    try:
        # A pipe or a device would be read for ever, and its size is no measure of it.
        if os.path.exists(path) and not os.path.isfile(path):
            raise TraceError(f"{path}: not a file; name the trace itself, lines of {expected}")
        if os.path.getsize(path) > MAX_FILE_BYTES:
            raise TraceError(f"{path}: over {MAX_FILE_BYTES >> 20} MiB; cut it to the part that is needed")
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise TraceError(f"{path}: no such trace; a relative path starts at the scenario's folder") from error
    except (OSError, ValueError) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from error
    try:
        if b"\0" in data:
            raise ValueError("it holds zero bytes")
        return data.decode("utf-8-sig")
    except ValueError as error:
        raise TraceError(f"{path}: not a text file; expected lines of {expected}") from error


def finite(text: str) -> float:
    """A finite number; raises ValueError."""
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite number")
    return value
