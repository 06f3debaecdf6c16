"""Imports go downward only, and every floor keeps to its libraries.

The code is read, not run: imports inside functions and under TYPE_CHECKING count as well.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "splitexit"

# A unit is a module or package right under splitexit/; it may import units of its own floor (without circles) and
# of the floors below. A new unit needs a line here.
FLOORS = {
    5: {"cli", "__main__"},
    4: {
        "summary",
        "compare",
        "capacity",
        "sweep",
        "tune",
        "demo",
        "corun",
        "rehearsal",
        "validate",
        "replay",
        "report",
        "recommend",
        "bench",
        "rl",
        "contract",
    },
    3: {"sim", "models", "live"},
    2: {"answer", "inference", "batching", "scenario", "fleet", "workload", "setting", "experiment", "wiring", "check"},
    1: {
        "policies",
        "codecs",
        "links",
        "arrivals",
        "energy",
        "radios",
        "estimate",
        "sense",
        "memory",
        "footprint",
        "partition",
        "regression",
        "actor",
        "outlook",
        "changes",
    },
    0: {
        "",
        "errors",
        "registry",
        "bundle",
        "distribution",
        "calibration",
        "copula",
        "hardware",
        "decision",
        "confidence",
        "recording",
        "results",
        "steps",
        "streams",
        "stats",
        "backlog",
        "queueing",
    },
}
FLOOR_OF = {unit: floor for floor, units in FLOORS.items() for unit in units}

# On floor 3 the worlds stand beside each other: only live stands on models.
BESIDE = {("sim", "models"), ("sim", "live"), ("models", "sim"), ("models", "live"), ("live", "sim")}

# Beyond the standard library; numpy is allowed everywhere.
TABLES = {"pyarrow"}
TORCH = {"torch", "safetensors"}
LIBRARIES: dict[str, set[str]] = {
    "bundle": TABLES,
    "recording": TABLES,
    "results": TABLES,
    "energy": TABLES,
    "experiment": TABLES,
    "partition": {"networkx"},
    "regression": {"scipy"},
    "actor": {"safetensors"},
    "footprint": {"safetensors"},
    "recommend": {"scipy"},
    "policies": {"annotated_types"},
    "codecs": {"annotated_types", "PIL", "zstandard", "constriction", "lz4"},
    "links": {"annotated_types"},
    "arrivals": {"annotated_types"},
    "scenario": {"pydantic", "pydantic_core", "annotated_types", "yaml"},
    "sim": TABLES | {"simpy", "numba"},
    "models": TORCH | TABLES | {"PIL", "annotated_types", "datasets", "scipy"},
    "live": TORCH | TABLES | {"grpc", "grpc_health", "grpc_reflection", "google", "PIL"},
    "check": TABLES,
    "demo": TABLES,
    "bench": TORCH | {"scipy", "PIL", "zstandard"},
    "rl": TORCH | {"gymnasium", "annotated_types"},
    "rehearsal": TABLES,
    "validate": TABLES,
    "replay": TABLES,
    "copula": {"scipy"},
    "stats": {"scipy"},
    "backlog": {"scipy"},
    "summary": TABLES,
    "compare": TABLES,
    "capacity": TABLES,
    "sweep": TABLES | {"joblib", "dask", "distributed", "ray"},
    "tune": {"scipy"},
    "report": TABLES | {"pandas", "matplotlib", "rich", "yaml"},
    "cli": {"typer", "click", "rich"},
}
# Learned codecs and policies: torch inside their own file, which a table loads by name.
LEARNED: set[str] = set()


@dataclass(frozen=True)
class Import:
    """`module` is imported in `path` at `line`."""

    path: Path
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line} imports {self.module}"


def is_generated(path: Path) -> bool:
    """Stubs that protoc wrote."""
    return path.name.startswith("edge_pb2")


def sources() -> list[Path]:
    """Every file of the package that a person wrote."""
    return sorted(path for path in PACKAGE.rglob("*.py") if not is_generated(path))


def module_name(path: Path) -> str:
    """`splitexit/sim/device.py` -> `splitexit.sim.device`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit_of(module: str) -> str:
    """`splitexit.sim.device` -> `sim`; the package itself is ``""``."""
    return [*module.split("."), ""][1]


def imports(path: Path, runtime_only: bool = False) -> Iterator[Import]:
    """The imports of a file, with relative ones made absolute."""
    for node in walk(ast.parse(path.read_text(encoding="utf-8")), runtime_only):
        if isinstance(node, ast.Import):
            yield from (Import(path, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(path, node)
            yield from (Import(path, node.lineno, deeper(base, alias.name)) for alias in node.names)


def walk(tree: ast.AST, runtime_only: bool) -> Iterator[ast.AST]:
    """Like ast.walk; with `runtime_only` without the bodies of `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(tree):
        if runtime_only and isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from walk(child, runtime_only)


def absolute(path: Path, node: ast.ImportFrom) -> str:
    """The module that `from X import` names."""
    if not node.level:
        return node.module or ""
    package = module_name(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    return ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])


def deeper(base: str, name: str) -> str:
    """`from base import name` imports the module base.name where there is one, else base."""
    below = ROOT.joinpath(*base.split("."), name)
    return f"{base}.{name}" if below.is_dir() or below.with_suffix(".py").exists() else base


def broken_floor(found: Import) -> str | None:
    """What is wrong with an import of a module of splitexit, if anything."""
    here, there = unit_of(module_name(found.path)), unit_of(found.module)
    if there not in FLOOR_OF:
        return f"{found}, which stands on no floor; add it to FLOORS in {Path(__file__).name}"
    if FLOOR_OF[there] > FLOOR_OF[here]:
        return f"{found}: upward, from floor {FLOOR_OF[here]} to floor {FLOOR_OF[there]}"
    if (here, there) in BESIDE:
        return f"{found}: {here} and {there} stand beside each other"
    return None


def broken_library(found: Import) -> str | None:
    """What is wrong with an import from outside, if anything."""
    top, unit = found.module.split(".")[0], unit_of(module_name(found.path))
    allowed = LIBRARIES.get(unit, set()) | {"numpy"}
    if module_name(found.path) in LEARNED:
        allowed = allowed | TORCH
    if top in sys.stdlib_module_names or top in allowed:
        return None
    return f"{found}: {unit or 'splitexit'} may import {', '.join(sorted(allowed))}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downward(path: Path) -> None:
    unit = unit_of(module_name(path))
    assert unit in FLOOR_OF, f"splitexit.{unit} stands on no floor; add it to FLOORS in {Path(__file__).name}"
    broken = [
        broken_floor(found) if found.module.split(".")[0] == "splitexit" else broken_library(found)
        for found in imports(path)
    ]
    assert not any(broken), "\n".join(filter(None, broken))


def test_there_are_no_circles() -> None:
    graph: dict[str, set[str]] = {}
    for path in sources():
        here = module_name(path)
        targets = {found.module for found in imports(path, runtime_only=True) if found.module.startswith("splitexit")}
        graph[here] = targets - {here}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' -> '.join(error.args[1])}")


def test_one_file_touches_the_generated_messages() -> None:
    touching = {
        str(path.relative_to(PACKAGE))
        for path in sources()
        for found in imports(path)
        if found.module == "splitexit.live.edge_pb2" or found.module.startswith("google.protobuf")
    }
    assert touching <= {"live/wire.py"}, f"only live/wire.py may know the generated messages, not {touching}"


@pytest.mark.parametrize(
    ("path", "module", "message"),
    [
        ("sense.py", "splitexit.sim", "upward, from floor 1 to floor 3"),
        ("live/device.py", "splitexit.sim.run", "live and sim stand beside each other"),
        ("sim/run.py", "splitexit.models.train", "sim and models stand beside each other"),
        ("sim/run.py", "splitexit.nowhere", "stands on no floor; add it to FLOORS"),
        ("sim/run.py", "splitexit.links.trace", None),
        ("live/server.py", "splitexit.models", None),
    ],
)
def test_the_rules_themselves(path: str, module: str, message: str | None) -> None:
    broken = broken_floor(Import(PACKAGE / path, 1, module))
    assert broken is None if message is None else broken is not None and message in broken


@pytest.mark.parametrize(
    ("path", "module", "fine"), [("sim/run.py", "torch", False), ("models/train.py", "torch", True)]
)
def test_the_rules_for_libraries_themselves(path: str, module: str, fine: bool) -> None:
    assert (broken_library(Import(PACKAGE / path, 1, module)) is None) is fine


def test_every_unit_of_the_tables_exists() -> None:
    """A line in FLOORS or LIBRARIES whose module is gone would allow what nobody meant."""
    existing = {unit_of(module_name(path)) for path in PACKAGE.rglob("*.py")}
    assert set(FLOOR_OF) <= existing
    assert set(LIBRARIES) <= set(FLOOR_OF)
    assert {PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py").exists() for module in LEARNED} <= {True}
