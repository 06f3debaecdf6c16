"""A run folder read again: the scenario that ran, what it ran with, and its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from splitexit.bundle import Bundle, read_json
from splitexit.calibration import Calibration
from splitexit.errors import ArtifactError, UnknownNameError, UsageError
from splitexit.experiment import Experiment
from splitexit.results import SCHEMA, WITH_MODES, column
from splitexit.scenario import Scenario, load

LIVE, SIMULATED = "live", "simulated"
"""Where rows come from."""


@dataclass(frozen=True)
class StoredRun:
    """A run folder of `simulate`, `compare`, `replay`, `live`, `device`, `demo` or `validate`.

    folder      where it lies
    experiment  the scenario of its config.yaml with its bundle; the host's calibration is that of the folder, if it has
                one; samples are drawn from the images that the run had
    manifest    its manifest.json
    rows        every row, with the columns `policy` and `seed` in front; of a demonstration or validation, the measured
                ones; a request that was measured several times has as many
    world       where they come from: "live" or "simulated"
    """

    folder: Path
    experiment: Experiment
    manifest: Mapping[str, Any]
    rows: pa.Table
    world: str = SIMULATED

    @classmethod
    def open(cls, folder: Path | str, overrides: Sequence[str] = ()) -> StoredRun:
        """Reads a run folder.

        Args:
            folder: of the run.
            overrides: `key.path=value` texts, as `--set` takes them; `bundle=FOLDER` says where the bundle lies now.

        Raises:
            UsageError: not a run folder, or one without rows.
            ArtifactError: a file of it is corrupt, or the bundle is not there or holds another model.
            ScenarioError: its config.yaml cannot be read any more, or an override is wrong.
        """
        folder = Path(folder)
        manifest = _manifest(folder)
        rows, world = _rows(folder, manifest)
        experiment = _experiment(folder, load(folder / "config.yaml", overrides), manifest)
        run = cls(folder, experiment, manifest, rows, world)
        run._check_devices()
        return replace(run, experiment=run._on_its_images())

    @cached_property
    def policies(self) -> tuple[str, ...]:
        """The labels that ran, in the order of the rows."""
        return tuple(pc.unique(self.rows["policy"]).to_pylist())

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that ran, likewise."""
        return tuple(pc.unique(self.rows["seed"]).to_pylist())

    def table(self, policy: str, seed: int) -> pa.Table:
        """The rows of one run, in order of (device, request) and time of measurement, with the columns of Completion.

        Raises:
            UnknownNameError, UsageError: it is not in the folder.
        """
        if policy not in self.policies:
            raise UnknownNameError("policy of this run", policy, self.policies)
        mine = self.rows.filter(pc.and_(pc.equal(self.rows["policy"], policy), pc.equal(self.rows["seed"], seed)))
        if not len(mine):
            raise UsageError(f"{self.folder}: no rows of policy {policy!r} with seed {seed}; seeds: {list(self.seeds)}")
        return mine.drop_columns(["policy", "seed"]).sort_by([("device", "ascending"), ("request", "ascending")])

    def _check_devices(self) -> None:
        last = int(column(self.rows, "device").max())
        if last >= self.experiment.total_devices:
            raise UsageError(
                f"{self.folder}: there are rows of device {last}, the scenario has {self.experiment.total_devices} "
                "devices; leave their number as it was"
            )

    def _on_its_images(self) -> Experiment:
        """Drawing from the images that the run had, if these are the bundle's own samples.

        Which they were is seen from the rows: equal seeds draw equal samples from equal images.
        """
        ids = _sample_ids(self.experiment.bundle)
        if ids is None or self._draws_alike(self.experiment):
            return self.experiment
        small = replace(self.experiment, subset=ids)
        return small if self._draws_alike(small) else self.experiment

    def _draws_alike(self, experiment: Experiment) -> bool:
        policy, seed, device = (self.rows[name][0].as_py() for name in ("policy", "seed", "device"))
        table = self.table(policy, seed)
        first = table.filter(pc.equal(table["device"], device))
        numbers: list[int] = first["request"].to_pylist()
        logged: list[int] = first["sample"].to_pylist()
        drawn = experiment.workload(seed, device, numbers[-1] + 1)
        return [drawn.samples[number] for number in numbers if number < len(drawn)] == logged


def _manifest(folder: Path) -> dict[str, Any]:
    missing = [name for name in ("config.yaml", "manifest.json") if not (folder / name).is_file()]
    if missing:
        what = "no such folder" if not folder.is_dir() else f"no {missing[0]} in it"
        raise UsageError(f"{folder}: not a run folder: {what}; name one that a run has printed as its last line")
    return read_json(folder / "manifest.json")


def _rows(folder: Path, manifest: Mapping[str, Any]) -> tuple[pa.Table, str]:
    """The rows, and the world that they come from."""
    path = folder / "requests.parquet"
    if not path.is_file():
        made = "one of many points" if (folder / "points.parquet").is_file() else "made with --no-rows"
        raise UsageError(f"{folder}: it has no rows (requests.parquet), being {made}; name a run that kept its rows")
    try:
        rows = pq.read_table(path)
        world = LIVE if "world" in rows.column_names else str(manifest.get("world", SIMULATED))
        if "world" in rows.column_names:
            rows = rows.filter(pc.equal(rows["world"], LIVE))
        if "seed" not in rows.column_names and len(seeds := manifest.get("seeds", ())) == 1:
            rows = rows.append_column("seed", pa.array([seeds[0]] * len(rows), pa.int64()))
        columns = WITH_MODES if "mode" in rows.column_names else SCHEMA
        schema = pa.schema([("policy", pa.string()), ("seed", pa.int64()), *columns])
        missing = [name for name in schema.names if name not in rows.column_names]
        if missing:
            raise ArtifactError(f"{path}: the columns {', '.join(missing)} are missing; was another splitexit at work?")
        rows = rows.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise ArtifactError(f"{path}: not the rows of a run: {' '.join(str(error).split())[:200]}") from error
    if not len(rows):
        raise UsageError(f"{folder}: not a single request was answered in this run; name another")
    return rows, world


def _experiment(folder: Path, scenario: Scenario, manifest: Mapping[str, Any]) -> Experiment:
    if not scenario.bundle.is_dir():
        raise ArtifactError(
            f"{folder}: its bundle {scenario.bundle} is not there any more; "
            "say where it lies now with --set bundle=FOLDER"
        )
    bundle = Bundle.open(scenario.bundle)
    ran, here = manifest.get("digests", {}).get("weights", ""), bundle.spec.weights_sha256
    if ran and here and ran != here:
        raise ArtifactError(
            f"{folder}: this run is of another model: weights {ran[:12]}, those of {bundle.path} are {here[:12]}"
            f"; name the bundle that ran with --set bundle=FOLDER"
        )
    own = folder / "calibration.json"
    return Experiment.open(scenario, Calibration.load(own, bundle.spec) if own.is_file() else None)


def _sample_ids(bundle: Bundle) -> tuple[int, ...] | None:
    """The test images that the bundle brings; None without any."""
    try:
        return tuple(pq.read_table(bundle.samples, columns=["sample"])["sample"].to_pylist())
    except (OSError, ValueError, KeyError):
        return None
