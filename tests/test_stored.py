"""Run folders read again: what is in them, and what is wrong with those that are none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from splitexit.calibration import Distribution
from splitexit.compare import compare, run_once
from splitexit.errors import ArtifactError, InputError, UnknownNameError, UsageError
from splitexit.experiment import Experiment
from splitexit.report.folder import write
from splitexit.report.stored import StoredRun
from splitexit.results import rows_sha256
from tests import synthetic


def stored(tmp_path: Path, policies: tuple[str, ...] = ("local", "offload"), seeds: tuple[int, ...] = (3, 4)) -> Path:
    """A folder as `compare` writes it, and the experiment that made it."""
    experiment = synthetic.experiment(tmp_path, requests=60)
    return store(tmp_path / "run", experiment, policies, seeds)


def store(folder: Path, experiment: Experiment, policies: tuple[str, ...], seeds: tuple[int, ...]) -> Path:
    """The same of any experiment."""
    folder.mkdir()
    comparison = compare(experiment, policies, seeds)
    write(folder, experiment, comparison.rows, comparison.document(), list(seeds), False)
    return folder


def edit_manifest(folder: Path, **changes: Any) -> None:
    """Keys of manifest.json that are other ones now."""
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


def edit_rows(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Rows changed behind the folder's back."""
    path = folder / "requests.parquet"
    pq.write_table(change(pq.read_table(path)), path)


def test_a_run_comes_back_as_it_was(tmp_path: Path) -> None:
    run = StoredRun.open(stored(tmp_path))
    assert (run.policies, run.seeds, run.world) == (("local", "offload"), (3, 4), "simulated")
    again = run_once(run.experiment, "offload", 4)
    assert rows_sha256(run.table("offload", 4)) == rows_sha256(again.table)


def test_overrides_hold_and_a_bundle_may_move(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    shutil.move(tmp_path / "bundle", tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match=r"bundle .* is not there any more; .*--set bundle=FOLDER"):
        StoredRun.open(folder)
    moved = StoredRun.open(folder, [f"bundle={tmp_path / 'elsewhere'}", "uplink.mbps=3"])
    assert moved.experiment.scenario.uplink.create().mbps == 3


def test_a_relative_bundle_starts_at_the_run_folder(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace(str(tmp_path / "bundle"), "../bundle"))
    assert StoredRun.open(folder).experiment.bundle.path == tmp_path / "bundle"


def test_the_calibration_of_the_folder_goes_before_the_bundle_s(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    spec = StoredRun.open(folder).experiment.spec
    synthetic.calibration(spec, stage=0.5).save(folder / "calibration.json")
    assert StoredRun.open(folder).experiment.host.stages[0] == Distribution.constant(0.5)


def test_a_calibration_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    synthetic.calibration(synthetic.spec(stages=2)).save(folder / "calibration.json")
    with pytest.raises(ArtifactError, match="measured 2 stages"):
        StoredRun.open(folder)


def test_a_run_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    description = json.loads((tmp_path / "bundle" / "model.json").read_text())
    (tmp_path / "bundle" / "model.json").write_text(json.dumps(description | {"weights_sha256": "b" * 64}))
    edit_manifest(folder, digests={"weights": "a" * 64})
    with pytest.raises(ArtifactError, match="of another model: weights aaaaaaaaaaaa, .* bbbbbbbbbbbb"):
        StoredRun.open(folder)


def test_a_live_run_drew_from_the_bundle_s_own_images(tmp_path: Path) -> None:
    """With the same images, the same seed draws the same samples again."""
    experiment = synthetic.experiment(tmp_path, requests=60)
    few = [5, 9, 11, 60, 61]
    pq.write_table(pa.table({"sample": few}), experiment.bundle.samples)
    small = Experiment(experiment.scenario, experiment.bundle, experiment.recording, experiment.host, tuple(few))
    assert StoredRun.open(store(tmp_path / "live", small, ("local",), (0,))).experiment.subset == tuple(few)
    assert StoredRun.open(store(tmp_path / "all", experiment, ("local",), (0,))).experiment.subset is None


def test_of_a_demonstration_the_measured_rows_count(tmp_path: Path) -> None:
    folder = stored(tmp_path, seeds=(3,))
    worlds = {"local": "live", "offload": "simulated"}

    def change(rows: pa.Table) -> pa.Table:
        world = [worlds[policy] for policy in rows["policy"].to_pylist()]
        return rows.drop_columns("seed").add_column(0, "world", pa.array(world))

    edit_rows(folder, change)
    run = StoredRun.open(folder)
    assert (run.policies, run.seeds, run.world) == (("local",), (3,), "live")


def test_of_a_validation_every_measurement_is_there(tmp_path: Path) -> None:
    folder = stored(tmp_path, policies=("local",), seeds=(3,))

    def change(rows: pa.Table) -> pa.Table:
        worlds = pa.array(["live"] * 2 * len(rows) + ["simulated"] * len(rows))
        return pa.concat_tables([rows] * 3).add_column(0, "world", worlds)

    edit_rows(folder, change)
    run = StoredRun.open(folder)
    assert run.world == "live"
    assert run.table("local", 3)["request"].to_pylist() == [number for number in range(60) for _ in range(2)]


def test_what_is_not_in_the_folder_is_said(tmp_path: Path) -> None:
    run = StoredRun.open(stored(tmp_path))
    with pytest.raises(UnknownNameError, match="unknown policy of this run 'ofload'; did you mean 'offload'"):
        run.table("ofload", 3)
    with pytest.raises(UsageError, match=r"no rows of policy 'local' with seed 9; seeds: \[3, 4\]"):
        run.table("local", 9)


def without_rows(folder: Path) -> None:
    (folder / "requests.parquet").unlink()


def with_points(folder: Path) -> None:
    (folder / "requests.parquet").rename(folder / "points.parquet")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (shutil.rmtree, "not a run folder: no such folder"),
        (lambda folder: (folder / "config.yaml").unlink(), "not a run folder: no config.yaml in it"),
        (lambda folder: (folder / "manifest.json").unlink(), "not a run folder: no manifest.json in it"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json:1:2: not JSON"),
        (without_rows, "it has no rows (requests.parquet), being made with --no-rows"),
        (with_points, "it has no rows (requests.parquet), being one of many points"),
        (lambda folder: (folder / "requests.parquet").write_bytes(b"PAR1 no"), "not the rows of a run"),
        (lambda folder: edit_rows(folder, lambda t: t.drop_columns("done_s")), "columns done_s are missing"),
        (lambda folder: edit_rows(folder, lambda t: t.slice(0, 0)), "not a single request was answered"),
        (
            lambda folder: edit_rows(folder, lambda t: t.set_column(2, "request", pa.array(["x"] * len(t)))),
            "not the rows of a run",
        ),
        (
            lambda folder: edit_rows(folder, lambda t: t.set_column(3, "device", pa.array([4] * len(t)))),
            "rows of device 4, the scenario has 1 devices",
        ),
    ],
)
def test_a_folder_that_is_none_is_refused_in_one_line(
    tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    folder = stored(tmp_path)
    spoil(folder)
    with pytest.raises(InputError) as error:
        StoredRun.open(folder)
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1
