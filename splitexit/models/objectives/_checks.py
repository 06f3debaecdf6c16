"""Hyper-parameters of objectives, held against their ranges: they come from the command line as they were typed."""

from __future__ import annotations

import math
from typing import TypeGuard

from splitexit.errors import UsageError


def check_number(objective: str, name: str, value: object, *, above: float | None = None) -> None:
    """Raises UsageError where `value` is no finite number from 0 or, where that is given, greater than `above`."""
    if not _is_number(value) or (value < 0 if above is None else value <= above):
        wanted = "from 0" if above is None else f"above {above:g}"
        raise UsageError(f"objective {objective!r}: {name} must be a number {wanted}, found {value!r}")


def check_whole(objective: str, name: str, value: object) -> None:
    """Raises UsageError where `value` is not a whole number from 1."""
    if not _is_number(value) or not isinstance(value, int) or value < 1:
        raise UsageError(f"objective {objective!r}: {name} must be a whole number from 1, found {value!r}")


def _is_number(value: object) -> TypeGuard[int | float]:
    # JSON's true and false are ints to Python, but no numbers.
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
