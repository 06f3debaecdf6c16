"""Hyper-parameters of heads, held against the ranges that their annotations state."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin, get_type_hints

from torch import nn

from splitexit.errors import UsageError


def check(head: type[nn.Module], **given: object) -> None:
    """Raises UsageError where a value is not what the constructor of `head` declares under that name.

    Reads `Annotated[int, Ge(a), Le(b)]` and `Literal[...]`. Specs come from the command line and from model.json, so
    nobody else looks at them before a head is built.
    """
    hints = get_type_hints(head.__init__, include_extras=True)
    for key, value in given.items():
        fits, wanted = _judge(hints[key], value)
        if not fits:
            raise UsageError(f"exit head {head.__name__.lower()!r}: {key} must be {wanted}, found {value!r}")


def _judge(hint: Any, value: object) -> tuple[bool, str]:
    """Whether `value` fits, and in words what does."""
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        return value in choices, " or ".join(choices)
    _, least, most = get_args(hint)
    # JSON's true and false are ints to Python, but no sizes.
    fits = type(value) is int and least.ge <= value <= most.le
    return fits, f"a whole number from {least.ge} to {most.le}"
