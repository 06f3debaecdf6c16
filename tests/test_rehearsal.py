"""What a rehearsal teaches: the cost of a call, and how much slower native sides are in place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from splitexit.calibration import Calibration, Distribution
from splitexit.compare import run_once
from splitexit.errors import ArtifactError
from splitexit.experiment import Experiment
from splitexit.rehearsal import learned, steadied, without_calls
from splitexit.results import DEVICE, EDGE
from splitexit.scenario import load
from tests import synthetic

LINK = {"name": "constant", "mbps": 8.0, "delay_ms": 4.0}


def experiment(folder: Path, device: str = "host", edge: str = "host") -> Experiment:
    """One device that sends everything, seldom enough that nobody waits."""
    devices = {"hardware": device, "arrivals": {"name": "poisson", "rate_hz": 0.01}}
    policies = {"offload": {"name": "offload", "split": 1, "codec": "uint8"}}
    return synthetic.experiment(
        folder, devices=devices, edge={"hardware": edge}, uplink=LINK, downlink=LINK, policies=policies
    )


def rows(of: Experiment) -> pa.Table:
    """Simulated, by device and request."""
    return run_once(of, "offload", 3, 60).table.sort_by([("device", "ascending"), ("request", "ascending")])


def test_a_slower_run_is_learned_from(tmp_path: Path) -> None:
    """Rows of a world whose device takes 1.5 and whose edge 2 times as long, and in which a call costs 3 ms."""
    of = experiment(tmp_path)
    host = replace(of.host, rpc=replace(of.host.rpc, seconds=Distribution.constant(3e-3)))
    world = replace(of, host=replace(host, live={DEVICE: 1.5, EDGE: 2.0}))
    free = replace(of, host=without_calls(of.host))
    found = learned(of.host, free, rows(world), rows(free))
    assert found.live == pytest.approx({DEVICE: 1.5, EDGE: 2.0}, rel=1e-3)
    assert found.rpc.seconds.mean == pytest.approx(3e-3, rel=1e-6)
    assert found.made["rehearsal"]["calls"] == 60
    assert replace(of, host=found).edge_calibration.stages[0].mean == pytest.approx(
        2 * of.host.stages[0].mean, rel=1e-3
    )


def test_paced_sides_have_no_factor(tmp_path: Path) -> None:
    """They take what is drawn for them, whatever this machine does."""
    of = experiment(tmp_path, "raspberry-pi-4", "pixel-2-xl")
    free = replace(of, host=without_calls(of.host))
    assert learned(of.host, free, rows(of), rows(free)).live == {}


def test_who_waited_does_not_count(tmp_path: Path) -> None:
    """A queue says nothing of what things cost."""
    of = experiment(tmp_path)
    free = replace(of, host=without_calls(of.host))
    simulated = rows(free)
    waited = np.arange(len(simulated)) % 2 == 0
    live = simulated
    for name in ("start_s", "done_s"):
        at = live.schema.get_field_index(name)
        live = live.set_column(at, name, pc.add(live[name], pa.array(np.where(waited, 0.5, 0.0))))
    found = learned(of.host, free, live, simulated)
    assert found.live == pytest.approx({DEVICE: 1.0, EDGE: 1.0})
    assert found.made["rehearsal"]["idle"] == 30


def test_too_few_requests_change_nothing(tmp_path: Path) -> None:
    of = experiment(tmp_path)
    few = rows(of).slice(0, 19)
    found = learned(of.host, of, few, few)
    assert (found.live, found.rpc) == ({}, of.host.rpc)


def test_steady_links_keep_rate_and_delay_alone(tmp_path: Path) -> None:
    scenario = load(synthetic.write_scenario(tmp_path, uplink={"name": "lte"}, downlink=LINK))
    up, down = (link.create() for link in steadied(scenario, rated=True).links(scenario.devices))
    before = scenario.uplink.create()
    assert (up.mean_bps, up.delay_s) == pytest.approx((before.mean_bps, before.delay_s))
    assert (down.mean_bps, down.delay_s) == pytest.approx((8e6, 4e-3))
    assert steadied(scenario, rated=False).uplink.create().mean_bps == pytest.approx(1e12)


def test_factors_travel_with_the_calibration(tmp_path: Path) -> None:
    of = experiment(tmp_path)
    path = tmp_path / "calibration.json"
    replace(of.host, live={EDGE: 1.25}).save(path)
    assert Calibration.load(path).live == {EDGE: 1.25}
    path.write_text(path.read_text().replace("1.25", "-1"))
    with pytest.raises(ArtifactError, match="positive factors of device and edge"):
        Calibration.load(path)
