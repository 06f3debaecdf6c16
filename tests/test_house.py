"""The sizes that keep the code readable, and what a command may load before it is needed."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.test_floors import PACKAGE, ROOT, module_name, sources, unit_of

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | Function

MEDIAN_LINES, P90_LINES, MOST_LINES, FILE_LINES = 8, 25, 60, 400
# Imported only by the parts that need them; `splitexit simulate` runs where the first two are not installed.
HEAVY = ("torch", "grpc", "safetensors", "matplotlib", "pandas")
NEED_THEM = {"models", "live", "bench", "rehearsal", "demo", "rl"}


def parse(path: Path) -> ast.Module:
    """The file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(tree: ast.AST) -> Iterator[Function]:
    """All functions and methods, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """Lines of the body without the docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 1


def lengths() -> dict[str, int]:
    """Body lines of every function, by place."""
    return {
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}": body_lines(function)
        for path in sources()
        for function in functions(parse(path))
    }


def test_functions_are_short() -> None:
    """Median at most 8 lines, nine in ten at most 25, none over 60."""
    found = lengths()
    sizes = list(found.values())
    too_long = {place: lines for place, lines in found.items() if lines > MOST_LINES}
    print(f"\n{len(sizes)} functions: median {np.median(sizes):.0f} lines, p90 {np.quantile(sizes, 0.9):.0f}")
    assert not too_long
    assert np.median(sizes) <= MEDIAN_LINES
    assert np.quantile(sizes, 0.9) <= P90_LINES


def test_files_are_short() -> None:
    """No file over 400 lines."""
    assert not {path.name: n for path in sources() if (n := line_count(path)) > FILE_LINES}


def line_count(path: Path) -> int:
    """Lines of a file."""
    return len(path.read_text(encoding="utf-8").splitlines())


def test_the_share_of_tests_is_printed() -> None:
    """Printed, not judged: lines of tests per line of code."""
    code = sum(map(line_count, sources()))
    tests = sum(map(line_count, (ROOT / "tests").rglob("*.py")))
    print(f"\n{code} lines of code, {tests} lines of tests")


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_is_public_is_documented(path: Path) -> None:
    """Modules, classes and functions; methods too, unless they fulfil what a base class documents."""
    tree = parse(path)
    missing = [getattr(node, "name", "the module") for node in public(tree) if not ast.get_docstring(node)]
    empty = path.name == "__init__.py" and not tree.body
    assert empty or not missing, f"{path.relative_to(ROOT)}: no docstring on {', '.join(missing)}"


def public(tree: ast.Module) -> Iterator[Documented]:
    """The module and what it and its own classes define without a leading underscore."""
    yield tree
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef) and not node.bases:
                yield from (m for m in node.body if isinstance(m, Function) and not m.name.startswith("_"))


def run_python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_loads_nothing_heavy() -> None:
    """`splitexit --help` answers without torch, grpc, matplotlib, pandas, pyarrow and simpy."""
    loaded = json.loads(
        run_python(
            "import io, json, sys, contextlib\n"
            "from splitexit.cli import main\n"
            "sys.argv = ['splitexit', '--help']\n"
            "with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):\n"
            "    main()\n"
            "assert 'simulate' in out.getvalue(), out.getvalue()\n"
            "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
        )
    )
    assert not {*HEAVY, "pyarrow", "simpy"} & set(loaded)


@pytest.mark.serial
def test_help_answers_quickly() -> None:
    """Under 300 ms on an idle machine; the best of five, in seconds of a core, which a busy machine gives out slowly.

    The clock on the wall, with more patience, says whether it waits for anything but its turn.
    """
    command = [sys.executable, "-c", "from splitexit.cli import main; main()", "--help"]
    wall_s, core_s = map(min, zip(*(_seconds(command) for _ in range(5)), strict=True))
    print(f"\nsplitexit --help: {wall_s * 1e3:.0f} ms, of which {core_s * 1e3:.0f} at work")
    assert core_s < 0.5
    assert wall_s < 5.0


def _seconds(command: list[str]) -> tuple[float, float]:
    """What a command takes: by the clock, and of a core."""
    start_s, before = time.perf_counter(), os.times()
    subprocess.run(command, capture_output=True, check=True, cwd=ROOT, timeout=60)
    after = os.times()
    core_s = after.children_user - before.children_user + after.children_system - before.children_system
    return time.perf_counter() - start_s, core_s


def test_everything_else_imports_without_torch_and_grpc() -> None:
    """As on a machine where only the core is installed: an import of a heavy library would raise."""
    # A learned member of a zoo is loaded by name only where it is used, and may need torch itself.
    modules = [module_name(path) for path in sources() if unit_of(module_name(path)) not in NEED_THEM]
    run_python(
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({HEAVY!r}))\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)"
    )
