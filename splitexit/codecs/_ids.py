"""Codec ids: text to typed parameters and back."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from splitexit.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from splitexit.codecs import Codec
    from splitexit.registry import Registry

GIVEN = ("shape", "tensors")
"""Constructor keywords that are not parameters of the id."""


def split(codec_id: str, table: Registry[Codec]) -> tuple[str, list[str]]:
    """The name and the `key=value` parts. A name from outside the table may hold a colon, `module:Class`."""
    name, _, rest = codec_id.partition(":")
    if rest and name not in table.names():
        outer, _, last = codec_id.rpartition(":")
        name, rest = (outer, last) if "=" in last else (codec_id, "")
    if codec_id.endswith(":"):
        raise InputError(f"codec {codec_id!r}: nothing follows the colon; write {name!r}")
    return name, rest.split(",") if rest else []


def read(codec_id: str, kind: type[Codec], pairs: list[str]) -> dict[str, Any]:
    """The `key=value` parts as values of the types that the constructor declares; raises InputError."""
    known = _parameters(kind)
    params: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            hint = f"; write '{key}=...'" if key in known else did_you_mean(key, known)
            raise InputError(f"codec {codec_id!r}: {pair!r} is not key=value{hint}")
        if key not in known:
            raise InputError(f"codec {codec_id!r}: no parameter {key!r}{did_you_mean(key, known)}")
        if key in params:
            raise InputError(f"codec {codec_id!r}: {key!r} is given twice")
        params[key] = _value(codec_id, key, text, get_type_hints(kind.__init__, include_extras=True)[key])
    missing = [key for key, default in known.items() if default is inspect.Parameter.empty and key not in params]
    if missing:
        raise InputError(f"codec {codec_id!r} needs {', '.join(missing)}; write {_example(codec_id, missing)!r}")
    return params


def join(kind: type[Codec], name: str, params: Mapping[str, Any]) -> str:
    """The canonical id: parameters sorted, those at their default left out."""
    given = [
        f"{key}={_text(params[key])}"
        for key, default in sorted(_parameters(kind).items())
        if key in params and params[key] != default
    ]
    return f"{name}:{','.join(given)}" if given else name


def _parameters(kind: type[Codec]) -> dict[str, Any]:
    """Name -> default of the constructor's hyper-parameters."""
    keywords = inspect.signature(kind).parameters.values()
    return {p.name: p.default for p in keywords if p.name not in GIVEN}


def _example(codec_id: str, missing: list[str]) -> str:
    joint = "," if "=" in codec_id else ":"
    return codec_id + joint + ",".join(f"{key}=..." for key in missing)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(codec_id: str, key: str, text: str, annotation: Any) -> Any:
    if get_origin(annotation) is Literal:
        return _choice(codec_id, key, text, get_args(annotation))
    kind, *limits = get_args(annotation) or (annotation,)
    value = _convert(text, kind)
    if value is None or not all(_within(value, limit) for limit in limits):
        range_ = " and ".join(f"{_SIGNS[type(limit)]} {_bound(limit)}" for limit in limits)
        raise InputError(f"codec {codec_id!r}: {key} is {text!r}, expected {_KINDS[kind]} {range_}".rstrip())
    return value


def _choice(codec_id: str, key: str, text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise InputError(f"codec {codec_id!r}: {key} is {text!r}, expected {' or '.join(choices)}")
    return text


_KINDS = {bool: "true or false", int: "a whole number", float: "a number"}
_SIGNS = {Ge: ">=", Gt: ">", Le: "<=", Lt: "<"}


def _convert(text: str, kind: type) -> Any:
    if kind is bool:
        return {"true": True, "false": False}.get(text)
    # Python's own readers also take " 7 ", "1_0" and digits of other scripts: one value, one spelling.
    if not text.isascii() or "_" in text or text != text.strip():
        return None
    try:
        value = kind(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _bound(limit: Any) -> Any:
    return next(getattr(limit, name) for name in ("ge", "gt", "le", "lt") if hasattr(limit, name))


def _within(value: float, limit: Any) -> bool:
    bound = _bound(limit)
    return bool({Ge: value >= bound, Gt: value > bound, Le: value <= bound, Lt: value < bound}[type(limit)])
