"""The shipped validation scenarios: sound, and as different from each other as the fidelity table says.

Only simulated here, on the bundle's own images as a live run would draw them; benchmarks/fidelity.py measures them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from splitexit.check import check
from splitexit.compare import Run, run_once
from splitexit.corun import is_native, utilisations
from splitexit.experiment import Experiment
from splitexit.results import column
from splitexit.scenario import load
from splitexit.summary import Summary

FOLDER = Path(__file__).resolve().parents[1] / "scenarios" / "validation"
FILES = sorted(FOLDER.glob("*.yaml"))
SHORTEST_S, LONGEST_S = 14, 26
CORES = 2


@cache
def experiment(path: Path) -> Experiment:
    """A scenario on the images that a live run has."""
    scenario = load(path)
    images = pq.read_table(scenario.bundle / "samples.parquet", columns=["sample"])["sample"].to_pylist()
    return Experiment.open(scenario, subset=images)


@cache
def simulated(path: Path) -> Run:
    """Its own policy under its own seed."""
    scenario = experiment(path).scenario
    return run_once(experiment(path), scenario.policy_label, scenario.seed)


def summaries() -> list[Summary]:
    """Of all scenarios."""
    return [simulated(path).summary for path in FILES]


def load_of(path: Path) -> float:
    """Utilisation of the bottleneck, as `splitexit compare` reports it; NaN for a batching edge."""
    summary = simulated(path).summary
    return float(summary["utilisation"][summary["bottleneck"]])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_sound_and_says_what_it_asks(path: Path) -> None:
    assert check(path).problems == ()
    assert path.read_text().startswith("# ")
    assert load(path).name == path.stem


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_short_enough_to_repeat_and_long_enough_to_say_something(path: Path) -> None:
    rows = simulated(path).table
    assert SHORTEST_S <= column(rows, "done_s").max() <= LONGEST_S
    assert 200 <= len(rows) <= 400


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_small_host_has_the_time_to_compute_it_for_real(path: Path) -> None:
    """All processes together need less than half of two cores, or they would slow each other beyond their paces."""
    busy = utilisations(experiment(path), simulated(path))
    assert sum(share for shares in busy.values() for share in shares) < CORES / 2


def test_they_differ_in_what_the_fidelity_table_must_cover() -> None:
    scenarios = [load(path) for path in FILES]
    links = [scenario.links(point) for scenario in scenarios for point in scenario.fleet.values()]
    rates = [link.create().mean_bps for pair in links for link in pair]
    delays = [link.create().delay_s for pair in links for link in pair]
    devices = [experiment(path).total_devices for path in FILES]
    assert len(FILES) >= 12
    assert (min(rates), max(rates)) == (pytest.approx(1e6, rel=0.1), 1e8)
    assert (min(delays), max(delays)) == (0.0, 0.05)
    assert (min(devices), max(devices)) == (1, 8)
    assert {up.parameters["trace"].name for up, _ in links if "trace" in up.parameters} == {
        "norway_bus_1",
        "norway_tram_12",
        "lte_walk.up",
    }
    assert len({experiment(path).scenario.policy_label for path in FILES}) >= 4
    assert any(scenario.edge.batching for scenario in scenarios)
    assert any(event.kind == "outage" for scenario in scenarios for event in scenario.events)
    assert sum(is_native(experiment(path)) for path in FILES) == 2
    assert any(scenario.groups for scenario in scenarios)


def test_loads_range_from_low_to_nearly_full_and_never_beyond() -> None:
    loads = [load_of(path) for path in FILES]
    known = [load for load in loads if load == load]
    assert min(known) < 0.2
    assert max(known) > 0.9
    assert sum(0.7 < load < 1.0 for load in known) == 3
    assert {summary["verdict"] for summary in summaries()} == {"stable"}
