"""Whole scenarios as processes: groups, access points, events, what dies on the way and what is kept."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from splitexit.bundle import Bundle
from splitexit.errors import InputError, ProcessError, UnknownNameError, UsageError
from splitexit.live.deployment import Deployment, LiveRun, check_policy
from splitexit.results import DEVICE, EDGE, FALLBACK, Completion
from splitexit.scenario import Scenario, load
from splitexit.sim import simulate
from tests.live_bundle import POLICIES
from tests.synthetic import write_scenario

GROUPS = {
    "near": {"count": 2, "access_point": "cell"},
    "far": {"count": 1, "arrivals": {"name": "periodic", "rate_hz": 25.0}, "pipeline": False, "policy": "local"},
}


def scenario(bundle: Bundle, folder: Path, **changes: object) -> Scenario:
    """20 requests of each device, 25 a second."""
    defaults: dict[str, object] = {
        "bundle": str(bundle.path),
        "policies": POLICIES,
        "requests": 20,
        "devices__arrivals__rate_hz": 25.0,
    }
    return load(write_scenario(folder, **(defaults | changes)))


def by_device(run: LiveRun, device: int) -> list[Completion]:
    """A device's rows, by request."""
    return sorted(row for row in run.rows if row.device == device)


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def crowd(live_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> Iterator[Deployment]:
    """Two devices on an access point and one with links of its own."""
    cell = {"uplink": {"name": "constant", "mbps": 20.0, "delay_ms": 4.0}}
    folder = tmp_path_factory.mktemp("crowd")
    settings = scenario(live_bundle, folder, groups=GROUPS, access_points={"cell": cell}, devices__deadline_ms=20_000.0)
    with Deployment.open(settings, say=said.append) as deployment:
        yield deployment


def test_every_process_is_one_of_its_own(crowd: Deployment, said: list[str]) -> None:
    assert set(crowd.pids) == {"edge", "link", "device 0", "device 1", "device 2"}
    assert len({os.getpid(), *crowd.pids.values()}) == 6
    assert [line for line in said if "near" in line] == ["starting 2 devices of near: host"]


def test_rows_are_those_of_the_simulator(crowd: Deployment) -> None:
    """Each request once; the same arrivals, samples, decisions, bytes and answers."""
    done: list[int] = []
    run = crowd.run("split", 3, progress=done.append)
    assert (run.failed, run.interrupted, len(run.rows)) == ({}, False, 60)
    assert done == sorted(done)
    assert done[-1] == 60
    pairs = zip(sorted(run.rows), sorted(simulate(crowd.experiment, "split", 3)), strict=True)
    same = ("request", "device", "sample", "label", "arrival_s", "split", "codec", "exit", "payload_bytes")
    for ours, theirs in pairs:
        for name in (*same, "prediction", "answered_by", "deadline_met"):
            assert getattr(ours, name) == getattr(theirs, name), name
        assert ours.done_s > ours.start_s >= ours.arrival_s


def test_groups_have_links_and_policies_of_their_own(crowd: Deployment) -> None:
    """Under `own` the far device stays local; where it does not pipeline, nothing overlaps."""
    own = crowd.run("own", 0, requests=6)
    assert {row.answered_by for row in by_device(own, 2)} == {DEVICE}
    assert len(own.rows) == 18
    run = crowd.run("split", 0, requests=6)
    assert set(run.links) == {"cell 0", "device 2"}
    assert run.links["cell 0"]["up"]["bytes"] > 1.5 * run.links["device 2"]["up"]["bytes"]
    far = by_device(run, 2)
    assert all(later.start_s >= earlier.done_s for earlier, later in pairwise(far))
    # 4 ms up and 5 ms down of the cell, 5 ms each of the far device's own links
    assert all(row.network_s > 0.009 for row in by_device(run, 0))
    assert all(row.network_s > 0.010 for row in far)


def test_ctrl_c_keeps_what_is_there(crowd: Deployment) -> None:
    """And the processes: the next run is whole."""

    def interrupt(done: int) -> None:
        if done > 20:
            os.kill(os.getpid(), signal.SIGINT)

    run = crowd.run("split", 1, requests=100_000, progress=interrupt)
    assert run.interrupted
    assert run.failed == {}
    assert 20 < len(run.rows) < 3000
    for device in range(3):
        numbers = [row.request for row in by_device(run, device)]
        assert numbers[: len(numbers) - 3] == list(range(len(numbers) - 3))
    again = crowd.run("split", 1, requests=3)
    assert (again.interrupted, len(again.rows)) == (False, 9)


@pytest.mark.parametrize(
    ("policy", "error", "what"),
    [("oracle", UsageError, "only simulate it"), ("spilt", UnknownNameError, "did you mean 'split'")],
)
def test_policies_that_do_not_go(crowd: Deployment, policy: str, error: type[Exception], what: str) -> None:
    """Said before anything moves."""
    with pytest.raises(error, match=what):
        crowd.run(policy, 0)
    with pytest.raises(error, match=what):
        check_policy(crowd.experiment.scenario, policy)


def test_a_device_that_is_killed(crowd: Deployment) -> None:
    """The others finish; what is missing is counted; another run is refused. (Last, for the others need it whole.)"""

    victims = [crowd.pids["device 1"]]

    def kill(done: int) -> None:
        if done > 20 and victims:
            os.kill(victims.pop(), signal.SIGKILL)

    run = crowd.run("split", 2, requests=60, progress=kill)
    assert not run.interrupted
    there = len(by_device(run, 1))
    assert there < 60
    assert run.failed == {"device 1": f"device 1 was killed (SIGKILL); {60 - there} of its 60 requests are missing"}
    assert len(by_device(run, 0)) == len(by_device(run, 2)) == 60
    with pytest.raises(ProcessError, match="device 1"):
        crowd.run("split", 2)


def test_events(live_bundle: Bundle, tmp_path: Path) -> None:
    """The edge is killed for a while, later the link carries nothing: nothing is lost, and all comes back."""
    events = [
        {"kind": "edge-down", "at_s": 0.5, "for_s": 1.0},
        {"kind": "outage", "at_s": 3.5, "for_s": 0.8},
    ]
    arrivals = {"name": "periodic", "rate_hz": 20.0}
    settings = scenario(
        live_bundle, tmp_path, events=events, requests=100, devices__arrivals=arrivals, devices__deadline_ms=300.0
    )
    with Deployment.open(settings) as deployment:
        edges = [deployment.pids["edge"]]
        for seed, requests in enumerate((100, 50)):
            run = deployment.run("split", seed, requests)
            rows = by_device(run, 0)
            assert [row.request for row in rows] == list(range(requests))
            assert run.failed == {}
            assert {row.answered_by for row in between(rows, 0.7, 1.4)} == {FALLBACK}
            assert EDGE in {row.answered_by for row in between(rows, 0.0, 0.4)}
            assert EDGE in {row.answered_by for row in between(rows, 2.0, 3.4)}
            edges.append(deployment.pids["edge"])
            out = between(rows, 3.5, 4.0)
            assert all(row.answered_by == FALLBACK and row.lost_reply for row in out)
            assert EDGE in {row.answered_by for row in between(rows, 4.4, 5.0)} or not out
    assert len(set(edges)) == 3


def between(rows: list[Completion], since_s: float, until_s: float) -> list[Completion]:
    """Those that were taken up then; when the machine stands still for a moment, that is later than they came."""
    return [row for row in rows if since_s <= row.start_s < until_s]


def test_an_edge_that_is_down_for_good_and_paced_times(live_bundle: Bundle, tmp_path: Path) -> None:
    """The device answers on to the end. What the paced edge takes is drawn from the calibration that was given."""
    hardware = {"devices__hardware": "raspberry-pi-4", "edge__hardware": "raspberry-pi-3b-plus"}
    events = [{"kind": "edge-down", "at_s": 1.0}]
    settings = scenario(live_bundle, tmp_path, events=events, requests=40, **hardware)
    with Deployment.open(settings) as deployment:
        run = deployment.run("split", 7)
        assert "edge" not in deployment.pids
        again = deployment.run("split", 7, requests=5)
    assert len(run.rows) == 40
    assert by_device(run, 0)[-1].answered_by == FALLBACK
    drawn = deployment.experiment.edge_times(7, 0)
    answered = [row for row in [*run.rows, *again.rows] if row.answered_by == EDGE]
    assert len({row.request for row in answered}) > 5
    for row in answered:
        times = drawn.at(row.request)
        least_s = times.decode_s((1, "uint8")) + times.run_s(1, 3) + times.exits[2]
        assert row.edge_compute_s >= least_s - 1e-9


@pytest.mark.parametrize(
    ("changes", "data", "error", "what"),
    [
        ({"edge__servers": 2}, None, UsageError, "edge.servers: only the simulator"),
        ({"access_points": {"a": {"sharing": "processor"}}}, None, UsageError, "access_points.a.sharing"),
        ({}, "none.parquet", InputError, "none.parquet"),
        ({"bundle": "nowhere"}, None, InputError, "nowhere"),
    ],
)
def test_what_cannot_be_started(
    live_bundle: Bundle, tmp_path: Path, changes: dict[str, object], data: str | None, error: type[Exception], what: str
) -> None:
    settings = load(write_scenario(tmp_path, **({"bundle": str(live_bundle.path)} | changes)))
    with pytest.raises(error, match=what):
        Deployment.open(settings, data=data)


def test_a_network_that_nobody_knows(live_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown network 'pigeon'"):
        Deployment.open(scenario(live_bundle, tmp_path), network="pigeon")


def test_a_process_that_does_not_start(live_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, and nobody is left behind."""
    settings = scenario(live_bundle, tmp_path)
    monkeypatch.setattr("splitexit.live.edges.serve", _refuse)
    with pytest.raises(ProcessError, match="edge was killed"):
        Deployment.open(settings)


def _refuse(line: object, order: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
