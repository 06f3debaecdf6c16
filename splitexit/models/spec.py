"""One grammar for the members of the model zoos: `name` or `name:key=value,key=value`.

A spec is the parsed form, a mapping with the key `name` and the hyper-parameters beside it; it is what
model.json holds, so a network can be built again from its description alone.

A member states the ranges of its hyper-parameters in the annotations of its constructor, and `create` holds what is
given against them; only what spans several of them is the member's own to check.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, MinLen

from splitexit.errors import UsageError, did_you_mean
from splitexit.registry import Registry

T = TypeVar("T")
Spec = Mapping[str, Any]
Count = Annotated[int, Ge(1)]
Factor = Annotated[float, Ge(0)]


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

    Raises UnknownNameError for the name and UsageError for a hyper-parameter that it does not have, or for a value
    that is not what its constructor declares.
    """
    member, who = registry.load(spec["name"]), f"{registry.kind} {spec['name']!r}"
    params = {key: value for key, value in spec.items() if key != "name"}
    known = [key for key in inspect.signature(member).parameters if key not in bound]
    hints = _hints(member)
    for key, value in params.items():
        if key not in known:
            raise UsageError(f"{who} has no {key!r}{did_you_mean(key, known)}")
        fits, wanted = judge(hints.get(key), value)
        if not fits:
            raise UsageError(f"{who}: {key} must be {wanted}, found {value!r}")
    return member(**bound, **params)


def _hints(member: type[Any]) -> dict[str, Any]:
    """The annotations of its constructor; none where they name what is imported for type checkers alone."""
    try:
        return get_type_hints(member.__init__, include_extras=True)
    except NameError:
        return {}


def judge(hint: Any, value: object) -> tuple[bool, str]:
    """Whether `value`, as JSON or YAML hold it, is what an annotation says, and in words what would be.

    Knows bool, int, float, Literal, Sequence and unions of them, with Ge, Gt and Le or MinLen from annotated_types;
    everything fits another annotation.
    """
    origin, args = get_origin(hint), get_args(hint)
    bare, *bounds = args if origin is Annotated else (hint,)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in args), " or ".join(map(str, args))
    if origin in (Union, UnionType):
        judged = [judge(one, value) for one in args]
        return any(fits for fits, _ in judged), " or ".join(words for _, words in judged if words)
    if get_origin(bare) is Sequence:
        return _judge_list(get_args(bare)[0], bounds, value)
    if bare in (int, float):
        return _judge_number(bare is int, bounds, value)
    if bare is bool:
        return isinstance(value, bool), "true or false"
    return bare is not NoneType or value is None, ""


def _judge_list(element: Any, bounds: Sequence[Any], value: object) -> tuple[bool, str]:
    least = max((bound.min_length for bound in bounds if isinstance(bound, MinLen)), default=0)
    fits = isinstance(value, list | tuple) and len(value) >= least and all(judge(element, one)[0] for one in value)
    return fits, f"a list of {least} or more such as 1/2/4, each {judge(element, None)[1]}"


def _judge_number(whole: bool, bounds: Sequence[Any], value: object) -> tuple[bool, str]:
    # JSON's true and false are ints to Python, but no numbers.
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    fits = number and math.isfinite(value) and all(_within(bound, value) for bound in bounds)  # type: ignore[arg-type]
    return fits, " ".join([f"a {'whole ' if whole else ''}number", *map(_limit, bounds)])


def _within(bound: Any, value: Any) -> bool:
    if isinstance(bound, Le):
        return bool(value <= bound.le)
    return bool(value > bound.gt if isinstance(bound, Gt) else value >= bound.ge)


def _limit(bound: Any) -> str:
    if isinstance(bound, Le):
        return f"to {bound.le:g}"
    return f"above {bound.gt:g}" if isinstance(bound, Gt) else f"from {bound.ge:g}"
