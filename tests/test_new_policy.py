"""Policies of your own: from a file beside the scenario, from a package's entry point, and what `new policy` writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitexit import registry
from splitexit.cli import run
from splitexit.errors import ScenarioError
from splitexit.experiment import Experiment
from splitexit.policies import POLICIES
from splitexit.sim import simulate
from tests import synthetic

MINE = """
from splitexit.policies.local import Local

class Mine(Local):
    def __init__(self, *, level: float = 0.5) -> None:
        super().__init__()
        self.level = level
"""


@pytest.fixture(autouse=True)
def _untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, imports_forgotten: None) -> Iterator[None]:
    """What a test imports, and from where, does not stay."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    yield
    registry._outside.cache_clear()


def experiment(folder: Path, name: str) -> Experiment:
    folder.mkdir(parents=True, exist_ok=True)
    return synthetic.experiment(folder, policies={"mine": {"name": name}}, devices__policy="mine", requests=20)


def test_a_module_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "beside_it.py").write_text(MINE)
    world = experiment(tmp_path / "there", "beside_it:Mine")
    assert len(simulate(world, "mine", 0)) == 20
    assert world.scenario.policies["mine"].parameters == {"level": 0.5}


def test_a_package_in_the_working_directory(tmp_path: Path) -> None:
    package = tmp_path / "working_here" / "inside"
    package.mkdir(parents=True)
    (package / "mine.py").write_text(MINE)
    assert len(simulate(experiment(tmp_path / "elsewhere", "working_here.inside.mine:Mine"), "mine", 0)) == 20


def test_what_is_installed_goes_before_what_lies_there(tmp_path: Path) -> None:
    """A numpy.py beside a scenario is never imported."""
    (tmp_path / "numpy.py").write_text("raise RuntimeError('imported')")
    with pytest.raises(ScenarioError, match="'numpy' has no 'Mine'"):
        experiment(tmp_path, "numpy:Mine")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("not_there:Mine", "needs the Python module 'not_there', which is not installed; install it, or put it beside"),
        ("half.not_there:Mine", "needs the Python module 'half.not_there', which is not installed"),
        ("half:Mien", "module 'half' has no 'Mien'"),
        ("half:other", "'half:other' is not a policy; expected a subclass of splitexit.policies.Policy"),
        ("broken:Mine", "cannot be imported: AttributeError: module 'sys' has no attribute 'nothing'"),
        ("needy:Mine", "needs the Python module 'unheard_of', which is not installed$"),
        ("os:Mine", "unknown policy 'os:Mine'"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "half.py").write_text(MINE + "\nother = 3\n")
    (tmp_path / "broken.py").write_text("import sys\nsys.nothing\n")
    (tmp_path / "needy.py").write_text("import unheard_of\n")
    with pytest.raises(ScenarioError, match=what) as caught:
        experiment(tmp_path, name)
    (line,) = [line for line in str(caught.value).splitlines() if "mine" in line]
    assert "policies.mine" in line


def test_an_entry_point_of_another_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`careful = careful_policies:Mine` in the group splitexit.policy, as an installed package has it."""
    site = tmp_path / "site"
    info = site / "careful-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: careful\nVersion: 1.0\n")
    points = "[splitexit.policy]\ncareful = careful_policies:Mine\nlocal = careful_policies:Mine\n"
    (info / "entry_points.txt").write_text(points)
    (site / "careful_policies.py").write_text(MINE)
    monkeypatch.syspath_prepend(site)
    registry._outside.cache_clear()
    world = experiment(tmp_path, "careful")
    assert type(world.scenario.policies["mine"].create()).__module__ == "careful_policies"
    assert len(simulate(world, "mine", 0)) == 20
    assert POLICIES.load("local").__module__ == "splitexit.policies.local", "the table goes first"
    with pytest.raises(ScenarioError, match="did you mean 'careful'"):
        experiment(tmp_path, "carefull")


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh process, whose path knows nothing of the folder."""
    return subprocess.run(
        [sys.executable, "-c", "import sys; sys.path.pop(0); from splitexit.cli import main; main()", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(Path(registry.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_new_policy_as_people_use_it(tmp_path: Path) -> None:
    """Its test passes, its scenario runs, and a second time nothing is overwritten."""
    model = synthetic.spec()
    bundle = synthetic.write_bundle(
        tmp_path / "bundle", model, synthetic.recording(model), synthetic.calibration(model)
    )
    made = command(tmp_path, "new", "policy", "wary_one", "--dir", "own", "--bundle", str(bundle))
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines()[-1] == "next: pytest own/test_wary_one.py; splitexit compare own/wary_one.yaml"
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "own/test_wary_one.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(registry.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert tested.returncode == 0, tested.stdout
    options = ("--set", "devices.hardware=host", "--requests", "30", "--out", "run")
    compared = command(tmp_path, "compare", "own/wary_one.yaml", "--seeds", "0-1", "--json", *options)
    assert compared.returncode == 0, compared.stderr
    found = json.loads(compared.stdout)["policies"]
    assert list(found) == ["mine", "local", "neurosurgeon", "oracle"]
    assert 0 < found["mine"]["offload_rate"] <= 1
    kept = (tmp_path / "own" / "wary_one.py").read_text()
    again = command(tmp_path, "new", "policy", "wary_one", "--dir", "own")
    assert again.returncode == 2
    assert again.stderr.startswith("error: own/wary_one.py, own/test_wary_one.py, own/wary_one.yaml: there already")
    assert (tmp_path / "own" / "wary_one.py").read_text() == kept


def test_only_one_file_in_the_way_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_wary_two.py").write_text("mine")
    assert run(["new", "policy", "wary_two"]) == 2
    assert "test_wary_two.py: there already" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test_wary_two.py"]


@pytest.mark.parametrize("name", ["My-Policy", "2fast", "class", "json", "numpy", "a b", "../up"])
def test_names_that_no_module_can_have(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["new", "policy", name]) == 2
    assert f"error: {name!r}: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_paths_as_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["new", "policy", "wary_three", "--json"]) == 0
    paths = json.loads(capsys.readouterr().out)["paths"]
    assert [Path(path).name for path in paths] == ["wary_three.py", "test_wary_three.py", "wary_three.yaml"]
    content = (tmp_path / "wary_three.yaml").read_text()
    assert 'name: "wary_three:WaryThree"' in content
    assert "../" not in content.partition("bundle:")[2].splitlines()[0]
