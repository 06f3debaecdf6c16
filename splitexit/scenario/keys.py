"""docs/scenario.md: every key of a scenario in tables, made from the schema."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from splitexit.scenario.scalars import dump
from splitexit.scenario.schema import ANY, SECTIONS, json_schema
from splitexit.scenario.signature import signature_model
from splitexit.scenario.spec import ZOOS, load
from splitexit.scenario.strict_yaml import Keys

COMMAND = "splitexit schema --markdown > docs/scenario.md"
"""What writes the file."""

Schema = Mapping[str, Any]

_HEAD = f"""\
# The keys of a scenario

Made from the schema by `{COMMAND}`: change the descriptions in
`splitexit/scenario/` and the docstrings of links, arrivals and policies instead of this file.

A scenario is a YAML file. Every key may be overridden on the command line, as in `--set uplink.mbps=5`,
`--set groups.cameras.count=8` or `--set events.0.at_s=30`. A key whose default is `null` may be given `null` too.
`splitexit init` writes a commented file to start from, `splitexit check FILE` says what is wrong with one.
"""

_TITLES = {"link": "Links", "arrivals": "Arrivals", "policy": "Policies"}

_ABOUT = {
    "link": "Values of every `uplink` and `downlink`",
    "arrivals": "Values of `devices.arrivals`",
    "policy": "Values of `devices.policy`, which may also be a label of `policies`, and of the entries of `policies`",
}


def markdown() -> str:
    """All tables: the sections of a scenario, then the members of every zoo."""
    return "\n".join([_HEAD, *_sections(), *_zoos()])


def _sections() -> Iterator[str]:
    whole = json_schema()
    for path, of in SECTIONS.items():
        if path[:1] == ("groups",):
            continue  # the keys of `devices`
        part = whole if not path else whole["$defs"][of.__name__]
        yield f"## {f'`{_shown(path)}`' if path else 'The whole'}\n"
        yield f"{_text(part.get('description'))}\n"
        yield from _table(part, prefix=f"{_shown(path)}." if path and path[0] != "events" else "")


def _shown(path: Keys) -> str:
    """A path of SECTIONS as a title: events by their kind."""
    if path[:1] == ("events",):
        return f"events: {{kind: {path[1]}}}"
    return ".".join("LABEL" if key == ANY else str(key) for key in path)


def _zoos() -> Iterator[str]:
    for kind, (registry, _) in ZOOS.items():
        yield f"## {_TITLES[kind]}\n\n{_ABOUT[kind]}: a mapping with a `name` and these keys, or the bare name.\n"
        for name in registry.names():
            of = load(kind, name)
            yield f"### `{name}`\n"
            yield f"{_text((inspect.getdoc(of) or '').partition('Args:')[0])}\n"
            if signature_model(of).model_fields:
                yield from _table(signature_model(of).model_json_schema())


def _table(part: Schema, prefix: str = "") -> Iterator[str]:
    required = part.get("required", [])
    yield "| key | value | default | meaning |\n|---|---|---|---|"
    for key, schema in part["properties"].items():
        default = "required" if key in required else _default(schema)
        yield f"| `{prefix}{key}` | {_value(schema)} | {default} | {_text(schema.get('description'))} |"
    yield ""


def _default(schema: Schema) -> str:
    default = schema.get("default")
    if "$ref" in schema:
        return "its keys'"
    return f"`{dump([default], flow=True).strip()[1:-1]}`"


def _value(schema: Schema) -> str:
    """What may stand there."""
    if member := _zoo(schema):
        return f"[{_TITLES[member].lower()}](#{_TITLES[member].lower()})"
    if "anyOf" in schema:
        branches = [branch for branch in schema["anyOf"] if branch != {"type": "null"}]
        return " or ".join(dict.fromkeys(map(_value, branches)))
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema.get("enum", [schema.get("const")]))
    if "$ref" in schema:
        return "a mapping"
    return _NAMES[schema["type"]](schema)


def _zoo(schema: Schema) -> str:
    """The zoo whose members may stand there; empty if none."""
    branches = schema.get("anyOf", ())
    inner = [branch for branch in branches if "anyOf" in branch]
    names = [branch["title"] for branch in branches if "title" in branch]
    if inner and len(branches) == 2:
        return _zoo(inner[0])
    return next((kind for kind, (registry, _) in ZOOS.items() if names == registry.names()), "")


def _number(schema: Schema) -> str:
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    limits = [f"{sign} {_plain(schema[key])}" for key, sign in signs.items() if key in schema]
    return " ".join(["a whole number" if schema["type"] == "integer" else "a number", ", ".join(limits)]).strip()


def _plain(limit: float) -> str:
    return str(2**64) if limit == 2.0**64 else f"{limit:,.12g}".replace(",", " ")


def _items(schema: Schema) -> str:
    items = schema.get("items", {})
    if "type" not in items:
        return "a list of mappings"
    of = _value(items)
    for one, several in (("a whole number", "whole numbers"), ("a number", "numbers")):
        of = of.replace(one, several)
    return f"a list of {of}"


def _labels(schema: Schema) -> str:
    of = _value(schema["additionalProperties"])
    return f"a mapping of labels to {'mappings' if of == 'a mapping' else of}"


def _string(schema: Schema) -> str:
    return "a path" if schema.get("format") == "path" else "text"


def _flag(schema: Schema) -> str:
    return "`true` or `false`"


_NAMES: dict[str, Callable[[Schema], str]] = {
    "integer": _number,
    "number": _number,
    "string": _string,
    "boolean": _flag,
    "array": _items,
    "object": _labels,
}


def _text(description: Any) -> str:
    """On one line, safe inside a table."""
    return " ".join(str(description or "").split()).replace("|", "\\|")
