"""From what pydantic found wrong to sentences: what was found; what was expected; what to try."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from splitexit.errors import did_you_mean
from splitexit.scenario.scalars import shown
from splitexit.scenario.strict_yaml import Keys

Hints = Mapping[str, str]
"""The keys that are known at one level, each with what to try when its value is wrong ("" for nothing)."""

PROBLEM, KEY_PROBLEM = "problem", "key_problem"
"""The error types of sentences that are finished already, about a value and about its key."""

ELSEWHERE = "elsewhere"
"""The error type of what is reported at another place too."""

_EXPECTED = {
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "path_type": "a path",
    "none_required": "null",
}


class Finding(NamedTuple):
    """What is wrong with a value, or with its key."""

    what: str
    of_key: bool = False


def problem(what: str, of_key: bool = False) -> PydanticCustomError:
    """An error for a pydantic validator to raise, already a sentence."""
    return PydanticCustomError(KEY_PROBLEM if of_key else PROBLEM, "{what}", {"what": what})


def problems(title: str, found: Mapping[Keys, Finding]) -> ValidationError:
    """The same for several, each at its path below the validated value."""
    lines = [InitErrorDetails(type=problem(*finding), loc=path, input=None) for path, finding in found.items()]
    return ValidationError.from_exception_data(title, lines)


def explain(error: ValidationError, raw: Any, hints: Callable[[Keys], Hints]) -> dict[Keys, Finding]:
    """One sentence per place.

    Args:
        error: what validating `raw` raised.
        raw: what was validated.
        hints: the known keys of the mapping at a path.
    """
    grouped: dict[Keys, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        if details["type"] == ELSEWHERE:
            continue
        grouped.setdefault(_place(details, raw), []).append(details)
    return {path: _finding(path, grouped[path], raw, hints) for path in grouped}


def _place(details: ErrorDetails, raw: Any) -> Keys:
    """The error's path as far as it leads through `raw`: pydantic appends the branches of a union."""
    if details["type"] in (PROBLEM, KEY_PROBLEM):
        return tuple(key for key in details["loc"] if key != "[key]")
    path: list[str | int] = []
    for key in details["loc"]:
        if isinstance(raw, dict) and key in raw:
            raw = raw[str(key)]
        elif isinstance(raw, list) and isinstance(key, int) and key < len(raw):
            raw = raw[key]
        else:
            return (*path, key) if details["type"] == "missing" else tuple(path)
        path.append(key)
    return tuple(path)


def _finding(path: Keys, group: list[ErrorDetails], raw: Any, hints: Callable[[Keys], Hints]) -> Finding:
    kind, message = group[0]["type"], group[0]["msg"]
    if kind in (PROBLEM, KEY_PROBLEM):
        return Finding(message, kind == KEY_PROBLEM)
    *level, key = path or ("",)
    known = hints(tuple(level))
    if kind == "missing":
        return Finding(_join(f"the key {key!r} is missing", known.get(str(key), "")))
    if kind == "extra_forbidden":
        return Finding(f"unknown key {shown(key)}{did_you_mean(str(key), known)}", of_key=True)
    expected = " or ".join(dict.fromkeys(_expected(group, hints(path))))
    return Finding(_join(f"found {shown(_at(raw, path))}", f"expected {expected}", known.get(str(key), "")))


def _expected(group: list[ErrorDetails], keys: Hints) -> Iterator[str]:
    for details in group:
        kind = details["type"]
        text = _EXPECTED.get(kind) or details["msg"].removeprefix("Input should be ")
        if kind.startswith(("greater_than", "less_than")):
            text = f"a number {text}"
        if kind == "string_type" and not isinstance(details["input"], dict | list):
            text = "text (in quotes)"
        yield f"{text} with the keys {', '.join(keys)}" if keys and text == "a mapping" else text


def _at(raw: Any, path: Keys) -> Any:
    for key in path:
        raw = raw[key]
    return raw


def _join(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
