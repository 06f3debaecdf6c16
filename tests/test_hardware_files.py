"""Calibrations of one's own machines, named in a scenario by their files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from splitexit.check import check_scenario
from splitexit.errors import InputError, ScenarioError
from splitexit.experiment import Experiment
from splitexit.results import column, to_table
from splitexit.scenario import dump, load
from splitexit.sim import simulate
from tests import synthetic


def written(folder: Path, **changes: object) -> Path:
    """A scenario on a synthetic bundle of 10 ms a stage, beside it board.json of 2 ms a stage."""
    model = synthetic.spec()
    synthetic.write_bundle(folder / "bundle", model, synthetic.recording(model), synthetic.calibration(model))
    (folder / "boards").mkdir(exist_ok=True)
    synthetic.calibration(model, 0.002).save(folder / "boards" / "board.json")
    return synthetic.write_scenario(folder, **changes)


def test_a_file_stands_for_a_machine_wherever_one_may_be_named(tmp_path: Path) -> None:
    path = written(tmp_path, devices__hardware="boards/board.json", edge__hardware="boards/board.json")
    experiment = Experiment.open(load(path))
    assert experiment.device_calibration() == experiment.edge_calibration
    assert experiment.device_calibration().stages[0].mean == 0.002
    table = to_table(simulate(experiment, "local", 0))
    assert column(table, "device_compute_s").tolist() == pytest.approx([0.006] * 300)


def test_its_path_is_relative_to_the_scenario_and_kept_absolute(tmp_path: Path) -> None:
    scenario = load(written(tmp_path, edge__hardware="boards/board.json"))
    assert scenario.edge.hardware == str(tmp_path / "boards" / "board.json")
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "config.yaml"
    copy.write_text(dump(scenario.resolved()))
    assert load(copy) == scenario


def test_what_is_in_it_counts_for_the_digest_and_not_where_it_lies(tmp_path: Path) -> None:
    path = written(tmp_path, edge__hardware="boards/board.json")
    before = load(path).digest()
    (tmp_path / "boards" / "board.json").rename(tmp_path / "other.json")
    assert load(written(tmp_path, edge__hardware="other.json")).digest() == before
    model = synthetic.spec()
    synthetic.calibration(model, 0.003).save(tmp_path / "other.json")
    assert load(path, ["edge.hardware=other.json"]).digest() != before


def test_nothing_is_published_of_its_power(tmp_path: Path) -> None:
    experiment = Experiment.open(load(written(tmp_path, devices__hardware="boards/board.json")))
    assert all(joules is None or joules != joules for joules in to_table(simulate(experiment, "local", 0))["energy_j"])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "board.json"),
        ("{", "board.json"),
        ("[]", "board.json"),
        (json.dumps({"machine": {}}), "'rpc' is missing"),
    ],
)
def test_a_file_that_is_none_is_one_line_at_its_key(tmp_path: Path, content: str | None, says: str) -> None:
    path = written(tmp_path, edge__hardware="boards/board.json")
    board = tmp_path / "boards" / "board.json"
    board.unlink()
    if content is not None:
        board.write_text(content)
    with pytest.raises(ScenarioError, match=says) as caught:
        load(path)
    assert len(str(caught.value).splitlines()) == 1
    assert "edge.hardware: " in str(caught.value)


def test_a_file_of_another_model_is_one_line_at_its_key(tmp_path: Path) -> None:
    path = written(tmp_path, devices__hardware="boards/board.json")
    board = tmp_path / "boards" / "board.json"
    synthetic.calibration(synthetic.spec(stages=5)).save(board)
    with pytest.raises(InputError, match=r"devices\.hardware: .*measured 5 stages") as caught:
        Experiment.open(load(path))
    assert len(str(caught.value).splitlines()) == 1
    assert any("measured 5 stages" in problem.what for problem in check_scenario(path).problems)


def test_pairs_that_it_lacks_are_not_on_offer(tmp_path: Path) -> None:
    path = written(tmp_path, edge__hardware="boards/board.json")
    model = synthetic.spec()
    few = replace(synthetic.calibration(model), decode=synthetic.calibration(model, pairs=[(1, "uint8")]).decode)
    few.save(tmp_path / "boards" / "board.json")
    assert Experiment.open(load(path)).setting().codecs == {1: ("uint8",)}
