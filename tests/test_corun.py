"""Processes that share cores: who is slowed, by how much, and what stays as it was."""

from __future__ import annotations

import pickle
from dataclasses import replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from splitexit.compare import run_once
from splitexit.corun import SharedCores, expected, is_native, sharing_cores, utilisations
from splitexit.distribution import Distribution
from splitexit.experiment import Experiment
from splitexit.results import rows_sha256
from tests import synthetic

CORUN = {0: 1.0, 1: 1.2, 2: 2.0}
PI = "raspberry-pi-4"


def opened(folder: Path, corun: dict[int, float] | None = None, **changes: Any) -> Experiment:
    """A native scenario of two devices that send everything; 3 stages of 10 ms."""
    found = synthetic.experiment(folder, **({"devices__count": 2, "devices__policy": "split"} | changes))
    return replace(found, host=replace(found.host, corun=CORUN if corun is None else corun))


def test_the_expectation_is_that_over_all_combinations() -> None:
    shares = [0.1, 0.5, 0.8, 0.3]
    by_hand = 0.0
    for there in product((0, 1), repeat=4):
        chance = prod(share if is_there else 1 - share for share, is_there in zip(shares, there, strict=True))
        by_hand += chance * (1 + sum(there)) ** 2
    assert expected(lambda n: (1 + n) ** 2, shares) == pytest.approx(by_hand)


def test_alone_nothing_is_slower() -> None:
    assert expected(lambda n: 1 + n, []) == 1.0


def test_utilisations_are_those_of_the_rows(tmp_path: Path) -> None:
    experiment = opened(tmp_path)
    run = run_once(experiment, "split", 0)
    busy, rows = utilisations(experiment, run), run.table
    first = rows.filter(pc.equal(rows["device"], 0))
    span_s = pc.max(rows["done_s"]).as_py()
    assert busy[0][0] == pytest.approx(pc.sum(first["device_compute_s"]).as_py() / span_s)
    assert busy[None] == [pytest.approx(run.summary["utilisation"]["edge"])]
    assert len(busy[0]) == 2


def test_a_paced_part_computes_as_long_as_the_host(tmp_path: Path) -> None:
    """Its time there, but only the share in which it does not wait."""
    experiment = opened(tmp_path, devices__hardware=PI)
    busy = utilisations(experiment, run_once(experiment, "local", 0))
    there = run_once(experiment, "local", 0).summary["utilisation"]["device"]
    host_s, pi_s = (
        sum(s.mean for s in c.stages) for c in (experiment.host, experiment.device_calibration(experiment.groups[0]))
    )
    assert sum(busy[0]) / 2 == pytest.approx(there * min(1.0, host_s / pi_s))


def test_a_batch_is_counted_once(tmp_path: Path) -> None:
    """Requests of one pass name the same seconds; here four of them take as long as one."""
    times = synthetic.calibration(synthetic.spec(), Distribution((0.009, 0.011)))
    experiment = opened(
        tmp_path,
        takes=replace(times, batch={1: 1.0, 4: 1.0}),
        devices__count=6,
        devices__arrivals__rate_hz=12.0,
        edge__batching={"max_size": 4},
    )
    run = run_once(experiment, "offload", 0)
    (busy,) = utilisations(experiment, run)[None]
    summed_s = pc.sum(run.table["edge_compute_s"]).as_py()
    assert 0.5 < busy < 1.0
    assert summed_s / pc.max(run.table["done_s"]).as_py() > 1.5 * busy


def test_native_parts_become_slower_by_what_the_others_do(tmp_path: Path) -> None:
    experiment = opened(tmp_path)
    shared = sharing_cores(experiment, "split", 0)
    assert isinstance(shared, SharedCores)
    busy = utilisations(shared, run_once(shared, "split", 0))
    others = [busy[0][1], *busy[None]]
    assert 1.0 < shared.devices[0] < 2.0
    assert shared.devices[0] == pytest.approx(expected(experiment.host.corun_factor, others), rel=0.02)
    alone_s = experiment.device_calibration().stages[0].mean
    assert shared.device_calibration().stages[0].mean == pytest.approx(alone_s * shared.devices[0])
    assert shared.edge_calibration.stages[0].mean == pytest.approx(alone_s * shared.edge)
    assert run_once(shared, "split", 0).summary["response_ms"]["mean"] > 1e3 * 3 * alone_s


def test_what_a_policy_knows_stays_as_it_was_calibrated(tmp_path: Path) -> None:
    experiment = opened(tmp_path)
    shared = SharedCores.of(experiment, [1.5], 1.5)
    for name in ("device", "edge", "link"):
        assert getattr(shared.setting(), name) == getattr(experiment.setting(), name)


@pytest.mark.parametrize(
    ("corun", "changes"),
    [({0: 1.0}, {}), (CORUN, {"devices__hardware": PI, "edge__hardware": PI})],
    ids=["nothing was measured", "nothing is native"],
)
def test_otherwise_nothing_changes(tmp_path: Path, corun: dict[int, float], changes: dict[str, Any]) -> None:
    experiment = opened(tmp_path, corun, **changes)
    assert sharing_cores(experiment, "split", 0) is experiment


def test_only_what_is_native_is_slowed(tmp_path: Path) -> None:
    experiment = opened(tmp_path, devices__hardware=PI)
    assert is_native(experiment)
    shared = sharing_cores(experiment, "split", 0)
    assert isinstance(shared, SharedCores)
    assert shared.devices == (1.0,)
    assert shared.edge > 1.0
    assert shared.device_calibration() == experiment.device_calibration()


def test_both_engines_are_slowed_alike(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    shared = SharedCores.of(opened(tmp_path), [1.3], 1.6)
    fast = SharedCores.of(
        replace(shared, scenario=shared.scenario.model_copy(update={"engine": "compiled"})), [1.3], 1.6
    )
    assert rows_sha256(run_once(fast, "split", 0).table) == rows_sha256(run_once(shared, "split", 0).table)


def test_it_travels_between_processes(tmp_path: Path) -> None:
    shared = SharedCores.of(opened(tmp_path), [1.3], 1.6)
    there = pickle.loads(pickle.dumps(shared))
    assert (there.devices, there.edge) == ((1.3,), 1.6)
    assert there.edge_calibration == shared.edge_calibration
