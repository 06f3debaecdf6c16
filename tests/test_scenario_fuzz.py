"""Promise 9: whatever a scenario file says, it is a scenario or a list of problems with their places.

`SPLITEXIT_FUZZ=10000 pytest tests/test_scenario_fuzz.py` is the long form.
"""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitexit.errors import ScenarioError
from splitexit.scenario import Scenario, dump, load
from tests.synthetic import SCENARIO

ROUNDS = int(os.environ.get("SPLITEXIT_FUZZ", "1000"))
LINE = re.compile(r"(scenario\.yaml(:\d+:\d+)?|--set [^\n]*): \S.*")


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a document that holds a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(below for key, item in items for below in paths(item, (*path, key)))]


LARGE: dict[str, Any] = SCENARIO | {
    "devices": SCENARIO["devices"] | {"access_point": "cell", "energy": {"compute_w": 3, "idle_w": 2, "radio": "lte"}},
    "groups": {"a": {"count": 2}, "b": {"uplink": {"name": "lte"}, "policy": "offload", "retries": 1}},
    "access_points": {"cell": {"count": 2, "sharing": "processor"}},
    "edge": {"servers": 2, "balancer": "least-loaded", "queue": 3, "batching": {"max_size": 4, "max_wait_ms": 2}},
    "cloud": {"split": 1, "uplink": {"name": "ethernet"}, "downlink": {"name": "ethernet"}},
    "warmup_s": 1,
    "events": [
        {"kind": "edge-down", "at_s": 1, "for_s": 2, "server": 1},
        {"kind": "outage", "at_s": 3, "on": "cell", "direction": "up"},
        {"kind": "bandwidth", "at_s": 4, "for_s": 1, "factor": 0.5},
        {"kind": "leave", "at_s": 5, "share": 0.5, "on": "a"},
        {"kind": "burst", "at_s": 6, "for_s": 1, "factor": 3},
    ],
}
"""With every section that a scenario can have."""

PATHS = [path for path in paths(LARGE) if path]
NAMES = [
    "local",
    "threshold",
    "constant",
    "trace",
    "mahimahi",
    "host",
    "offload",
    "jpeg:q=1",
    "outage",
    "burst",
    "closed",
]
LABELS = ["a", "b", "cell", "devices", "own"]
KEYS = ["name", "codec", "split", "kind", "on", "count", "uplink", "access_point", "max_size"]
WORDS = st.sampled_from([*NAMES, *LABELS, *KEYS])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | WORDS
    | st.just("a:b")
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A good scenario with some values replaced, taken out or added, and perhaps some characters changed."""
    content = copy.deepcopy(LARGE)
    for path in draw(st.lists(st.sampled_from(PATHS), min_size=1, max_size=3)):
        node: Any = content
        for key in path[:-1]:
            known = isinstance(node, dict) or (isinstance(node, list) and isinstance(key, int) and key < len(node))
            node = (node.get(key) if isinstance(node, dict) else node[key]) if known else None
        if isinstance(node, dict):
            key = draw(st.just(path[-1]) | WORDS)
            node.pop(key, None)
            if draw(st.integers(0, 3)):
                node[key] = draw(VALUES)
    text = dump(content, flow=draw(st.booleans()))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(text)))
        text = (
            text[:at]
            + draw(st.text(max_size=3) | st.sampled_from(["[", "{", "&a ", "*a", "\t", "!!x ", ": "]))
            + text[at:]
        )
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the scenarios stand."""
    return tmp_path_factory.mktemp("fuzz")


def check(path: Path, overrides: list[str]) -> None:
    """Loads; a failure must be sentences with places."""
    try:
        scenario = load(path, overrides)
    except ScenarioError as error:
        lines = str(error).removeprefix(f"{path.parent}/").replace(f"\n{path.parent}/", "\n").split("\n")
        assert lines
        for line in lines:
            assert LINE.fullmatch(line), line
            assert line.isprintable()
    else:
        assert isinstance(scenario, Scenario)
        path.write_text(dump(scenario.resolved()), encoding="utf-8")
        assert load(path) == scenario


@given(damaged())
@settings(max_examples=ROUNDS, deadline=10_000, suppress_health_check=list(HealthCheck))
def test_promise_9_a_damaged_scenario_is_a_scenario_or_problems(folder: Path, text: str) -> None:
    path = folder / "scenario.yaml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    check(path, [])


@given(
    st.lists(
        st.builds(
            "{}{}{}".format,
            st.sampled_from([".".join(map(str, path)) for path in PATHS]) | st.text(max_size=9),
            st.sampled_from(["=", ".x=", ".0=", ""]),
            VALUES.map(lambda value: dump(value, flow=True).strip()) | st.text(max_size=9),
        ),
        min_size=1,
        max_size=3,
    )
)
@settings(max_examples=ROUNDS // 2, deadline=10_000, suppress_health_check=list(HealthCheck))
def test_any_override_makes_a_scenario_or_problems(folder: Path, overrides: list[str]) -> None:
    path = folder / "scenario.yaml"
    path.write_text(dump(LARGE), encoding="utf-8")
    check(path, overrides)


def test_nothing_is_wrong_with_what_is_damaged(folder: Path) -> None:
    path = folder / "scenario.yaml"
    path.write_text(dump(LARGE), encoding="utf-8")
    assert isinstance(load(path), Scenario)
