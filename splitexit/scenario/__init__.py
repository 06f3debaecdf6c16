"""Scenarios: YAML files read into frozen, checked objects.

load(path, overrides) -> Scenario    raises ScenarioError with every problem and its file:line:column
Scenario.uplink.create() -> Link     members of the zoos are Specs: a name and checked parameters
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from splitexit.errors import Problem, ScenarioError
from splitexit.scenario import overrides as _overrides
from splitexit.scenario import strict_yaml
from splitexit.scenario.explain import explain
from splitexit.scenario.rules import broken
from splitexit.scenario.scalars import dump, shown
from splitexit.scenario.schema import OWN, Scenario, hints, json_schema
from splitexit.scenario.sections import HOST, AccessPoint, Cloud, Devices, Edge, Mode
from splitexit.scenario.signature import whole
from splitexit.scenario.spec import Folders, Spec
from splitexit.scenario.strict_yaml import Document

__all__ = [
    "HOST",
    "OWN",
    "AccessPoint",
    "Cloud",
    "Devices",
    "Draft",
    "Edge",
    "Folders",
    "Mode",
    "Scenario",
    "Spec",
    "draft",
    "dump",
    "json_schema",
    "load",
]


@dataclass(frozen=True)
class Draft:
    """A scenario file as far as it can be read: the scenario, or what is wrong with it."""

    document: Document
    folders: Folders
    scenario: Scenario | None
    problems: tuple[Problem, ...]


def load(path: Path | str, overrides: Sequence[str] = ()) -> Scenario:
    """Reads and checks a scenario.

    Args:
        path: the YAML file; paths in it are relative to its folder.
        overrides: `key.path=value` texts, which take the place of the file's values.

    Raises:
        ScenarioError: with every problem of the file and the overrides. The bundle is not looked at (see `check`).
    """
    found = draft(path, overrides)
    if found.scenario is None:
        raise ScenarioError(found.document.file, found.problems)
    return found.scenario


def draft(path: Path | str, overrides: Sequence[str] = ()) -> Draft:
    """The same, with the problems as data; raises ScenarioError only where reading cannot go on."""
    path = Path(path)
    document = strict_yaml.read(path)
    _overrides.apply(document, overrides)
    folders = Folders(Path(os.path.abspath(path)).parent, Path.cwd())
    scenario, problems = _validate(document, folders)
    if scenario is not None:
        scenario._file = path
    problems = [*document.problems, *problems]
    return Draft(document, folders, None if problems else scenario, tuple(problems))


def _validate(document: Document, folders: Folders) -> tuple[Scenario | None, list[Problem]]:
    raw = document.value
    if not isinstance(raw, dict):
        keys = ", ".join(hints((), {}))
        return None, [document.problem((), f"found {shown(raw)}; expected the keys of a scenario: {keys}")]
    labels = raw.get("policies")
    context = {"folders": folders, "labels": labels if isinstance(labels, dict) else {}}
    stem = Path(document.file).stem[:80].encode(errors="replace").decode()
    raw = {"name": stem, **raw}
    scenario = None
    try:
        scenario = Scenario.model_validate(whole(raw), context=context)
        found = broken(scenario, raw)
    except ValidationError as error:
        found = explain(error, raw, partial(hints, raw=raw))
    return scenario, [document.problem(path, what, of_key) for path, (what, of_key) in found.items()]
