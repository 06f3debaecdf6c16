"""Constructor signatures as pydantic models.

The annotations are the types, the ranges in them (`Annotated[float, Gt(0)]`) the limits, the defaults the defaults,
the `Args:` of the docstring the descriptions. So a member of a zoo describes itself once, in Python.
"""

from __future__ import annotations

import inspect
import json
import re
from functools import cache
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.errors import PydanticUserError

from splitexit.errors import InputError


@cache
def signature_model(of: type) -> type[BaseModel]:
    """A pydantic model of a constructor's keywords (aliases; field names are p0, p1, …); raises InputError."""
    described = _descriptions(of)
    try:
        hints = get_type_hints(of.__init__, include_extras=True)  # type: ignore[misc]
        fields: dict[str, Any] = {
            f"p{n}": (hints.get(p.name, Any), _field(p, described.get(p.name)))
            for n, p in enumerate(inspect.signature(of).parameters.values())
            if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
        }
        return create_model(of.__name__, __config__=_CONFIG, **fields)
    except (NameError, PydanticUserError) as error:
        raise InputError(f"{of.__module__}.{of.__name__}: parameters that a scenario cannot give: {error}") from error


_CONFIG = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


def _field(parameter: inspect.Parameter, description: str | None) -> Any:
    default = ... if parameter.default is parameter.empty else parameter.default
    return Field(default, alias=parameter.name, title=parameter.name, description=description)


def hints(model: type[BaseModel]) -> dict[str, str]:
    """Parameter -> what to try when its value is wrong."""
    fields = model.model_fields.values()
    return {str(f.alias): hint(f.description, ... if f.is_required() else f.default) for f in fields}


def hint(description: str | None, default: Any) -> str:
    """What to try in place of a wrong value: the default, or what the description begins with."""
    if default is ...:
        text = re.split(r"[;.](?:\s|$)", description or "")[0]
        return text[:1].lower() + text[1:]
    return "" if isinstance(default, dict | BaseModel) else f"the default is {_default(default)}"


def _default(value: Any) -> str:
    return "none" if value is None else json.dumps(whole(value), default=str)


def _descriptions(of: type) -> dict[str, str]:
    """What the `Args:` parts of the class's docstring, and of those it inherits from, say of every parameter."""
    found: dict[str, str] = {}
    for cls in reversed(of.__mro__):
        _, _, after = inspect.cleandoc(cls.__doc__ or "").partition("Args:\n")
        args = re.split(r"\n\S", f"{after}\n")[0]
        entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", args, re.MULTILINE)
        found |= {name: " ".join(text.split()) for name, text in entries}
    return found


def whole(value: Any) -> Any:
    """The same with numbers such as 2e3 as int, which may stand for a float; the reverse is not so."""
    match value:
        case dict():
            return {key: whole(item) for key, item in value.items()}
        case list():
            return [whole(item) for item in value]
        case float() if value.is_integer() and abs(value) < 2**53:
            return int(value)
    return value
