"""One grammar for the members of the model zoos: `name` or `name:key=value,key=value`.

A spec is the parsed form, a mapping with the key `name` and the hyper-parameters beside it; it is what
model.json holds, so a network can be built again from its description alone.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from splitexit.errors import UsageError, did_you_mean
from splitexit.registry import Registry

T = TypeVar("T")
Spec = Mapping[str, Any]


def parse_spec(text: str) -> dict[str, Any]:
    """`"resnet:depth=56"` -> `{"name": "resnet", "depth": 56}`; raises UsageError where a part has no `=`.

    A list is written with `/` between its numbers: `"joint:weights=0.3/0.6/1"`.
    """
    name, _, rest = text.partition(":")
    spec: dict[str, Any] = {"name": name}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"{text!r}: expected key=value after the colon, found {part!r}")
        spec[key.strip()] = _value(value.strip())
    return spec


def _value(text: str) -> Any:
    if "/" in text:
        return [_value(part) for part in text.split("/")]
    try:
        return json.loads(text)
    except ValueError:
        return text


def create(registry: Registry[T], spec: Spec, **bound: Any) -> T:
    """The member that `spec` names, built from its hyper-parameters and the `bound` ones its zoo hands in.

    Raises UnknownNameError for the name and UsageError for a hyper-parameter that it does not have.
    """
    member = registry.load(spec["name"])
    params = {key: value for key, value in spec.items() if key != "name"}
    known = [key for key in inspect.signature(member).parameters if key not in bound]
    for key in params:
        if key not in known:
            raise UsageError(f"{registry.kind} {spec['name']!r} has no {key!r}{did_you_mean(key, known)}")
    return member(**bound, **params)
