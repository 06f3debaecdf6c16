"""Tables that map a name in a YAML file to a class, loaded only when it is asked for.

Nothing registers itself on import (house rule 4): a table is a plain dict from name to
"module:Class"; packages outside splitexit add to it through an entry-point group of the same kind,
or are named directly as "package.module:Class".
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar, cast

from splitexit.errors import InputError, UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """The menu of one zoo.

    Args:
        kind: what the members are called in messages ("policy", "codec", ...).
        table: name -> "module:Class".

    Classes of other packages join through the entry-point group ``splitexit.<kind>``.
    """

    def __init__(self, kind: str, table: Mapping[str, str]) -> None:
        self.kind, self.table = kind, dict(table)

    def names(self) -> list[str]:
        """The names that splitexit itself ships, in the table's order."""
        return list(self.table)

    def load(self, name: str) -> type[T]:
        """The class behind `name`; raises UnknownNameError, or InputError where its import fails."""
        target = self.table.get(name) or _outside(self.kind).get(name)
        if target is None and ":" in name:
            target = name
        if target is None:
            raise UnknownNameError(self.kind, name, [*self.table, *_outside(self.kind)])
        return cast(type[T], _import(self.kind, target))


def _import(kind: str, target: str) -> object:
    module, _, attribute = target.partition(":")
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        own = error.name is not None and (module == error.name or module.startswith(f"{error.name}."))
        hint = "; install it, or put it beside the scenario or into the working directory" if own else ""
        what = f"{kind} {target!r} needs the Python module {error.name!r}, which is not installed{hint}"
        raise InputError(what) from error
    try:
        return getattr(found, attribute)
    except AttributeError as error:
        raise InputError(f"{kind} {target!r}: module {module!r} has no {attribute!r}") from error


@cache
def _outside(kind: str) -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=f"splitexit.{kind}")}
