"""Scalars: what plain text means in YAML 1.2, how data is written as YAML, how a value looks in a message."""

from __future__ import annotations

import re
from typing import Any

import yaml

# YAML 1.2.2, section 10.3.2, the core schema.
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.nan|\.NaN|\.NAN")


def resolve(text: str) -> str | int | float | bool | None:
    """What a plain scalar means under YAML 1.2's core schema."""
    if text in _SPECIAL:
        return _SPECIAL[text]
    if _INT.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def is_number(text: str) -> bool:
    """Whether a plain scalar is a number."""
    return _INT.fullmatch(text) is not None or _FLOAT.fullmatch(text) is not None


class _Dumper(yaml.SafeDumper):
    """Writes what `parse` reads back: quotes text that YAML 1.2 would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        """No anchors, though the same object may occur twice."""
        return True


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = not is_number(text) and resolve(text) == text and text != "<<"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else "'")


_Dumper.add_representer(str, _quoted)


def dump(value: Any, flow: bool = False) -> str:
    """YAML of dicts, lists and scalars that `parse` reads back as an equal value; with `flow` on one line."""
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=flow,
        width=float("inf") if flow else 110,
    )
    return text


def shown(value: Any, limit: int = 40) -> str:
    """A value in a message: on one line, printable, and short."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list():
            return "a list"
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
