"""What must hold of every run, whatever the scenario: over random ones with every feature of the simulator."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitexit.experiment import Experiment
from splitexit.results import CLOUD, DEVICE, EDGE, FALLBACK, LOCAL, Completion
from splitexit.scenario import OWN
from splitexit.sim import simulate
from tests import topologies

SEEDS = range(120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the bundle is."""
    where = tmp_path_factory.mktemp("topologies")
    topologies.write_bundle(where)
    return where


@cache
def run(folder: Path, seed: int) -> tuple[Experiment, tuple[Completion, ...]]:
    """A random scenario, every group with its own policy."""
    experiment = topologies.opened(folder, topologies.draw(seed))
    return experiment, tuple(simulate(experiment, OWN, seed))


def by_device(experiment: Experiment, rows: tuple[Completion, ...]) -> list[list[Completion]]:
    """The rows of every device, in the order of its requests."""
    of: list[list[Completion]] = [[] for _ in range(experiment.total_devices)]
    for row in sorted(rows, key=lambda row: row.request):
        of[row.device].append(row)
    return of


@pytest.mark.parametrize("seed", SEEDS)
def test_every_request_ends_in_one_row(folder: Path, seed: int) -> None:
    """Numbered from 0 without gaps; as many as there are arrivals."""
    experiment, rows = run(folder, seed)
    for device, mine in enumerate(by_device(experiment, rows)):
        workload = experiment.workload(seed, device)
        assert [row.request for row in mine] == list(range(len(mine)))
        if workload.arrival_s is not None:
            assert [row.arrival_s for row in mine] == list(workload.arrival_s)
        elif workload.presence is None:
            assert len(mine) == experiment.scenario.requests
        assert [row.sample for row in mine] == list(workload.samples[: len(mine)])


@pytest.mark.parametrize("seed", SEEDS)
def test_times_add_up(folder: Path, seed: int) -> None:
    """A device that idles while it waits takes just the sum of its parts; another one may be busy in between."""
    experiment, rows = run(folder, seed)
    for device, mine in enumerate(by_device(experiment, rows)):
        config = experiment.group(device).config
        for row in mine:
            parts = np.array([row.device_compute_s, row.encode_s, row.network_s, row.edge_wait_s, row.edge_compute_s])
            assert np.isfinite([*parts, row.airtime_s, row.start_s, row.done_s]).all(), row
            assert (parts >= -1e-12).all(), row
            assert row.airtime_s >= 0.0, row
            assert row.start_s >= row.arrival_s, row
            slack_s = row.done_s - row.start_s - parts.sum()
            assert slack_s >= -1e-9, row
            assert config.pipeline or slack_s <= 1e-9, row
            assert row.deadline_met == (row.done_s <= row.arrival_s + config.deadline_s)
        if not config.pipeline:
            for one, other in pairwise(mine):
                assert other.start_s == max(one.done_s, other.arrival_s)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_device_computes_one_thing_at_a_time(folder: Path, seed: int) -> None:
    """Requests are taken up in order, and the CPU's work fits between the first start and the last answer."""
    experiment, rows = run(folder, seed)
    for mine in by_device(experiment, rows):
        for one, other in pairwise(mine):
            took_s = one.encode_s + one.device_compute_s
            alone = one.answered_by == DEVICE  # otherwise some of it may be a fallback, later on
            assert other.start_s >= one.start_s + (took_s if alone else one.encode_s) - 1e-9
        if mine:
            work_s = sum(row.encode_s + row.device_compute_s for row in mine)
            assert work_s <= max(row.done_s for row in mine) - mine[0].start_s + 1e-9


@pytest.mark.parametrize("seed", SEEDS)
def test_a_row_says_what_happened(folder: Path, seed: int) -> None:
    """Who answered, what was sent, what it said and what went wrong agree with each other and the recording."""
    experiment, rows = run(folder, seed)
    test = experiment.recording.test
    for row in rows:
        sent = row.split != LOCAL
        assert row.answered_by in ((EDGE, CLOUD, FALLBACK) if sent else (DEVICE, FALLBACK)), row
        assert (row.shed or row.lost_reply) == (sent and row.answered_by == FALLBACK), row
        assert not (row.shed and row.lost_reply), row
        position = int(np.flatnonzero(test.sample == row.sample)[0])
        said: Any = test.readings(row.exit)
        if row.answered_by in (EDGE, CLOUD):
            said = test.edge_readings(row.split, row.codec, row.exit)
        assert row.prediction == said[position].prediction, row
        assert row.payload_bytes == (test.payload_sizes(row.split, row.codec)[position] if sent else 0), row
        assert (row.network_s > 0.0) == sent, row
        cloud = experiment.scenario.cloud
        stage = experiment.spec.exit_stages[row.exit]
        if row.answered_by == EDGE:
            assert cloud is None or row.split < stage <= cloud.split, row
        assert row.answered_by != CLOUD or (cloud is not None and stage > cloud.split), row


@pytest.mark.parametrize("seed", SEEDS)
def test_little(folder: Path, seed: int) -> None:
    """The integral of the number in the system is the sum of the response times (Little 1961), on the rows."""
    _, rows = run(folder, seed)
    if not rows:
        return
    steps = sorted([(row.arrival_s, 1) for row in rows] + [(row.done_s, -1) for row in rows])
    number, integral = 0, 0.0
    for (at_s, change), (next_s, _) in pairwise(steps):
        number += change
        assert number >= 0
        integral += number * (next_s - at_s)
    assert number + steps[-1][1] == 0
    assert integral == pytest.approx(sum(row.response_s for row in rows), rel=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_servers_do_no_more_than_they_can(folder: Path, seed: int) -> None:
    """Answers of a single tier without batches: their compute fits between the first arrival and the last answer."""
    experiment, rows = run(folder, seed)
    scenario = experiment.scenario
    if scenario.cloud is not None or scenario.edge.batching is not None or not rows:
        return
    span_s = max(row.done_s for row in rows) - min(row.arrival_s for row in rows)
    busy_s = sum(row.edge_compute_s for row in rows)
    assert busy_s <= scenario.edge.workers * scenario.edge.servers * span_s + 1e-9


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_seed_gives_the_same_rows(folder: Path, seed: int) -> None:
    """Of a fresh experiment, too, and after other policies have run on this one."""
    experiment, rows = run(folder, seed)
    other = sorted(topologies.POLICIES)[seed % len(topologies.POLICIES)]
    simulate(experiment, other, seed)
    assert repr(simulate(experiment, OWN, seed)) == repr(list(rows))
    if seed % 4 == 0:
        again = topologies.opened(folder, topologies.draw(seed), "again")
        assert repr(simulate(again, OWN, seed)) == repr(list(rows))


@pytest.mark.parametrize("change", [{"policy": "local"}, {"hardware": "raspberry-pi-3b-plus"}, {"retries": 2}])
@pytest.mark.parametrize("seed", [7, 8, 9])
def test_what_one_group_does_leaves_the_chance_of_the_others(folder: Path, seed: int, change: dict[str, Any]) -> None:
    """With links and servers enough for everyone, nothing of another group changes."""
    calm = {"count": 3, "arrivals": {"name": "poisson", "rate_hz": 20.0}, "policy": "both", "deadline_ms": 60_000.0}
    content = {
        "bundle": "bundle",
        "requests": 40,
        "groups": {"first": calm, "second": calm, "third": calm},
        "uplink": {"name": "constant", "mbps": 2.0, "jitter_ms": 1.0, "delay_ms": 5.0},
        "downlink": {"name": "fading", "bandwidth_mhz": 1.0, "snr_db": 10.0},
        "edge": {"workers": 512},
        "policies": topologies.POLICIES,
    }
    before = simulate(topologies.opened(folder, content, "before"), OWN, seed)
    content["groups"] = {"first": calm, "second": calm | change, "third": calm}
    after = simulate(topologies.opened(folder, content, "after"), OWN, seed)
    kept = [[repr(row) for row in rows if row.device not in (3, 4, 5)] for rows in (before, after)]
    assert sorted(kept[0]) == sorted(kept[1])
    drawn = [[(row.sample, row.arrival_s) for row in _sorted(rows)] for rows in (before, after)]
    assert drawn[0] == drawn[1]


def _sorted(rows: list[Completion]) -> list[Completion]:
    return sorted(rows, key=lambda row: (row.device, row.request))
