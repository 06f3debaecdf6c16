"""The commented scenario that `splitexit init` writes: every key with its description and default."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo

from splitexit.scenario.scalars import dump
from splitexit.scenario.schema import SECTIONS
from splitexit.scenario.signature import signature_model, whole
from splitexit.scenario.spec import ZOOS, Spec, Zoo, load
from splitexit.scenario.strict_yaml import Keys

WIDTH = 100

EXAMPLES: dict[str, Any] = {
    "uplink": {"name": "constant", "mbps": 5.85, "delay_ms": 10},
    "downlink": {"name": "constant", "mbps": 13, "delay_ms": 10},
    "policies": {
        "local": {"name": "local"},
        "offload-jpeg": {"name": "offload", "split": 0, "codec": "jpeg"},
        "early-exit": {"name": "threshold", "threshold": 0.8},
        "neurosurgeon": {"name": "neurosurgeon"},
    },
}
"""Values for keys without a telling default."""

CONSTANT = "{name: constant, mbps: 50, delay_ms: 5}"

SHOWN = {
    "groups": ["groups:", "  cameras: {count: 8}", "  phones: {count: 3, hardware: pixel-2-xl, policy: local}"],
    "access_points": [f"access_points: {{cell: {{count: 2, sharing: processor, uplink: {CONSTANT}}}}}"],
    "modes": ["modes: {slow: {hardware: board-600mhz.json, energy: {compute_w: 3.4}}}"],
    "batching": ["batching: {max_size: 8, max_wait_ms: 2}"],
    "cloud": [
        "cloud:",
        "  hardware: workstation-gpu",
        "  split: 4",
        f"  uplink: {CONSTANT}",
        f"  downlink: {CONSTANT}",
    ],
    "events": [
        "events:",
        "  - {kind: edge-down, at_s: 10, for_s: 5, server: 0}",
        "  - {kind: outage, at_s: 20, for_s: 3, direction: up}",
        "  - {kind: bandwidth, at_s: 30, for_s: 10, factor: 0.2}",
        "  - {kind: leave, at_s: 40, for_s: 10, share: 0.5}",
        "  - {kind: burst, at_s: 60, for_s: 10, factor: 5}",
    ],
}
"""Examples in comments, of keys that most scenarios do without."""

SOURCES = {
    "uplink": "Here: LTE, 5.85 Mbit/s (Huang et al., MobiSys 2012, as in Eshratifar et al., BottleNet, ISLPED 2019).",
    "downlink": "Here: LTE, 13 Mbit/s (Huang et al., MobiSys 2012).",
}
"""Where they come from."""


def template(name: str, bundle: str) -> str:
    """A scenario's YAML, with comments.

    Args:
        name: the scenario's name.
        bundle: path of the bundle as the file is to say it.
    """
    examples = EXAMPLES | {"name": name, "bundle": bundle}
    head = [
        "# A splitexit scenario. Every key with a default may be left out.",
        "# `splitexit check FILE` says what is wrong with it, `splitexit schema` prints its JSON schema.",
    ]
    return "\n".join([*head, *_section((), examples)]) + "\n"


def _section(path: Keys, examples: dict[str, Any]) -> Iterator[str]:
    indent = "  " * len(path)
    for key, field in SECTIONS[path].model_fields.items():
        yield from _comment(indent, key, field)
        if (*path, key) in SECTIONS and field.default is not None:
            yield f"{indent}{key}:"
            yield from _section((*path, key), {})
        else:
            yield from _entry(indent, key, examples.get(key, _plain(field.default)))


def _comment(indent: str, key: str, field: FieldInfo) -> Iterator[str]:
    if not indent:
        yield ""
    source = "" if indent else SOURCES.get(key, "")
    text = " ".join(f"{field.description} {source}".split())
    yield from textwrap.wrap(text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
    if key in SHOWN:
        yield f"{indent}# For example:"
        yield from (f"{indent}#   {line}" for line in SHOWN[key])
    for zoo in (mark for mark in field.metadata if isinstance(mark, Zoo)):
        yield f"{indent}# One of:"
        yield from (f"{indent}#   {line}" for line in _menu(zoo.kind))


def _menu(kind: str) -> Iterator[str]:
    """Every member of a zoo with its parameters; `…` where there is no default."""
    for name in ZOOS[kind][0].names():
        fields = signature_model(load(kind, name)).model_fields.values()
        given = [f"{f.alias}: {'…' if f.is_required() else _flow(f.default)}" for f in fields]
        yield f"{{{', '.join([f'name: {name}', *given])}}}"


def _entry(indent: str, key: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value and all(isinstance(item, dict) for item in value.values()):
        yield f"{indent}{key}:"
        for label, item in value.items():
            yield f"{indent}  {label}: {_flow(item)}"
    else:
        yield f"{indent}{key}: {_flow(value)}"


def _flow(value: Any) -> str:
    """YAML on one line."""
    return dump([whole(value)], flow=True)[1:-2]


def _plain(default: Any) -> Any:
    if isinstance(default, Spec):
        return default.plain() if default.parameters else default.name
    return list(default) if isinstance(default, tuple) else default
