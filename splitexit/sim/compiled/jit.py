"""How functions are compiled: without the interpreter, without counted references, IEEE arithmetic as it stands."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

# Counting references to the arrays would take nine tenths of a run: the arrays outlive every call, and nothing is
# allocated, so numba need not (`_nrt`, as in numba.extending.register_jitable's documentation).
_OPTIONS: dict[str, Any] = {"nogil": True, "_nrt": False}


def inlined(function: Function) -> Function:
    """Compiled as a part of what calls it."""
    compiled: Function = njit(forceinline=True, **_OPTIONS)(function)
    return compiled


def entry(function: Function) -> Function:
    """Compiled, and kept on disk; called from Python.

    numba notices when the file of `function` has changed, not when that of something it calls has: `function` must
    be a closure over SOURCES, which is part of the name it is kept under.
    """
    compiled: Function = njit(cache=True, **_OPTIONS)(function)
    return compiled


def _sources() -> int:
    """A checksum of all files of this package."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return zlib.crc32(b"".join(path.read_bytes() for path in files))


SOURCES = _sources()
