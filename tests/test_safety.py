"""No data that splitexit reads can run code: the constructs that could do it do not occur (SECURITY.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_floors import PACKAGE, ROOT, module_name, sources, unit_of

# Modules whose files run code when they are read.
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}
# joblib sends work to processes of its own; what it reads from files it unpickles.
JOBLIB = {"Parallel", "delayed", "parallel_config"}
CALLS = {"eval", "exec", "__import__", "os.system", "os.popen", "pty.spawn", "subprocess.getoutput"}
# One strict loader stands on top of PyYAML: it refuses aliases, duplicate keys and deep nesting.
YAML = {"load", "load_all", "safe_load", "safe_load_all", "full_load", "unsafe_load", "compose", "parse", "scan"}
YAML_UNIT = "scenario"


def dangers(tree: ast.AST, unit: str = "") -> Iterator[str]:
    """What a syntax tree holds of the above, as `line: what`."""
    for node in ast.walk(tree):
        for what in (*_imports(node), *_calls(node, unit)):
            yield f"{getattr(node, 'lineno', 0)}: {what}"


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [node.module or ""]
        if node.module == "joblib" and {alias.name for alias in node.names} <= JOBLIB:
            return
    else:
        return
    yield from (f"import of {name}" for name in names if name.split(".")[0] in MODULES | {"joblib"})


def _calls(node: ast.AST, unit: str) -> Iterator[str]:
    if not isinstance(node, ast.Call):
        return
    name = ast.unparse(node.func)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    if name in CALLS:
        yield f"{name}()"
    if name == "torch.load" and keywords.get("weights_only") != "True":
        yield "torch.load without weights_only=True"
    if name.startswith("yaml.") and name.removeprefix("yaml.") in YAML and unit != YAML_UNIT:
        yield f"{name} outside splitexit.{YAML_UNIT}"
    if keywords.get("shell") not in (None, "False"):
        yield f"{name} with shell={keywords['shell']}"
    if keywords.get("allow_pickle") not in (None, "False"):
        yield f"{name} with allow_pickle={keywords['allow_pickle']}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_that_is_read_can_run_code(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = list(dangers(tree, unit_of(module_name(path))))
    assert not found, "\n".join(f"{path.relative_to(ROOT)}:{what}" for what in found)


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "eval(text)",
        "exec(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "yaml.safe_load(text)",
        "os.system(command)",
        "subprocess.run(command, shell=True)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_the_detector_finds(code: str) -> None:
    assert len(list(dangers(ast.parse(code)))) == 1


@pytest.mark.parametrize(
    ("code", "unit"),
    [
        ("torch.load(path, weights_only=True)", ""),
        ("model.eval()", ""),
        ("yaml.compose(text, Loader=Strict)", "scenario"),
        ("subprocess.run(command)", ""),
    ],
)
def test_the_detector_lets_pass(code: str, unit: str) -> None:
    assert not list(dangers(ast.parse(code), unit))
