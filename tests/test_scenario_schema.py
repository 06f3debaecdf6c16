"""What is generated from the models: the JSON schema and the commented scenario."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from splitexit import hardware
from splitexit.scenario import Scenario, json_schema, load
from splitexit.scenario.schema import SECTIONS
from splitexit.scenario.signature import signature_model
from splitexit.scenario.spec import ZOOS
from splitexit.scenario.spec import load as load_class
from splitexit.scenario.strict_yaml import Keys
from splitexit.scenario.template import SHOWN, template
from tests.synthetic import calibration, spec

SCHEMA = json_schema()
ZOO_FIELDS = {
    "link": ["uplink", "downlink", "cloud.uplink", "cloud.downlink"],
    "arrivals": ["devices.arrivals"],
    "policy": ["devices.policy", "policies"],
}


def section(path: Keys) -> dict[str, Any]:
    """The part of the JSON schema for a section."""
    name = SECTIONS[path].__name__
    part: dict[str, Any] = SCHEMA if not path else SCHEMA["$defs"][name]
    return part


def field(dotted: str) -> dict[str, Any]:
    """The schema of one field."""
    *path, key = dotted.split(".")
    found: dict[str, Any] = section(tuple(path))["properties"][key]
    return found.get("additionalProperties", found) if key == "policies" else found


@pytest.mark.parametrize("path", SECTIONS, ids=lambda path: ".".join(path) or "scenario")
def test_every_key_is_described_and_no_other_is_allowed(path: Keys) -> None:
    part = section(path)
    assert list(part["properties"]) == list(SECTIONS[path].model_fields)
    assert all(prop.get("description") for prop in part["properties"].values()), part
    assert part["additionalProperties"] is False


@pytest.mark.parametrize("path", SECTIONS, ids=lambda path: ".".join(path) or "scenario")
def test_every_default_says_where_it_comes_from(path: Keys) -> None:
    """Except the number of devices, the seed, and those that are sections or worth nothing without the others."""
    own = {"count", "seed", "devices", "edge", "utility", "accuracy", "hardware"}
    for key, value in SECTIONS[path].model_fields.items():
        if not value.is_required() and key not in own:
            assert "Default: " in " ".join(str(value.description).split()), key


def test_required_keys() -> None:
    assert SCHEMA["required"] == ["bundle", "uplink", "downlink"]
    assert SCHEMA["$schema"].startswith("https://json-schema.org/")


def test_ranges_and_names_are_in_the_schema() -> None:
    assert field("requests")["exclusiveMinimum"] == 0
    assert field("devices.deadline_ms")["exclusiveMinimum"] == 0
    names, file = field("devices.hardware")["anyOf"]
    assert names == {"enum": ["host", *hardware.names()]}
    assert (file["format"], file["pattern"]) == ("path", r"\.json$")
    assert field("devices.arrivals")["default"] == {"name": "poisson", "rate_hz": 4.0}


@pytest.mark.parametrize(("kind", "where"), [(kind, where) for kind, fields in ZOO_FIELDS.items() for where in fields])
def test_every_member_of_a_zoo_is_a_branch_with_its_parameters(kind: str, where: str) -> None:
    branches = {branch["title"]: branch for branch in field(where)["anyOf"] if "title" in branch}
    assert list(branches) == ZOOS[kind][0].names()
    for name, branch in branches.items():
        fields = signature_model(load_class(kind, name)).model_fields.values()
        assert list(branch["properties"]) == ["name", *(str(f.alias) for f in fields)]
        assert branch["properties"]["name"] == {"const": name}
        assert branch["additionalProperties"] is False
        assert branch["required"] == ["name", *(str(f.alias) for f in fields if f.is_required())]


def test_bare_names_stand_for_members_that_need_nothing() -> None:
    assert field("devices.arrivals")["anyOf"][0] == {"enum": ["closed"]}
    assert field("devices.policy")["anyOf"][0] == {"type": "string"}, "a label, too"
    assert "local" in field("policies")["anyOf"][0]["enum"]
    assert field("uplink")["anyOf"][0] == {"enum": ["3g", "lte", "5g", "wifi", "ethernet", "lora"]}


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(SCHEMA)
    assert set(re.findall(r'"#/\$defs/(\w+)"', text)) == set(SCHEMA["$defs"])


@pytest.mark.parametrize("kind", ["link", "arrivals"])
def test_every_parameter_of_links_and_arrivals_is_described(kind: str) -> None:
    for name in ZOOS[kind][0].names():
        for parameter in signature_model(load_class(kind, name)).model_fields.values():
            assert parameter.description, f"{kind} {name}: {parameter.alias}"


def test_the_template_is_a_scenario_with_every_key(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(template("mine", "../data/bundle"))
    scenario = load(path)
    assert scenario.name == "mine"
    assert scenario.bundle == tmp_path.parent / "data/bundle"
    for section_path in [(), ("devices",), ("devices", "energy"), ("edge",), ("utility",)]:
        for key in SECTIONS[section_path].model_fields:
            assert re.search(rf"^{'  ' * len(section_path)}{key}:", path.read_text(), re.MULTILINE), key


def test_the_template_differs_from_the_defaults_only_where_there_are_none(tmp_path: Path) -> None:
    written, bare = tmp_path / "a.yaml", tmp_path / "b.yaml"
    written.write_text(template("a", "bundle"))
    bare.write_text("bundle: bundle\nuplink: {name: constant, mbps: 1}\ndownlink: {name: constant, mbps: 1}\n")
    first, second = load(written).resolved(), load(bare).resolved()
    assert {key for key in first if first[key] != second[key]} == {"name", "uplink", "downlink", "policies"}


def test_the_template_shows_every_member_of_every_zoo() -> None:
    text = template("x", "bundle")
    for registry, _ in ZOOS.values():
        for name in registry.names():
            assert f"{{name: {name}" in text
    for name in Scenario.model_fields:
        assert name in text


@pytest.mark.parametrize("key", SHOWN)
def test_the_examples_in_comments_are_sound(tmp_path: Path, key: str) -> None:
    """As if the `#` before them had been taken out."""
    text = template("x", "bundle")
    assert "\n".join(f"#   {line}" for line in SHOWN[key]) in re.sub(r"^ +", "", text, flags=re.MULTILINE)
    example = "\n".join(SHOWN[key])
    if key == "batching":
        example = f"edge: {{{example}}}"
    if key == "modes":
        calibration(spec()).save(tmp_path / "board-600mhz.json")
        example = f"devices: {{{example}}}"
    path = tmp_path / "x.yaml"
    path.write_text(f"bundle: bundle\nuplink: lte\ndownlink: lte\n{example}\n")
    assert load(path)


def test_a_name_that_yaml_would_misread_is_quoted(tmp_path: Path) -> None:
    path = tmp_path / "1e3.yaml"
    path.write_text(template("1e3", "no: such # path"))
    assert load(path).name == "1e3"
    assert load(path).bundle == tmp_path / "no: such # path"


def test_lines_fit_a_screen() -> None:
    comments = [line for line in template("x", "y").splitlines() if "{" not in line]
    assert max(map(len, comments)) <= 104
