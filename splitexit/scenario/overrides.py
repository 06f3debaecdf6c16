"""`--set uplink.mbps=5`: values that take the place of a scenario's, typed and checked like the file itself."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from splitexit.errors import Problem, ScenarioError
from splitexit.scenario.scalars import shown
from splitexit.scenario.sections import Devices
from splitexit.scenario.spec import Given, Spec
from splitexit.scenario.strict_yaml import Document, Keys, Place, dotted, parse


class _Refused(Exception):
    """The path leads nowhere; `args` are the path as far as it goes, and why."""


def apply(document: Document, overrides: Iterable[str]) -> None:
    """Puts every `path=value` into the document, its text as its place; adds to `document.problems`."""
    for text in overrides:
        source = Place(source=f"--set {text}")
        path, equals, value = text.partition("=")
        if not equals:
            _complain(document, source, "", "expected KEY=VALUE, for example uplink.mbps=5")
            continue
        try:
            read = parse(value or "null", source.source)
        except ScenarioError as error:
            _complain(document, source, path, *(problem.what for problem in error.problems))
            continue
        if read.problems:
            _complain(document, source, path, *(problem.what for problem in read.problems))
        elif isinstance(document.value, dict):
            _apply(document, path, _given(read.value), source)


def _complain(document: Document, source: Place, where: str, *whats: str) -> None:
    document.problems += [Problem(0, 0, where, what, source.source) for what in whats]


def _given(value: Any) -> Any:
    """The same with all text marked as given on the command line."""
    match value:
        case str():
            return Given(value)
        case list():
            return [_given(item) for item in value]
        case dict():
            return {key: _given(item) for key, item in value.items()}
    return value


def _apply(document: Document, path: str, value: Any, source: Place) -> None:
    try:
        _put(document, path.split("."), value, source)
    except _Refused as refused:
        reached, why = refused.args
        _complain(document, source, dotted(reached), why)


def _put(document: Document, names: list[str], value: Any, source: Place) -> None:
    node, path = document.value, Keys(())
    while True:
        key, names = _next(node, path, names)
        path = (*path, key)
        if not names:
            break
        if isinstance(node, dict) and node.get(key) is None:
            node[key] = deepcopy(_inherited(document.value, path))
            document.keys[path] = source
        node[key] = node = _opened(document.value, node[key], path)
    node[key] = value
    n = len(path)
    document.values = {at: place for at, place in document.values.items() if at[:n] != path} | {path: source}
    document.keys = {at: place for at, place in document.keys.items() if at[:n] != path} | {path: source}


def _next(node: Any, path: Keys, names: list[str]) -> tuple[Any, list[str]]:
    """The key that comes next: a list's position, or the longest known key (keys may hold dots)."""
    if isinstance(node, list):
        if not (names[0].isdecimal() and int(names[0]) < len(node)):
            raise _Refused(path, f"has no entry {shown(names[0])}; expected 0 to {len(node) - 1}")
        return int(names[0]), names[1:]
    for end in range(len(names), 0, -1):
        if ".".join(names[:end]) in node:
            return ".".join(names[:end]), names[end:]
    return names[0], names[1:]


def _opened(root: dict[str, Any], child: Any, path: Keys) -> Any:
    """What stands at `path`, for a key below it: a bare name becomes a mapping, a label what it stands for."""
    if isinstance(child, str):
        labels = root.get("policies")
        if _takes_labels(path) and isinstance(labels, dict) and child in labels:
            child = deepcopy(labels[child])
        return {"name": child} if isinstance(child, str) else child
    if not isinstance(child, dict | list):
        raise _Refused(path, f"found {shown(child)}; there is no key below it")
    return child


def _takes_labels(path: Keys) -> bool:
    return path == ("devices", "policy") or (path[:1] == ("groups",) and path[2:] == ("policy",))


def _inherited(root: dict[str, Any], path: Keys) -> Any:
    """What holds where nothing was given, for a key below it: what `devices`, the scenario or the schema say."""
    key, section = str(path[-1]), path[0]
    devices = root.get("devices") if section == "groups" else None
    given = devices.get(key) if isinstance(devices, dict) else None
    inner = len(path) == (2 if section == "devices" else 3) and section in ("devices", "groups", "access_points")
    if inner and given is None and key in ("uplink", "downlink"):
        given = root.get(key)
    if inner and given is None and section != "access_points" and key in Devices.model_fields:
        default = Devices.model_fields[key].default
        given = default.plain() if isinstance(default, Spec) else None
    return {} if given is None or not inner else given
