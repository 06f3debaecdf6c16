"""capacity: service levels, looks, the search, the answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from splitexit import cli
from splitexit.capacity import FAILS, MEETS, UNDECIDED, Capacity, Slo, capacity, looks
from splitexit.errors import UsageError
from splitexit.experiment import Experiment
from splitexit.scenario import load
from splitexit.stats import Interval
from tests import synthetic


@pytest.mark.parametrize(
    ("text", "metric", "bound"),
    [
        ("p95<100ms", "p95_ms", 100.0),
        (" p50 <= 0.1 s ", "p50_ms", 100.0),
        ("mean<20ms", "response_ms", 20.0),
        ("miss<1%", "deadline_miss_rate", 0.01),
        ("shed<0.02", "shed_rate", 0.02),
        ("accuracy>=0.8", "accuracy", 0.8),
        ("accuracy>80%", "accuracy", 0.8),
        ("energy<5mJ", "device_energy_mj_mean", 5.0),
        ("energy<1J", "device_energy_mj_mean", 1000.0),
    ],
)
def test_service_levels_are_read(text: str, metric: str, bound: float) -> None:
    slo = Slo.parse(text)
    assert (slo.metric, slo.bound) == (metric, pytest.approx(bound))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("latency<1s", "expected one of p50, p95"),
        ("p95", "expected one of p50, p95"),
        ("", "expected one of p50, p95"),
        ("p95<100", "expected a bound in ms or s"),
        ("miss<1ms", "expected a bound in % or a plain number"),
        ("p95>100ms", "more is worse there; expected <"),
        ("accuracy<0.9", "more is better there; expected >"),
        ("p95<1.2.3ms", "is not a number"),
    ],
)
def test_wrong_service_levels_are_refused(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        Slo.parse(text)
    assert "\n" not in str(caught.value)


def test_the_side_of_an_interval() -> None:
    below, above = Slo.parse("p95<100ms"), Slo.parse("accuracy>=0.8")
    assert [below.state(Interval(0, *ends)) for ends in ((90, 99), (99, 101), (101, 110))] == [MEETS, UNDECIDED, FAILS]
    assert [above.state(Interval(0, *e)) for e in ((0.81, 0.9), (0.7, 0.9), (0.7, 0.79))] == [MEETS, UNDECIDED, FAILS]
    assert below.state(Interval(1.0, float("nan"), float("nan"))) == UNDECIDED


def test_looks_come_ever_more_seldom() -> None:
    assert looks(3) == [3]
    assert looks(10) == [3, 5, 10]
    assert looks(50) == [3, 5, 10, 20, 40, 50]


def search(folder: Path, *slos: str, maximum: int = 64, seeds: int = 10, **changes: Any) -> Capacity:
    """The capacity in devices of a synthetic scenario whose edge takes 30 ms and 10 requests a second from each."""
    synthetic.experiment(folder, requests=200, **changes)

    def at(value: int) -> Experiment:
        return Experiment.open(load(folder / "scenario.yaml", [f"devices.count={value}"]))

    return capacity(at, "offload", [Slo.parse(text) for text in slos], range(seeds), maximum)


def test_devices_below_the_capacity_meet_the_level_and_more_do_not(tmp_path: Path) -> None:
    """Three devices load the edge to 0.9 and four to 1.2: no level on the wait can hold there."""
    found = search(tmp_path, "p95<300ms")
    assert 2 <= found.value <= 3
    assert found.best is not None
    assert found.limit is not None
    assert found.best.outcome == MEETS
    assert found.limit.outcome != MEETS
    assert found.limit.bottleneck == "edge"
    assert found.limit.binding(found.slos) in ("p95<300ms", "unstable queue")
    assert {point.value for point in found.points} >= {1, 2, 4}


def test_bisection_finds_the_edge_of_a_known_function(tmp_path: Path) -> None:
    """Arrival rate as the key: 30 ms at each end of the link, so the device holds under 33 a second."""
    synthetic.experiment(tmp_path, requests=200)

    def at(value: int) -> Experiment:
        return Experiment.open(load(tmp_path / "scenario.yaml", [f"devices.arrivals.rate_hz={value}"]))

    found = capacity(at, "local", [Slo.parse("p95<150ms")], range(10), 1000)
    assert 15 < found.value < 33
    assert len(found.points) < 14


def test_several_levels_must_all_hold(tmp_path: Path) -> None:
    found = search(tmp_path, "p95<300ms", "accuracy>=99%")
    assert found.value == 0
    assert found.limit is not None
    assert found.limit.binding(found.slos) == "accuracy>=99%"


def test_the_maximum_may_still_hold(tmp_path: Path) -> None:
    found = search(tmp_path, "p95<300ms", maximum=2)
    assert found.value == 2
    assert found.limit is None


def test_an_unstable_queue_meets_nothing(tmp_path: Path) -> None:
    found = search(tmp_path, "p50<1000s", devices__deadline_ms=3_600_000.0)
    assert found.value in (2, 3)
    assert found.limit is not None
    assert found.limit.binding(found.slos) == "unstable queue"


def test_unknown_energy_cannot_be_bounded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--slo energy<5mJ: not known here: nobody published"):
        search(tmp_path, "energy<5mJ")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a scenario."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    synthetic.experiment(tmp_path, requests=100)
    return tmp_path


COMMAND = ["capacity", "scenario.yaml", "--out", "run"]


def test_the_command_prints_points_and_the_answer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*COMMAND, "--slo", "p95<300ms", "--policies", "offload,local", "--max", "4"]) == 0
    out = capsys.readouterr().out
    assert "offload: up to devices.count=" in out
    assert "local: devices.count=4, the largest value tried, still meets p95<300ms" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
    assert out.splitlines()[-1] == "run"
    points = pq.read_table("run/points.parquet").to_pylist()
    assert {point["policy"] for point in points} == {"offload", "local"}
    assert {"devices.count", "outcome", "p95_ms_low", "p95<300ms", "verdict", "bottleneck"} <= points[0].keys()
    assert (folder / "run" / "points.csv").exists()


def test_the_command_prints_one_document(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*COMMAND, "--slo", "p95<1ms", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    answer = document["policies"]["local"]
    assert answer["value"] is None
    assert answer["answer"].startswith("local: not even devices.count=1 meets p95<1ms")
    assert "\n" not in answer["answer"]
    assert json.loads((folder / "run" / "summary.json").read_text()) == document


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--slo", "p95<100"], "--slo"),
        (["--slo", "p95<1s", "--seeds", "0-1"], "at least 3 seeds"),
        (["--slo", "p95<1s", "--policy", "nobody"], "unknown policy 'nobody'"),
        (["--slo", "p95<1s", "--key", "devices.colour"], "devices.colour"),
        (["--slo", "p95<1s", "--max", "99999999"], "devices.count"),
        ([], "--slo"),
    ],
)
def test_mistakes_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], what: str
) -> None:
    assert cli.run([*COMMAND, *arguments]) == 2
    err = capsys.readouterr().err
    assert what in err
    assert len(err.splitlines()) == 1
