"""validate: simulated against measured, on made-up rows; no process, and no clock that anything depends on."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from splitexit import validate
from splitexit.cli import run
from splitexit.compare import Run, as_run, run_once
from splitexit.corun import SharedCores
from splitexit.errors import INTERRUPTED, ProcessError, UnknownNameError, UsageError
from splitexit.experiment import Experiment
from splitexit.report.folder import write as write_folder
from splitexit.report.stored import StoredRun
from splitexit.report.validation import headline, metrics_table, write
from splitexit.results import Completion, column
from splitexit.scenario import load
from splitexit.sim import simulate
from splitexit.summary import Summariser
from splitexit.validate import (
    BAND_SEEDS,
    Judgement,
    Measured,
    Validation,
    figures,
    judge,
    measure,
    measured_before,
    over,
)
from tests import synthetic

PI = "raspberry-pi-4"
FEW = 20


def quiet(line: str) -> None:
    """Says nothing."""


@dataclass(frozen=True)
class FakeRun:
    """A live run's results."""

    rows: list[Completion]
    late: int = 2
    links: Mapping[str, Any] = field(default_factory=lambda: {"uplink": {"rate_error": 0.01}})
    interrupted: bool = False
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass
class FakeDeployment:
    """Stands for real processes: rows of the simulator, answered `slower` times as late as they would be."""

    experiment: Experiment
    slower: tuple[float, ...] = (1.0,)
    network: str = "proxy"
    ends: Mapping[int, dict[str, Any]] = field(default_factory=dict)
    runs: int = 0

    def run(
        self, policy: str, seed: int, requests: int | None = None, progress: Callable[[int], None] = print
    ) -> FakeRun:
        """One repetition."""
        factor = self.slower[self.runs % len(self.slower)]
        rows = [later(row, factor) for row in simulate(self.experiment, policy, seed, requests)]
        found = FakeRun(rows, **self.ends.get(self.runs, {}))
        self.runs += 1
        return found

    def __enter__(self) -> FakeDeployment:
        return self

    def __exit__(self, *_: Any) -> None:
        """Nothing to end."""


def later(row: Completion, factor: float) -> Completion:
    """The same request, its response so many times as long."""
    return row._replace(done_s=row.arrival_s + factor * row.response_s)


def paced(folder: Path, **changes: Any) -> Experiment:
    """A scenario whose parts are all paced."""
    return synthetic.experiment(folder, **({"devices__hardware": PI, "edge__hardware": PI, "requests": 60} | changes))


def validation(experiment: Experiment, policy: str = "split", **of: Any) -> Validation:
    """Measured by a FakeDeployment, three times."""
    return judge(measure(FakeDeployment(experiment, **of), policy, 0, 3, quiet), FEW)


# Metrics


def test_a_perfect_simulator_has_no_error(tmp_path: Path) -> None:
    found = validation(paced(tmp_path))
    assert {judgement.error for judgement in found.judgements.values()} == {0.0}
    assert {judgement.spread for judgement in found.judgements.values()} == {0.0}
    assert not any(judgement.noisy for judgement in found.judgements.values())


def test_errors_are_of_the_simulated_against_the_median_repetition(tmp_path: Path) -> None:
    mean = validation(paced(tmp_path), slower=(1.25, 1.0, 1.6)).judgements["mean"]
    assert mean.middle == pytest.approx(1.25 * mean.simulated)
    assert mean.error == pytest.approx(-20.0)
    assert mean.spread == pytest.approx(100 * 0.6 / 1.25)
    assert mean.noisy, "repetitions differ by more than the error"
    assert not validation(paced(tmp_path), slower=(1.25,)).judgements["mean"].noisy


def test_figures_are_those_of_the_rows(tmp_path: Path) -> None:
    busy = {"devices__arrivals__rate_hz": 40.0, "edge__hardware": "host", "edge__queue": 2}
    experiment = paced(tmp_path, **busy, devices__deadline_ms=60.0)
    found = run_once(experiment, "threshold", 0)
    rows, said = found.table, figures(Summariser(experiment), found)
    sent, shed, lost = column(rows, "split") >= 0, column(rows, "shed"), column(rows, "lost_reply")
    assert said["shed_rate"] == shed.mean() > 0
    assert said["lost_rate"] == lost.mean() > 0
    assert said["offload_rate"] == sent.mean() < 1
    assert said["device_wait"] == pytest.approx(1e3 * (column(rows, "start_s") - column(rows, "arrival_s")).mean())
    assert said["network"] == pytest.approx(1e3 * column(rows, "network_s")[sent & ~shed & ~lost].mean())
    assert said["p95"] == pytest.approx(np.percentile(1e3 * column(rows, "response_s"), 95))
    assert list(said) == list(validate.METRICS)


def test_a_warm_up_counts_nowhere(tmp_path: Path) -> None:
    experiment = paced(tmp_path, warmup_s=2.0)
    found = run_once(experiment, "split", 0)
    rows = found.table
    kept = column(rows, "arrival_s") >= 2.0
    wait_s = column(rows, "edge_wait_s")[kept]
    assert figures(Summariser(experiment), found)["edge_wait"] == pytest.approx(1e3 * wait_s.mean())


def test_what_nobody_did_is_left_out(tmp_path: Path) -> None:
    judgements = validation(paced(tmp_path), "local").judgements
    assert not {"edge_wait", "network"} & judgements.keys()
    assert judgements["offload_rate"].middle == 0.0


def test_shares_differ_in_points_and_times_in_percent() -> None:
    share = Judgement(validate.SHARE, (0.80,), 0.82, (0.81, 0.83))
    assert share.error == pytest.approx(2.0)
    assert share.document()["error_points"] == share.error
    time = Judgement(validate.MS, (80.0,), 82.0, (81.0, 83.0))
    assert time.error == pytest.approx(2.5)
    assert time.document()["difference_ms"] == pytest.approx(2.0)


def test_nothing_measured_has_no_relative_error() -> None:
    assert Judgement(validate.MS, (0.0,), 0.0, (0.0, 0.0)).error == 0.0
    assert math.isinf(Judgement(validate.MS, (0.0,), 0.1, (0.0, 0.2)).error)


def test_the_smallest_and_largest_of_39_are_a_band_of_95_percent() -> None:
    values = tuple(np.random.default_rng(0).permutation(BAND_SEEDS).astype(float).tolist())
    assert BAND_SEEDS == 39
    assert Judgement(validate.MS, (38.0,), 0.0, values).band == (0.0, 38.0)
    assert Judgement(validate.MS, (38.0,), 0.0, values).in_band
    assert not Judgement(validate.MS, (38.5,), 0.0, values).in_band


def test_bands_enclose_what_they_promise() -> None:
    """Of 2,000 further values, from any distribution, at least 94 in 100, over many bands."""
    rng, inside = np.random.default_rng(1), 0
    for _ in range(2000):
        *others, value = rng.lognormal(size=BAND_SEEDS + 1).tolist()
        inside += Judgement(validate.MS, (value,), 0.0, tuple(others)).in_band
    assert 0.935 < inside / 2000 < 0.965


def test_the_band_is_of_as_many_requests(tmp_path: Path) -> None:
    found = validation(paced(tmp_path))
    assert [run.seed for run in found.band] == list(range(1, FEW + 1))
    assert {len(run.table) for run in found.band} == {60}


# Measuring


def test_every_repetition_is_a_run_of_its_own(tmp_path: Path) -> None:
    deployment, said = FakeDeployment(paced(tmp_path)), list[str]()
    found = measure(deployment, "split", 0, 3, said.append)
    assert len(found.runs) == deployment.runs == len(said) == 3
    assert (found.late, found.requests) == ((2, 2, 2), 60)
    assert found.links[0] == {"uplink": {"rate_error": 0.01}}


def test_an_interrupted_repetition_is_left_out(tmp_path: Path) -> None:
    found = measure(FakeDeployment(paced(tmp_path), ends={1: {"interrupted": True}}), "split", 0, 3, quiet)
    assert (len(found.runs), found.interrupted) == (1, True)


def test_nothing_is_left_of_the_first_if_interrupted(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        measure(FakeDeployment(paced(tmp_path), ends={0: {"interrupted": True}}), "split", 0, 3, quiet)


def test_a_process_that_ended_ends_it_all(tmp_path: Path) -> None:
    deployment = FakeDeployment(paced(tmp_path), ends={1: {"failed": {"device 0": "device 0 was killed"}}})
    with pytest.raises(ProcessError, match="device 0 was killed"):
        measure(deployment, "split", 0, 3, quiet)


# Networks


def test_a_proxy_carries_the_links_as_they_are_written(tmp_path: Path) -> None:
    scenario = paced(tmp_path).scenario
    assert over("proxy", scenario) is scenario


@pytest.mark.parametrize("network", ["tun", "tbf"])
def test_real_tcp_is_simulated_as_tcp(tmp_path: Path, network: str) -> None:
    scenario = paced(tmp_path, downlink__delay_ms=15.0).scenario
    tcp = over(network, scenario)
    for link in (tcp.uplink, tcp.downlink):
        assert link.parameters["transport"] == "tcp"
        assert link.parameters["rtt_ms"] == pytest.approx(20.0), "the delays of both ways"
    assert tcp.uplink.parameters["mbps"] == scenario.uplink.parameters["mbps"]
    assert tcp.file == scenario.file


def test_groups_and_access_points_have_tcp_too(tmp_path: Path) -> None:
    own = {"name": "constant", "mbps": 2.0, "delay_ms": 30.0}
    groups = {"near": {"count": 1, "uplink": own}, "far": {"count": 2, "access_point": "cell"}}
    scenario = over("tun", paced(tmp_path, groups=groups, access_points={"cell": {"downlink": own}}).scenario)
    near, far = scenario.fleet.values()
    for devices, rtt_ms in ((near, 35.0), (far, 35.0)):
        for link in scenario.links(devices):
            assert link.parameters["transport"] == "tcp"
        owned = [link for link in (devices.uplink, devices.downlink) if link]
        assert all(link.parameters["rtt_ms"] == rtt_ms for link in owned)
    assert scenario.access_points["cell"].downlink.parameters["rtt_ms"] == 35.0


def test_a_round_trip_that_is_given_stays(tmp_path: Path) -> None:
    link = {"name": "constant", "mbps": 8.0, "delay_ms": 5.0, "rtt_ms": 70.0}
    assert over("tun", paced(tmp_path, uplink=link).scenario).uplink.parameters["rtt_ms"] == 70.0


def test_what_was_measured_over_tun_is_simulated_under_tcp(tmp_path: Path) -> None:
    experiment = paced(tmp_path)
    plain, tcp = (validation(experiment, network=network) for network in ("proxy", "tun"))
    assert plain.judgements["network"].error == 0.0
    assert 0.5 < tcp.judgements["network"].error < 2.0, "headers and acknowledgements"
    assert tcp.measured.experiment is experiment


# Shared cores


def test_native_parts_slow_each_other(tmp_path: Path) -> None:
    experiment = synthetic.experiment(tmp_path, devices__count=2, requests=60)
    experiment = replace(experiment, host=replace(experiment.host, corun={0: 1.0, 1: 1.5}))
    found = validation(experiment)
    assert isinstance(found.experiment, SharedCores)
    assert found.document()["corun"]["edge"] == found.experiment.edge > 1.0
    assert found.judgements["mean"].error > 1.0
    assert validation(paced(tmp_path)).document()["corun"] is None


# Documents


def test_the_document_says_what_users_ask(tmp_path: Path) -> None:
    document = validation(paced(tmp_path), slower=(1.25,)).document()
    for name in ("mean", "p50", "p95", "p99"):
        entry = document["metrics"][name]
        assert {"measured_ms", "simulated_ms", "error_percent"} <= entry.keys()
        assert entry["error_percent"] == pytest.approx(-20.0)
        assert len(entry["repetitions_ms"]) == 3
    assert document["metrics"]["accuracy"]["error_points"] == 0.0
    assert document["metrics"]["throughput"]["measured_per_s"] > 0
    assert document["band"] == {"confidence": 0.95, "seeds": list(range(1, FEW + 1))}
    assert (document["policy"], document["network"], document["repetitions"]) == ("split", "proxy", 3)
    assert document["machine"] == {"name": "synthetic"}
    assert document["load"]["bottleneck"] in ("device", "edge")
    json.dumps(document)


def test_too_large_an_error_is_named(tmp_path: Path) -> None:
    found = validation(paced(tmp_path), slower=(1.1,))
    assert found.exceeds(5.0) == ["mean", "p95"]
    assert found.exceeds(10.0) == []


def test_the_table_has_a_line_for_every_metric(tmp_path: Path) -> None:
    found = validation(paced(tmp_path), slower=(1.25, 1.0, 1.6))
    text = printed(metrics_table(found, 200))
    assert text.splitlines()[0].split()[:4] == ["metric", "measured", "spread", "simulated"]
    assert len(text.splitlines()) == 1 + len(found.judgements)
    mean = next(line for line in text.splitlines() if line.startswith("mean ms"))
    assert "-20.00 %" in mean
    assert mean.rstrip().endswith("noisy")
    assert "0.00 pt" in next(line for line in text.splitlines() if line.startswith("accuracy"))
    assert headline(found).startswith(f"synthetic: 1 x {PI}; split, 60 requests, seed 0, network proxy, measured 3×")


def test_a_narrow_terminal_keeps_the_figures(tmp_path: Path) -> None:
    text = printed(metrics_table(validation(paced(tmp_path)), 60))
    assert max(map(len, text.splitlines())) <= 60
    assert text.splitlines()[0].split()[:3] == ["metric", "measured", "simulated"]


def printed(table: Any) -> str:
    """As on a wide terminal without colours."""
    out = io.StringIO()
    Console(file=out, width=200, no_color=True).print(table)
    return "\n".join(line for line in out.getvalue().splitlines() if line.strip())


# Folders, and runs that were stored


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a validation, of three repetitions that differ."""
    pytest.importorskip("matplotlib")
    found = validation(paced(tmp_path), slower=(1.0, 1.1, 1.2))
    (out := tmp_path / "out").mkdir()
    write(found, found.document(), out, picture=True)
    return out


def test_the_folder_holds_both_worlds_and_a_picture(folder: Path) -> None:
    assert (folder / "validation.png").read_bytes().startswith(b"\x89PNG")
    rows = pa.parquet.read_table(folder / "requests.parquet")
    assert rows.column_names[:4] == ["policy", "seed", "world", "repetition"]
    counts = rows.group_by(["world", "repetition"]).aggregate([("request", "count")])
    assert sorted(zip(*(counts[name].to_pylist() for name in counts.column_names), strict=True)) == [
        ("live", 0, 60),
        ("live", 1, 60),
        ("live", 2, 60),
        ("simulated", 0, 60),
    ]
    assert json.loads((folder / "manifest.json").read_text())["network"] == "proxy"
    assert json.loads((folder / "summary.json").read_text())["metrics"]["mean"]["measured_ms"] > 0


def test_the_measured_repetitions_can_be_read_again(folder: Path) -> None:
    again = judge(measured_before(StoredRun.open(folder)), FEW)
    said = json.loads((folder / "summary.json").read_text())["metrics"]
    assert again.judgements["mean"].document()["repetitions_ms"] == pytest.approx(said["mean"]["repetitions_ms"])
    assert again.judgements["mean"].error == pytest.approx(said["mean"]["error_percent"])


def stored(folder: Path, world: str = "live") -> Path:
    """A run folder as `splitexit live` writes it: two policies, a tenth slower than simulated."""
    experiment = paced(folder)
    rows = pa.concat_tables(marked(slow(experiment, policy), policy) for policy in ("split", "local"))
    (out := folder / "stored").mkdir()
    facts = {"world": world, "network": "proxy"}
    write_folder(out, experiment, rows, {}, [0], False, facts)
    experiment.host.save(out / "calibration.json")
    return out


def slow(experiment: Experiment, policy: str) -> pa.Table:
    return as_run(
        experiment, policy, 0, validate.to_table(later(r, 1.1) for r in simulate(experiment, policy, 0))
    ).table


def marked(table: pa.Table, policy: str) -> pa.Table:
    n = len(table)
    return table.add_column(0, "seed", pa.array([0] * n, pa.int64())).add_column(0, "policy", pa.array([policy] * n))


def test_a_stored_run_is_judged_without_a_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["validate", "--against", str(stored(tmp_path)), "--seeds-band", "20", "--out", str(tmp_path / "out")]
    assert run([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["policy"], document["repetitions"]) == ("split", 1)
    assert document["metrics"]["mean"]["error_percent"] == pytest.approx(100 / 1.1 - 100)
    assert run([*arguments, "--policy", "local", "--max-error", "5"]) == 1
    out, err = capsys.readouterr()
    assert "mean ms" in out
    assert err.startswith("error: simulated and measured differ by more than 5 %: mean -9.1 %, p95 -9.1 %")
    assert run([*arguments, "--max-error", "10"]) == 0


def test_only_what_was_measured_can_be_validated_against(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its rows were simulated; name the folder of a live run"):
        measured_before(StoredRun.open(stored(tmp_path, "simulated")))


def test_a_policy_or_seed_that_did_not_run_is_named(tmp_path: Path) -> None:
    run_ = StoredRun.open(stored(tmp_path))
    with pytest.raises(UnknownNameError, match="local"):
        measured_before(run_, "locl")
    with pytest.raises(UsageError, match="no rows of policy 'split' with seed 7"):
        measured_before(run_, seed=7)


# The command


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDeployment:
    """Takes the place of processes in `splitexit validate`."""
    deployment = FakeDeployment(paced(tmp_path), slower=(1.0, 1.02, 1.04))

    def measure_here(scenario: Any, policy: str, seed: int, network: str, repeat: int, say: Any) -> Measured:
        deployment.experiment, deployment.network = replace(deployment.experiment, scenario=scenario), network
        return measure(deployment, policy, seed, repeat, say)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(validate, "measure_here", measure_here)
    return deployment


@pytest.mark.usefixtures("fake")
def test_the_command_passes_its_options_on(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--policy", "local", "--seed", "5", "--requests", "40", "--repeat", "2", "--network", "tun", "--json"]
    assert run(["validate", "scenario.yaml", *options, "--seeds-band", "21", "--set", "uplink.mbps=3"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["policy"], document["seed"], document["requests"]) == ("local", 5, 40)
    assert (document["repetitions"], document["network"], len(document["band"]["seeds"])) == (2, "tun", 21)
    config = load(Path(document["run"]) / "config.yaml")
    assert config.uplink.parameters["mbps"] == 3.0


@pytest.mark.usefixtures("fake")
def test_by_default_it_prints_a_table_and_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", "scenario.yaml", "--max-error", "5"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].startswith("synthetic: 1 x raspberry-pi-4; local, 60 requests, seed 0, network proxy,")
    assert "busiest is device" in out
    assert (Path(lines[-1]) / "summary.json").exists()
    assert "live: local, repetition 3 of 3" in err


def test_overruns_are_said(fake: FakeDeployment, capsys: pytest.CaptureFixture[str]) -> None:
    usual = fake.run

    def slow(*arguments: Any, **more: Any) -> FakeRun:
        found = usual(*arguments, **more)
        return replace(found, rows=[row._replace(overrun=row.request < 3) for row in found.rows])

    fake.run = slow  # type: ignore[method-assign]
    assert run(["validate", "scenario.yaml"]) == 0
    assert "5.0% of the requests ran slower here" in " ".join(capsys.readouterr().out.split())


def test_an_interrupted_one_keeps_what_it_has(fake: FakeDeployment, capsys: pytest.CaptureFixture[str]) -> None:
    fake.ends = {1: {"interrupted": True}}
    assert run(["validate", "scenario.yaml", "--json"]) == INTERRUPTED
    document = json.loads(capsys.readouterr().out)
    assert (document["repetitions"], document["interrupted"]) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([], "name a SCENARIO to run, or a stored run with --against"),
        (["scenario.yaml", "--against", "x"], "SCENARIO does not go with --against: a stored run is measured already"),
        (["--against", "x", "--repeat", "2"], "--repeat does not go with --against"),
        (["--against", "x", "--network", "tun"], "--network does not go with --against"),
        (["--against", "x", "--set", "uplink.mbps=1"], "--set does not go with --against"),
        (["--against", "nowhere"], "nowhere: not a run folder"),
        (["scenario.yaml", "--policy", "locl"], "unknown policy 'locl'; did you mean 'local'"),
        (["scenario.yaml", "--seeds-band", "5"], "should be greater than or equal to 20"),
        (["scenario.yaml", "--network", "carrier-pigeon"], "carrier-pigeon"),
    ],
)
@pytest.mark.usefixtures("fake")
def test_mistakes_end_in_one_line(arguments: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", *arguments]) == 2
    err = capsys.readouterr().err
    assert what in err
    assert len(err.splitlines()) == 1


def test_runs_have_rows_of_both_engines(tmp_path: Path) -> None:
    """The compiled engine simulates the same band, sooner."""
    pytest.importorskip("numba")
    slow_one, fast = (validation(paced(tmp_path, engine=engine)) for engine in ("simpy", "compiled"))
    assert means(slow_one.band) == means(fast.band)


def means(runs: tuple[Run, ...]) -> list[float]:
    """Mean responses."""
    return [run.summary["response_ms"]["mean"] for run in runs]
