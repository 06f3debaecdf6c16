"""`splitexit bench policies`: settings, what fits, winners, what is kept, and the command with its pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from splitexit.bench import policies as bench
from splitexit.bench import policies_show as show
from splitexit.bench import policy_plan as plan
from splitexit.bench.policies import PolicyBench, above_least, winners
from splitexit.cli import run
from splitexit.decision import Observation, Plan
from splitexit.errors import InputError, UnknownNameError
from splitexit.experiment import Experiment
from splitexit.policies import POLICIES, Policy
from splitexit.scenario import load
from tests import synthetic

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = """
local: [{name: local}]
image: [{name: offload, split: 0, codec: png}, {name: offload, split: 0, codec: jpeg}]
random: [random]
oracle: [oracle]
absent: [{name: offload, split: 2, codec: raw}]
"""


def written(folder: Path, text: str = SETTINGS, **changes: Any) -> tuple[Path, Path, Path]:
    """A bundle, a scenario and settings."""
    given = {"requests": 40, "name": "one", "policies": {}, **changes}
    synthetic.experiment(folder, **given)
    (folder / "settings.yaml").write_text(text)
    return folder / "bundle", folder / "scenario.yaml", folder / "settings.yaml"


def made(folder: Path, text: str = SETTINGS, seeds: Sequence[int] = (0, 1, 2), **changes: Any) -> PolicyBench:
    bundle, _, settings = written(folder, text, **changes)
    return PolicyBench(bundle, plan.read_settings(settings), seeds, folder / "run")


class Failing(Policy):
    """Plans what is impossible, from its tenth request on."""

    def __init__(self) -> None:
        self._asked = 0

    def decide(self, observation: Observation) -> Plan:
        self._asked += 1
        return Plan() if self._asked < 10 else Plan(split=7, codec="raw")


class Curious(Policy):
    """Reads nothing, plans nothing of interest; only counts how often one is made."""

    made: ClassVar[int] = 0

    def __init__(self) -> None:
        type(self).made += 1

    def decide(self, observation: Observation) -> Plan:
        return Plan()


def test_the_first_setting_that_fits_is_taken_and_others_say_why(tmp_path: Path) -> None:
    bundle, scenario, settings = written(tmp_path)
    field = plan.open_field(scenario, bundle, plan.read_settings(settings))
    assert field.labels == ("local", "image", "random", "oracle")
    assert field.experiment.scenario.policies["image"].parameters["codec"] == "jpeg"
    assert list(field.left_out) == ["absent"]
    assert "raw" in field.left_out["absent"]
    assert "recorded" in field.left_out["absent"]


def test_settings_that_are_wrong_say_so(tmp_path: Path) -> None:
    _, _, settings = written(tmp_path, "local: {name: local}")
    with pytest.raises(InputError, match="expected labels with a list of settings each"):
        plan.read_settings(settings)
    bundle, scenario, settings = written(tmp_path, "a: [{name: offlaod}]\nb: [{name: random, power: 3}]\nc: [7]")
    left_out = plan.open_field(scenario, bundle, plan.read_settings(settings)).left_out
    assert "did you mean 'offload'" in left_out["a"]
    assert "power" in left_out["b"]
    assert "expected the name of a policy" in left_out["c"]
    with pytest.raises(UnknownNameError, match="loc"):
        plan.read_settings(settings, ["loc"])


def test_the_shipped_settings_name_every_policy_of_the_table() -> None:
    """Those that the file says nothing of run with their defaults."""
    settings = plan.read_settings()
    named = {of if isinstance(of, str) else of["name"] for entries in settings.entries.values() for of in entries}
    assert set(POLICIES.names()) == named
    assert plan.read_settings(labels=["oracle", "local"]).entries.keys() == {"oracle", "local"}


def test_the_shipped_scenarios_fit_the_shipped_bundle() -> None:
    """At least eight, each with a word on what it is; and their traces are those of scenarios/traces."""
    files = plan.find_scenarios()
    assert len(files) >= 8
    for file in files:
        scenario = load(file)
        Experiment.open(scenario)
        assert scenario.name == file.stem
        assert bench.about(file)
    for trace in (plan.SCENARIOS / "traces").glob("norway_*"):
        assert trace.read_bytes() == (ROOT / "scenarios" / "traces" / trace.name).read_bytes()
    assert [path.stem for path in plan.find_scenarios(["lte", "5g"])] == ["lte", "5g"]
    with pytest.raises(UnknownNameError, match="ltee"):
        plan.find_scenarios(["ltee"])


def row(*utility: float, knowing: bool = False, energy: Sequence[float] = (1.0, 2.0, 3.0)) -> dict[str, Any]:
    by_seed: dict[str, Any] = {name: list(utility) for name in bench.BEST}
    return {"knowing": knowing, "by_seed": by_seed | {"device_energy_mj_mean": list(energy)}}


def test_a_winner_is_apart_from_the_second_with_confidence() -> None:
    """By hand: differences 1, 2, 3 have the mean 2 and half a width of 4.30 · 1/√3 = 2.48; 3, 4, 5 are apart from 0."""
    found = winners({"a": row(0, 0, 0), "b": row(1, 2, 3), "c": row(-9, -9, -9), "all": row(9, 9, 9, knowing=True)})
    utility = found["utility"]
    assert (utility["first"], utility["second"], utility["sure"]) == ("b", "a", False)
    assert utility["difference"]["mean"] == 2.0
    assert utility["difference"]["high"] - 2.0 == pytest.approx(2.484, abs=1e-3)
    sure = winners({"a": row(0, 0, 0), "b": row(3, 4, 5)})
    assert sure["utility"]["sure"]
    assert (sure["response_ms"]["first"], sure["response_ms"]["sure"]) == ("a", True), "less is better"


def test_equals_and_unknowns_do_not_win() -> None:
    found = winners({"a": row(1, 1, 1, energy=[math.nan] * 3), "b": row(1, 1, 1)})
    assert not any(of["sure"] for of in found.values())
    assert "device_energy_mj_mean" not in found
    assert not winners({"a": row(1), "b": row(2)})["utility"]["sure"], "one seed says nothing of chance"


def test_how_far_each_is_above_the_least_regret() -> None:
    """By hand: 1, 2, 3 above 0 have the mean 2 and half a width of 2.48, whatever the seeds have in common."""
    found = above_least({"a": row(5, 6, 8), "b": row(6, 8, 11), "all": row(0, 0, 0, knowing=True)})
    assert found.keys() == {"a", "b"}
    assert found["a"] == (0.0, 0.0, 0.0)
    assert found["b"].mean == 2.0
    assert found["b"].half == pytest.approx(2.484, abs=1e-3)
    assert above_least({"all": row(0, knowing=True)}) == {}


def test_a_scenario_with_everything(tmp_path: Path) -> None:
    """Figures, regret and decision times of every policy; one that fails in the course is left out, with the reason."""
    text = SETTINGS + "failing: [tests.test_bench_policies:Failing]\n"
    lines, steps = list[str](), list[tuple[int, int]]()
    of = made(tmp_path, text)
    told = PolicyBench(of.bundle, of.settings, of.seeds, of.folder, 0.5, lines.append, lambda *step: steps.append(step))
    (found,) = told.run([tmp_path / "scenario.yaml"])
    assert list(found["policies"]) == ["local", "image", "random", "oracle"]
    assert found["left_out"].keys() == {"absent", "failing"}
    assert "split 7" in found["left_out"]["failing"]
    assert found["requests"] == 3 * 20
    oracle, random = found["policies"]["oracle"], found["policies"]["random"]
    assert oracle["knowing"]
    assert oracle["regret"] == 0.0 < random["regret"]
    assert random["decision_us"]["count"] == 60
    assert 0 < random["decision_us"]["p50"] <= random["decision_us"]["p99"]
    assert len(random["by_seed"]["utility"]) == 3
    assert random["above_least"]["mean"] == pytest.approx(random["regret"] - found["policies"]["local"]["regret"])
    assert "above_least" not in oracle
    assert random["utility"] == pytest.approx(sum(random["by_seed"]["utility"]) / 3)
    assert lines == ["scenario: 5 policies, 3 seeds"]
    assert steps[-1] == (18, 18)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_finished_scenarios_are_kept_until_something_changes(tmp_path: Path) -> None:
    of = made(tmp_path, "curious: [tests.test_bench_policies:Curious]\nlocal: [local]", seeds=[0])
    file = tmp_path / "scenario.yaml"
    first, after = list(of.run([file])), Curious.made
    assert list(of.run([file])) == first
    assert len(list((tmp_path / "run" / "scenarios").iterdir())) == 1
    fitted = Curious.made - after
    (again,) = PolicyBench(of.bundle, of.settings, [1], of.folder).run([file])
    assert again["policies"]["local"]["by_seed"] != first[0]["policies"]["local"]["by_seed"]
    assert Curious.made - after - fitted > fitted, "only now it ran once more"


def test_a_scenario_that_does_not_fit_the_bundle_says_why(tmp_path: Path) -> None:
    of = made(tmp_path)
    link = {"name": "constant", "mbps": 5.0, "delay_ms": 1.0}
    synthetic.write_scenario(tmp_path, cloud={"hardware": "host", "split": 2, "uplink": link, "downlink": link})
    (found,) = of.run([tmp_path / "scenario.yaml"])
    assert "was not recorded" in found["why_not"]
    assert "left out: " in show.markdown(of.document([found], "command"))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One document, tables and pictures; the second time nothing is run."""
    bundle, scenario, settings = map(str, written(tmp_path))
    out = tmp_path / "out"
    options = ["--scenario", scenario, "--settings", settings, "--seeds", "0-2", "--out", str(out)]
    assert run(["bench", "policies", bundle, *options, "--json"]) == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert document["seeds"] == [0, 1, 2]
    assert {"cpu", "cores", "os"} <= set(document["machine"])
    assert document == json.loads((out / "summary.json").read_text())
    assert "scenario: 4 policies, 3 seeds" in shown.err
    for picture in ("policies.png", "regret.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    table = (out / "table.md").read_text()
    assert "| oracle |" in table
    assert "left out: absent: " in table
    assert run(["bench", "policies", bundle, *options, "--policies", "local,oracle"]) == 0
    assert run(["bench", "policies", bundle, *options]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == str(out)
    assert "4 policies" not in shown.err
    assert "left out: absent: " in shown.out


def test_a_bundle_that_nothing_runs_on_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "policies", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    assert "nowhere: no such bundle" in capsys.readouterr().err
    bundle, scenario, _ = map(str, written(tmp_path))
    (Path(bundle) / "recording.parquet").unlink()
    assert run(["bench", "policies", bundle, "--scenario", scenario, "--out", str(tmp_path / "out")]) == 2
    assert "no scenario could be run: scenario: " in capsys.readouterr().err.replace("\n", " ")


def test_ctrl_c_keeps_what_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, scenario, settings = map(str, written(tmp_path))
    second = tmp_path / "second.yaml"
    second.write_text(Path(scenario).read_text())
    measured = PolicyBench._measured

    def until_the_second(self: PolicyBench, path: Path, *rest: Any) -> Any:
        if path == second:
            raise KeyboardInterrupt
        return measured(self, path, *rest)

    monkeypatch.setattr(PolicyBench, "_measured", until_the_second)
    out = tmp_path / "out"
    options = ["--scenario", scenario, "--scenario", str(second), "--settings", settings, "--seeds", "0"]
    assert run(["bench", "policies", bundle, *options, "--out", str(out)]) == 130
    assert f"interrupted; {out} keeps what is done" in capsys.readouterr().err.replace("\n", "")
    assert [file.name.partition("-")[0] for file in (out / "scenarios").iterdir()] == ["scenario"]
