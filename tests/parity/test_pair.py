"""Given the same clock and links, the simulator and the live pair decide and predict the same (house.md §3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from splitexit.bundle import Bundle
from splitexit.calibration import Calibration
from splitexit.experiment import Experiment
from splitexit.live.images import open_images
from splitexit.live.pair import run_pair
from splitexit.results import EDGE, FALLBACK, Completion
from splitexit.sim import simulate
from tests.live_bundle import POLICIES, open_experiment, open_model

REQUESTS = 200
SEED = 3
UNKNOWN_LIVE = {"energy_j", "airtime_s"}
TIMES = {
    "arrival_s",
    "start_s",
    "device_compute_s",
    "encode_s",
    "network_s",
    "edge_wait_s",
    "edge_compute_s",
    "done_s",
}
BUSY_EDGE: dict[
    str, Any
] = {  # a device that is far faster than its edge, with images that come quicker than it answers
    "devices__hardware": "raspberry-pi-4",
    "devices__arrivals__rate_hz": 30.0,
    "devices__deadline_ms": 400.0,
    "uplink__mbps": 20.0,
}
WORLDS: dict[str, dict[str, Any]] = {
    "calm": {},
    "busy": {"devices__arrivals__rate_hz": 14.0, "devices__deadline_ms": 250.0, "uplink__mbps": 1.0},
    "waiting": {"devices__pipeline": False, "devices__arrivals__rate_hz": 10.0, "devices__deadline_ms": 200.0},
    "closed": {"devices__arrivals": {"name": "closed", "think_ms": 5}},
    "fading": {
        "uplink": {"name": "gilbert-elliott", "mbps": 6, "delay_ms": 5, "p": 0.05, "r": 0.1},
        "devices__deadline_ms": 300.0,
    },
    "batches": BUSY_EDGE | {"edge__batching": {"max_size": 4, "max_wait_ms": 15.0}},
    "full": BUSY_EDGE | {"edge__queue": 2},
    "three in a cell": BUSY_EDGE
    | {
        "devices__count": 3,
        "devices__arrivals__rate_hz": 9.0,
        "access_points": {"cell": {"uplink": {"name": "constant", "mbps": 4, "delay_ms": 5}}},
        "devices__access_point": "cell",
        "edge__batching": {"max_size": 3, "max_wait_ms": 10.0},
        "edge__queue": 3,
    },
    "three apart": BUSY_EDGE | {"devices__count": 3, "devices__arrivals__rate_hz": 7.0, "edge__workers": 2},
    "full of batches": BUSY_EDGE
    | {"edge__batching": {"max_size": 3}, "edge__queue": 2, "edge__workers": 2, "devices__retries": 2},
}


def both(experiment: Experiment, policy: str, bundle: Bundle) -> tuple[list[Completion], list[Completion]]:
    """Rows of the simulator and of the pair, by request."""
    simulated = simulate(experiment, policy, SEED, REQUESTS)
    live = run_pair(experiment, policy, SEED, open_model(bundle), open_images(bundle), REQUESTS)
    return sorted(simulated), sorted(live)


def assert_same(live: list[Completion], simulated: list[Completion]) -> None:
    """Row by row: decisions, bytes and predictions are identical, times to a nanosecond."""
    for ours, theirs in zip(live, simulated, strict=True):
        for name in Completion._fields:
            mine, its = getattr(ours, name), getattr(theirs, name)
            if name in TIMES:
                assert mine == pytest.approx(its, abs=1e-9), (name, ours, theirs)
            elif name not in UNKNOWN_LIVE:
                assert mine == its, (name, ours, theirs)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "oracle"])
def test_the_same_rows(live_bundle: Bundle, tmp_path: Path, policy: str, world: str) -> None:
    """Decisions, bytes and predictions are identical, times to a nanosecond."""
    simulated, live = both(open_experiment(live_bundle, tmp_path, **WORLDS[world]), policy, live_bundle)
    assert len(live) == len(simulated) == REQUESTS * WORLDS[world].get("devices__count", 1)
    assert_same(live, simulated)


@pytest.mark.parametrize("world", ["calm", "busy", "waiting", "three apart"])
def test_the_same_rows_in_every_mode_of_the_device(live_bundle: Bundle, tmp_path: Path, world: str) -> None:
    """Local and split, in three modes by turns."""
    times = Calibration.load(live_bundle.calibration)
    for name, factor in (("slow", 2.5), ("fast", 0.4)):
        times.slowed(factor).save(tmp_path / f"{name}.json")
    changes = WORLDS[world] | {
        "devices__hardware": "raspberry-pi-4",
        "devices__modes": {name: {"hardware": f"{name}.json"} for name in ("slow", "fast")},
        "policies": {"in-turn": {"name": "tests.test_modes:InTurn"}},
    }
    simulated, live = both(open_experiment(live_bundle, tmp_path, **changes), "in-turn", live_bundle)
    assert {(row.mode, row.split) for row in live} >= {(mode, k) for mode in ("", "slow", "fast") for k in (-1, 1)}
    assert_same(live, simulated)


def test_the_worlds_hold_every_kind_of_answer(live_bundle: Bundle, tmp_path: Path) -> None:
    """Otherwise the test above would say little."""
    _, busy = both(open_experiment(live_bundle, tmp_path, **WORLDS["busy"]), "threshold", live_bundle)
    kinds = {row.answered_by for row in busy}
    assert {EDGE, FALLBACK} <= kinds
    assert len({row.exit for row in busy}) > 1
    assert len({row.prediction for row in busy}) > 1
    assert {row.deadline_met for row in busy} == {True, False} or any(row.lost_reply for row in busy)


def test_the_busy_worlds_shed_and_wait(live_bundle: Bundle, tmp_path: Path) -> None:
    """Likewise."""
    full, batches = (
        simulate(open_experiment(live_bundle, tmp_path, **WORLDS[world]), "offload", SEED, REQUESTS)
        for world in ("full", "batches")
    )
    assert sum(row.shed for row in full) > 50
    assert sum(row.lost_reply for row in batches) > 10
    waits_s = [row.edge_wait_s for row in batches if row.answered_by == EDGE]
    assert sum(wait_s > 0 for wait_s in waits_s) > 100
