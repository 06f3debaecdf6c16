"""Members of the zoos as a scenario names them: a name, and keywords for the class behind it.

Only the file of the member that is named is imported; what its constructor takes is what a scenario may give.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler, ValidationError, ValidationInfo
from pydantic_core import PydanticCustomError, core_schema

from splitexit import codecs
from splitexit.arrivals import ARRIVALS, Arrivals
from splitexit.errors import InputError, TraceError, UnknownNameError, did_you_mean
from splitexit.links import LINKS, Link
from splitexit.policies import POLICIES, Policy
from splitexit.registry import Registry
from splitexit.scenario.explain import ELSEWHERE, Finding, explain, problems
from splitexit.scenario.scalars import shown
from splitexit.scenario.signature import hints, signature_model, whole
from splitexit.scenario.strict_yaml import Keys

ZOOS: dict[str, tuple[Registry[Any], type]] = {
    "arrivals": (ARRIVALS, Arrivals),
    "link": (LINKS, Link),
    "policy": (POLICIES, Policy),
}
"""Kind -> table, and the class that every member derives from."""

CODEC_KEYS = ("codec", "codecs")
"""Parameters by these names hold a codec id, or a list of them."""


Use = tuple[tuple[str, Any], ...]
"""Keywords that follow from where a member stands, for members that have them and are not given them."""

UPWARD: Use = (("direction", "up"),)
DOWNWARD: Use = (("direction", "down"),)


class Given(str):
    """Text that was given on the command line: a path in it may start at the working directory."""


@dataclass(frozen=True)
class Folders:
    """Where relative paths start.

    Args:
        file: the folder of the scenario file.
        here: the working directory, for text from the command line.
    """

    file: Path
    here: Path

    def resolve(self, text: str) -> Path:
        """The absolute path that `text` means."""
        base = self.here if isinstance(text, Given) and (self.here / text).exists() else self.file
        return Path(os.path.abspath(base / text))


@dataclass(frozen=True)
class Spec:
    """A member of a zoo with all its parameters, checked; `create` makes a new one."""

    kind: str
    name: str
    parameters: Mapping[str, Any]

    def create(self) -> Any:
        """A new instance; raises InputError where a file that it reads has changed since the check."""
        return load(self.kind, self.name)(**self.parameters)

    def plain(self) -> dict[str, Any]:
        """As in a scenario file, with every parameter."""
        return {"name": self.name, **self.parameters}


def load(kind: str, name: str) -> type:
    """The class of that name; raises UnknownNameError or InputError."""
    registry, interface = ZOOS[kind]
    if ":" in name and not _is_outside_class(name):
        raise UnknownNameError(kind, name, registry.names())
    found = registry.load(name)
    if not (inspect.isclass(found) and issubclass(found, interface)) or inspect.isabstract(found):
        raise InputError(
            f"{name!r} is not a {kind}; expected a subclass of {interface.__module__}.{interface.__name__}"
        )
    return found


def _is_outside_class(name: str) -> bool:
    """Whether `name` is module:Class of a package that may be imported because a file says so."""
    top, _, _ = name.partition(":")[0].partition(".")
    plain = re.fullmatch(r"[a-z]\w*(\.[a-z_]\w*)*:[a-z_]\w*", name, re.ASCII | re.IGNORECASE)
    return plain is not None and top not in sys.stdlib_module_names and "__main__" not in name


def parse(kind: str, raw: Any, folders: Folders, use: Use = ()) -> Spec:
    """A name, or a mapping with a name and keywords, as a Spec.

    Args:
        kind, raw: of which zoo, and what the scenario says.
        folders: where relative paths start.
        use: what follows from where it stands.

    Raises:
        ValidationError: every problem found, at its path below `raw`, as finished sentences.
    """
    place: Keys = ("name",)
    if isinstance(raw, str):
        raw, place = {"name": raw}, ()
    if isinstance(raw, dict) and isinstance(raw.get("name"), str):
        _let_import(raw["name"], folders)
    kind_, given = _class(kind, raw, place), {key: value for key, value in raw.items() if key != "name"}
    given = {key: value for key, value in use if key in hints(signature_model(kind_))} | given
    found: dict[Keys, Finding] = {}
    parameters = _parameters(kind_, given, folders, found)
    if issubclass(kind_, Policy):
        parameters = _with_canonical_codecs(parameters or given, found)
    if not found:
        found = _refusal(kind_, parameters)
    if found:
        raise problems(kind, found)
    return Spec(kind, str(raw["name"]), parameters)


def _let_import(name: str, folders: Folders) -> None:
    """Puts the folder of a module:Class that lies beside the scenario, or where one is, behind all that is installed.

    It stays there: processes that are started later take it over.
    """
    if ":" not in name or not _is_outside_class(name):
        return
    top = name.partition(":")[0].partition(".")[0]
    for folder in (folders.file, folders.here):
        there = (folder / f"{top}.py").is_file() or (folder / top).is_dir()
        if there and str(folder) not in sys.path:
            sys.path.append(str(folder))
            importlib.invalidate_caches()


def stand_alone(kind: str, raw: Any, folders: Folders) -> Spec:
    """`parse` for what stands in no scenario; raises InputError with the first problem."""
    try:
        return parse(kind, raw, folders)
    except ValidationError as error:
        raise InputError(error.errors()[0]["msg"]) from error


def _class(kind: str, raw: Any, place: Keys) -> type:
    """The class that `raw` names, at `place`."""
    listed = ", ".join(ZOOS[kind][0].names())
    if not isinstance(raw, dict):
        expected = f"the name of a {kind}, or a mapping with a name ({listed}) and its parameters"
        raise problems(kind, {(): Finding(f"found {shown(raw)}; expected {expected}")})
    if "name" not in raw:
        raise problems(kind, {place: Finding(f"the key 'name' is missing; expected one of {listed}")})
    name = raw["name"]
    if not isinstance(name, str):
        raise problems(kind, {place: Finding(f"found {shown(name)}; expected one of {listed}")})
    try:
        found = load(kind, name)
        signature_model(found)
        return found
    except UnknownNameError as error:
        what = f"unknown {kind} {shown(name)}{did_you_mean(name, error.known)}"
    except InputError as error:
        what = str(error)
    except Exception as error:  # whatever a module of somebody else's does when it is imported
        what = f"cannot be imported: {type(error).__name__}: {' '.join(str(error).split())}"
    raise problems(kind, {place: Finding(what)})


def _refusal(of: type, parameters: Mapping[str, Any]) -> dict[Keys, Finding]:
    """What the constructor itself has against the parameters."""
    try:
        of(**parameters)
    except (InputError, ValueError, TypeError, OSError) as error:
        paths = [key for key, value in parameters.items() if isinstance(value, Path)]
        blamed = tuple(paths) if len(paths) == 1 and isinstance(error, TraceError | OSError) else ()
        return {blamed: Finding(" ".join(str(error).split()))}
    return {}


def _with_canonical_codecs(given: Mapping[str, Any], found: dict[Keys, Finding]) -> dict[str, Any]:
    """The same with every codec id in its canonical form; adds to `found`."""
    result = dict(given)
    for key in CODEC_KEYS:
        value = given.get(key)
        if isinstance(value, list):
            result[key] = [_canonical(item, found, (key, n)) for n, item in enumerate(value)]
        elif key in given:
            result[key] = _canonical(value, found, (key,))
    return result


def _canonical(codec: Any, found: dict[Keys, Finding], path: Keys) -> Any:
    if not isinstance(codec, str):
        return codec
    try:
        return codecs.canonical(codec)
    except (InputError, ImportError) as error:
        found[path] = Finding(str(error))
        return codec


def _parameters(of: type, given: Mapping[str, Any], folders: Folders, found: dict[Keys, Finding]) -> dict[str, Any]:
    """Typed parameters, with the defaults of those that were not given; adds to `found`."""
    model = signature_model(of)
    try:
        # Strict JSON is what a YAML file can say: lists may become tuples, but no text becomes a number.
        checked = model.model_validate_json(json.dumps(whole(given)), strict=True)
    except ValidationError as error:
        known = {"name": "", **hints(model)}
        found |= explain(error, given, lambda path: {} if path else known)
        return {}
    values = {str(field.alias): getattr(checked, key) for key, field in model.model_fields.items()}
    return {key: _resolved(value, given.get(key), folders) for key, value in values.items()}


def _resolved(value: Any, raw: Any, folders: Folders) -> Any:
    """Paths made absolute; `raw` is what the value was made from, and knows where it was given."""
    if isinstance(value, Path):
        return folders.resolve(raw if isinstance(raw, str) else str(value))
    if isinstance(value, list) and isinstance(raw, list):
        return [_resolved(*pair, folders) for pair in zip(value, raw, strict=True)]
    return value


@dataclass(frozen=True)
class Zoo:
    """Annotates a field of the scenario as a Spec of this kind; `labels` lets it name an entry of `policies:`,
    `use` is what follows from the field.

    Validation context: `folders` (Folders) and `labels` (the raw entries of `policies:`).
    """

    kind: str
    labels: bool = False
    use: Use = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Validates by `parse`."""
        return core_schema.with_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        """One branch per member of the table, so that an editor completes its parameters."""
        return json_schema(self.kind, self.labels)

    def _validate(self, raw: Any, info: ValidationInfo) -> Spec:
        if isinstance(raw, Spec):  # a default
            return raw
        assert info.context is not None, "validate with a context"
        labels, folders = info.context["labels"], info.context["folders"]
        if not (self.labels and isinstance(raw, str) and raw in labels):
            return parse(self.kind, raw, folders, self.use)
        try:
            return parse(self.kind, labels[raw], folders, self.use)
        except ValidationError as error:
            raise PydanticCustomError(ELSEWHERE, "see the entry of this name in policies") from error


def json_schema(kind: str, labels: bool) -> dict[str, Any]:
    """What a scenario may say of a member of this zoo: its bare name, or a mapping."""
    members = [_member_schema(kind, name) for name in ZOOS[kind][0].names()]
    bare = [member["title"] for member in members if member["required"] == ["name"]]
    names = [{"type": "string"}] if labels else [{"enum": bare}] if bare else []
    return {"anyOf": [*names, *members]}


def _member_schema(kind: str, name: str) -> dict[str, Any]:
    of = load(kind, name)
    schema = signature_model(of).model_json_schema()
    return {
        "title": name,
        "description": (inspect.getdoc(of) or "").split("\n\n")[0],
        "type": "object",
        "properties": {"name": {"const": name}, **schema.get("properties", {})},
        "required": ["name", *schema.get("required", [])],
        "additionalProperties": False,
    }
