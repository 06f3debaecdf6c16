"""docs/scenario.md: all keys in tables, made from the schema."""

from __future__ import annotations

import re

import pytest

from splitexit import cli
from splitexit.scenario.keys import COMMAND, markdown
from splitexit.scenario.schema import SECTIONS
from splitexit.scenario.signature import signature_model
from splitexit.scenario.spec import ZOOS
from splitexit.scenario.spec import load as load_class
from tests.test_floors import ROOT

TEXT = markdown()


def test_the_file_is_up_to_date() -> None:
    found = (ROOT / "docs/scenario.md").read_text(encoding="utf-8")
    assert found == TEXT, f"docs/scenario.md is not what the schema says; run: {COMMAND}"


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["schema", "--markdown"]) == 0
    assert capsys.readouterr().out == TEXT


def test_every_key_of_every_section_has_a_row() -> None:
    for path, of in SECTIONS.items():
        if path[:1] == ("groups",):
            continue  # those of devices
        prefix = ".".join("LABEL" if key == "*" else str(key) for key in path)
        prefix = "" if not path or path[0] == "events" else f"{prefix}."
        for key in of.model_fields:
            assert f"\n| `{prefix}{key}` | " in TEXT


def test_every_parameter_of_every_member_has_a_row() -> None:
    for kind, (registry, _) in ZOOS.items():
        for name in registry.names():
            part = TEXT.partition(f"\n### `{name}`\n")[2].partition("\n##")[0]
            for field in signature_model(load_class(kind, name)).model_fields.values():
                assert f"\n| `{field.alias}` | " in part, (kind, name)


def test_every_row_says_what_may_stand_there_and_what_it_means() -> None:
    rows = re.findall(r"^\| `.*$", TEXT, re.MULTILINE)
    assert len(rows) > 100
    for row in rows:
        cells = re.split(r"(?<!\\)\|", row)[1:-1]
        assert len(cells) == 4
        assert all(cell.strip() for cell in cells), row


@pytest.mark.parametrize(
    "row",
    [
        "| `devices.count` | a whole number > 0, ≤ 100 000 | `1` | How many there are. |",
        "| `bundle` | a path | required | Folder of the model",
        "| `uplink` | [links](#links) | required | From a device",
        "| `devices.uplink` | [links](#links) | `null` | A device's own",
        "| `events` | a list of mappings | `[]` | What goes wrong",
        "| `seed` | a whole number ≥ 0, < 18446744073709551616 | `0` | Seed",
        "| `edge.balancer` | `round-robin`, `least-loaded` | `round-robin` | Which",
        "| `policies` | a mapping of labels to [policies](#policies) | `{}` | Label",
        "| `devices` | a mapping | its keys' | The devices",
        "| `mbps` | a list of numbers ≥ 0, ≤ 1 000 000 | required | the rate of every state",
    ],
)
def test_rows(row: str) -> None:
    assert f"\n{row}" in TEXT


def test_links_within_the_file_lead_somewhere() -> None:
    for target in set(re.findall(r"\(#([\w-]+)\)", TEXT)):
        assert f"\n## {target.capitalize()}\n" in TEXT
