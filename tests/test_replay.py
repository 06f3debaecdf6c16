"""Replays: what another policy would have done is what it does, as far as the log can tell of the links."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from splitexit import cli
from splitexit.calibration import Distribution, Rpc
from splitexit.compare import Run, compare, run_once
from splitexit.decision import LinkEstimate
from splitexit.errors import ArtifactError, InputError, UnknownNameError, UsageError
from splitexit.experiment import Experiment
from splitexit.links import Fifo
from splitexit.links.constant import Constant
from splitexit.links.piecewise import Piecewise
from splitexit.replay import Replay, replay
from splitexit.replay.links import Uploads, measure
from splitexit.report.folder import write
from splitexit.report.stored import StoredRun
from splitexit.results import column, rows_sha256
from tests import synthetic

CALL = Rpc(60, 100, Distribution(tuple(np.linspace(0.0008, 0.0012, 11).tolist())))

CELL = {"access_points": {"cell": {}}, "devices__access_point": "cell", "devices__count": 3}
SETTINGS: dict[str, dict[str, Any]] = {
    "constant": {},
    "slow and busy": {"uplink__mbps": 0.25},
    "bandwidth step": {"events": [{"kind": "bandwidth", "at_s": 8.0, "for_s": 12.0, "factor": 0.1}]},
    "outage": {"events": [{"kind": "outage", "at_s": 10.0, "for_s": 3.0}]},
    "changing": {"uplink": {"name": "markov", "mbps": [0.5, 4.0], "dwell_ms": 3000.0, "delay_ms": 5.0}},
    "two devices, closed": {"devices__count": 2, "devices__arrivals": {"name": "closed", "think_ms": 40.0}},
    "cell, first come first served": CELL | {"uplink__mbps": 1.0},
    "cell, shared at once": CELL | {"uplink__mbps": 1.0, "access_points": {"cell": {"sharing": "processor"}}},
    "tcp": {"uplink": {"name": "constant", "mbps": 2.0, "delay_ms": 5.0, "transport": "tcp"}},
}


def made(tmp_path: Path, **changes: Any) -> Experiment:
    """A synthetic experiment whose calls vary, as real ones do."""
    model = synthetic.spec()
    return synthetic.experiment(tmp_path, model=model, takes=synthetic.calibration(model, rpc=CALL), **changes)


def stored(
    folder: Path, experiment: Experiment, policies: Sequence[str] = ("offload",), seeds: Sequence[int] = (0,)
) -> Path:
    """The run folder of these policies."""
    folder.mkdir()
    found = compare(experiment, policies, seeds)
    write(folder, experiment, found.rows, found.document(), list(seeds), False)
    return folder


def logged(tmp_path: Path, experiment: Experiment, policies: Sequence[str] = ("offload",)) -> StoredRun:
    """The same, read again."""
    return StoredRun.open(stored(tmp_path / "run", experiment, policies))


def run_rows(table: pa.Table) -> pa.Table:
    """Rows as those of policy `offload` and seed 0."""
    seed, policy = pa.array([0] * len(table), pa.int64()), pa.array(["offload"] * len(table))
    return table.add_column(0, "seed", seed).add_column(0, "policy", policy)


def run_of(found: Replay, policy: str) -> Run:
    """The simulated run of a policy."""
    return next(run for run in found.runs[1:] if run.policy == policy)


def mean_ms(run: Run) -> float:
    """Mean response."""
    return float(run.summary["response_ms"]["mean"])


@pytest.mark.parametrize("setting", SETTINGS)
def test_with_the_scenario_s_links_a_replay_is_the_simulation(tmp_path: Path, setting: str) -> None:
    experiment = made(tmp_path, requests=80, **SETTINGS[setting])
    found = replay(logged(tmp_path, experiment), ["split", "neurosurgeon", "oracle"], "scenario")
    assert [run.policy for run in found.runs] == ["offload (logged)", "offload", "split", "neurosurgeon", "oracle"]
    for run in found.runs[1:]:
        assert rows_sha256(run.table) == rows_sha256(run_once(experiment, run.policy, 0).table)
    assert found.errors_percent()["response_ms"] == 0.0


@pytest.mark.parametrize("setting", SETTINGS)
def test_with_measured_links_means_are_right_within_a_few_per_cent(tmp_path: Path, setting: str) -> None:
    experiment = made(tmp_path, requests=400, **SETTINGS[setting])
    found = replay(logged(tmp_path, experiment), ["split", "threshold"], "measured")
    assert found.links == "measured"
    assert found.measured_share > (0.75 if setting == "outage" else 0.95)
    for run in found.runs[1:]:
        assert mean_ms(run) == pytest.approx(mean_ms(run_once(experiment, run.policy, 0)), rel=0.03)


def test_small_uploads_foretell_larger_ones(tmp_path: Path) -> None:
    """Features of 400 bytes in the log, images of 900 in the replay."""
    experiment = made(tmp_path, requests=400, uplink__mbps=1.0)
    found = replay(logged(tmp_path, experiment, ["split"]), ["offload"], "measured")
    assert mean_ms(run_of(found, "offload")) == pytest.approx(mean_ms(run_once(experiment, "offload", 0)), rel=0.03)


def test_a_measured_link_stands_against_a_wrong_scenario(tmp_path: Path) -> None:
    """The scenario claims twice the rate and another delay; the log knows better."""
    experiment = made(tmp_path, requests=400, uplink__mbps=1.0)
    folder = stored(tmp_path / "run", experiment)
    run = StoredRun.open(folder, ["uplink.mbps=2", "uplink.delay_ms=8"])
    truth = mean_ms(run_once(experiment, "split", 0))
    measured, believed = (mean_ms(run_of(replay(run, ["split"], links), "split")) for links in ("measured", "scenario"))
    assert measured == pytest.approx(truth, rel=0.02)
    assert abs(believed - truth) > 3 * abs(measured - truth)


def observed(sizes: Sequence[float], rate: float, base_s: float, gaps_s: Any, noise_s: float = 0.0) -> Uploads:
    """What a link of so many bytes per second shows of uploads that leave so far apart."""
    fifo, rng = Fifo(Constant(mbps=8e-6 * rate)), np.random.default_rng(0)
    sent_s = 0.5 + np.cumsum(np.broadcast_to(gaps_s, len(sizes))) - np.broadcast_to(gaps_s, len(sizes))[0]
    through_s = np.array([fifo.send(float(at), size)[1] for at, size in zip(sent_s, sizes, strict=True)])
    transit_s = through_s - sent_s + base_s + noise_s * rng.standard_normal(len(sizes))
    return Uploads(sent_s, transit_s, np.array(sizes, float), np.ones(len(sizes), bool), np.empty(0))


VARIED = np.random.default_rng(1).uniform(500.0, 1500.0, 200).tolist()
PRIOR = LinkEstimate(8e5, 0.021)
NOMINAL = Constant(mbps=0.8)


@pytest.mark.parametrize("load", [0.1, 0.5, 0.8])
def test_base_and_rate_are_found_whatever_the_queue(load: float) -> None:
    """Up to a load at which nearly all uploads leave while others are on their way."""
    gaps_s = np.random.default_rng(2).exponential(0.01 / load, len(VARIED))
    found = measure(observed(VARIED, 1e5, 0.030, gaps_s, 1e-4), PRIOR, CALL, NOMINAL, 25.0, False)
    assert found.base_s == pytest.approx(0.030, abs=3e-4)
    assert found.mean_bps == pytest.approx(8e5, rel=0.03)
    assert found.doubt_s < 3e-4
    assert found.rate_doubt < 0.05


def test_where_all_payloads_have_one_size_the_prior_divides(tmp_path: Path) -> None:
    """Base and rate then add up to what was measured; a rate and a base of the same weight move alike."""
    found = measure(observed([1000.0] * 50, 1e5, 0.030, 0.1), PRIOR, CALL, NOMINAL, 6.0, False)
    assert found.base_s + 8e3 / found.mean_bps == pytest.approx(0.040)
    assert 0.020 < found.base_s < 0.040
    assert found.rate_doubt > 0.2


def test_a_rate_holds_for_a_second_and_not_to_a_lost_upload() -> None:
    link = Constant(mbps=8.0)
    seen = observed(VARIED[:20], 1e5, 0.030, 0.1)
    whole = measure(seen, PRIOR, CALL, link, 12.0, False)
    # Uploads from 0.5 to 2.4 s, the last of them on the link for some 10 ms, and a second at the end.
    assert whole.measured_share * 12.0 == pytest.approx(3.41, abs=0.02)
    cut = measure(seen._replace(lost_s=np.array([2.6])), PRIOR, CALL, link, 12.0, False)
    assert cut.measured_share * 12.0 == pytest.approx(2.6, abs=0.02)
    assert cut.bytes_per_s[-1] == pytest.approx(1e6)  # the scenario's


def test_noise_is_not_taken_for_a_changing_rate() -> None:
    """Uploads of 1 ms with 1 ms of noise: neighbours stand together, and the rate hardly varies."""
    found = measure(observed(VARIED, 1e6, 0.030, 0.1, 1e-3), LinkEstimate(8e6, 0.031), CALL, NOMINAL, 25.0, False)
    seen = found.bytes_per_s[found.bytes_per_s > 2e5]  # the scenario's 1e5 fills in
    assert len(set(seen.tolist())) <= 2
    assert seen == pytest.approx(1e6, rel=0.2)
    assert found.base_s + 1e3 * 8 / found.mean_bps == pytest.approx(0.031, rel=0.01)


def test_a_piecewise_link_goes_on_after_its_last_piece() -> None:
    link = Piecewise(lengths_s=[1.0, 2.0, 1.0], bytes_per_s=[100.0, 0.0, 50.0], later_bps=80.0)
    assert link.finish_s(0.5, 50.0) == 1.0
    assert link.finish_s(0.5, 75.0) == 3.5
    assert link.finish_s(3.0, 60.0) == 5.0
    assert link.sent_bytes(0.0, 14.0) == pytest.approx(250.0)
    assert link.mean_bps == 80.0


def test_links_are_measured_where_enough_was_sent(tmp_path: Path) -> None:
    run = logged(tmp_path, made(tmp_path, requests=40), ["local", "offload"])
    assert replay(run, ["split"], from_policy="offload").links == "measured"
    local = replay(run, ["split"], from_policy="local")
    assert (local.links, local.measured_share, local.found) == ("scenario", 0.0, {})
    with pytest.raises(UsageError, match="no request of this run was answered by the edge.*--links scenario"):
        replay(run, ["split"], "measured", from_policy="local")


def test_rows_behind_a_gap_are_left_out(tmp_path: Path) -> None:
    """An interrupted run: what was in flight has no row."""
    run = logged(tmp_path, made(tmp_path, requests=60))
    keep = np.ones(len(run.rows), bool)
    keep[50] = False
    cut = StoredRun(run.folder, run.experiment, run.manifest, run.rows.filter(keep))
    found = replay(cut, ["split"])
    assert found.left_out == 9
    assert len(found.runs[0].table) == len(run_of(found, "split").table) == 50


def test_of_repeated_measurements_the_first_is_replayed(tmp_path: Path) -> None:
    run = logged(tmp_path, made(tmp_path, requests=40))
    again = pa.concat_tables([run.rows, run_rows(run_once(run.experiment, "offload", 9).table)])
    found = replay(StoredRun(run.folder, run.experiment, run.manifest, again), ["split"])
    assert found.left_out == 0
    assert rows_sha256(found.runs[0].table) == rows_sha256(run.table("offload", 0))


def test_where_real_tcp_was_it_is_simulated(tmp_path: Path) -> None:
    """A run over namespaces: its scenario says nothing of TCP, but its segments had headers, and its uploads waited."""
    experiment = made(tmp_path, requests=200, uplink__mbps=1.0)
    over_tcp = made(
        tmp_path, requests=200, uplink={"name": "constant", "mbps": 1.0, "delay_ms": 5.0, "transport": "tcp"}
    )
    rows = run_rows(run_once(over_tcp, "offload", 0).table)
    run = StoredRun(tmp_path, experiment, {"network": "tun"}, rows, "live")
    found = replay(run, ["split"], "measured")
    assert found.experiment.own[0].up.transport == "tcp"
    assert found.found["device 0"].mean_bps == pytest.approx(1e6, rel=0.03)
    assert mean_ms(run_of(found, "split")) == pytest.approx(mean_ms(run_once(over_tcp, "split", 0)), rel=0.02)


def test_arrivals_and_samples_are_those_of_the_log(tmp_path: Path) -> None:
    """Also where the seed would draw others."""
    experiment = made(tmp_path, requests=50)
    other = Experiment(
        experiment.scenario, experiment.bundle, experiment.recording, experiment.host, tuple(range(100, 140))
    )
    log = run_once(other, "offload", 5).table
    run = logged(tmp_path, experiment)
    cut = StoredRun(run.folder, experiment, run.manifest, run_rows(log))
    table = run_of(replay(cut, ["local"]), "local").table
    for name in ("sample", "label", "arrival_s"):
        assert (column(table, name) == column(log, name)).all()


def test_images_that_were_not_recorded_are_refused(tmp_path: Path) -> None:
    run = logged(tmp_path, made(tmp_path, requests=50))
    label = run.rows["label"].to_numpy() + 1
    rows = run.rows.set_column(run.rows.column_names.index("label"), "label", [label])
    with pytest.raises(ArtifactError, match="made of other images than this run saw"):
        replay(StoredRun(run.folder, run.experiment, run.manifest, rows), ["local"])


def test_differences_are_paired_by_request(tmp_path: Path) -> None:
    found = replay(logged(tmp_path, made(tmp_path, requests=300)), ["local"])
    difference = found.differences()["local"]["response_ms"]
    assert difference["mean"] == pytest.approx(mean_ms(found.runs[2]) - mean_ms(found.runs[0]))
    assert difference["low"] < difference["mean"] < difference["high"]
    assert difference["high"] - difference["low"] < 0.5  # each of the means is known to some 2 ms


def refusals(tmp_path: Path) -> list[tuple[list[str], str]]:
    """Arguments behind `replay`, and what is said of them."""
    experiment = made(tmp_path, requests=30, policies__unknown={"name": "offload", "split": 2, "codec": "raw"})
    run = str(stored(tmp_path / "run", experiment, ["offload", "local"], [0, 1]))
    one = str(stored(tmp_path / "one", experiment, ["local"]))
    return [
        ([str(tmp_path)], "not a run folder: no config.yaml in it"),
        ([run], "more than one policy (offload, local); say which to replay with --from-policy"),
        ([run, "--from-policy", "local"], "more than one seed (0, 1); say which to replay with --seed"),
        ([run, "--from-policy", "locl", "--seed", "0"], "did you mean 'local'"),
        ([run, "--from-policy", "local", "--seed", "7"], "with seed 7; seeds: [0, 1]"),
        ([one, "--policy", "ofload"], "unknown policy 'ofload'; did you mean 'offload'"),
        ([one, "--policy", "unknown"], "--pair raw@2"),
        ([one, "--policy", ","], "expected labels separated by commas"),
        ([one, "--links", "measured"], "it says nothing of the links"),
        ([one, "--set", "bundle=nowhere"], "is not there any more"),
    ]


def test_what_cannot_be_replayed_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in refusals(tmp_path):
        assert cli.run(["replay", *arguments]) == 2, arguments
        captured = capsys.readouterr()
        assert said in captured.err, captured.err
        assert len(captured.err.splitlines()) == 1
        assert not captured.out


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = stored(tmp_path / "run", made(tmp_path, requests=60))
    out = tmp_path / "replayed"
    assert cli.run(["replay", str(run), "--policy", "split,oracle", "--policy", "local", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(out)
    assert any(line.startswith("links: measured for 100% of the time") for line in lines)
    assert any(line.startswith("check: offload replayed is off the log by: mean") for line in lines)
    again = StoredRun.open(out)
    assert again.policies == ("offload", "split", "oracle", "local")
    assert again.manifest["replay_of"] == str(run)


def test_json_is_one_document_and_set_changes_the_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = stored(tmp_path / "run", made(tmp_path, requests=60))
    arguments = [
        "replay",
        str(run),
        "--policy",
        "split",
        "--links",
        "scenario",
        "--set",
        "uplink.delay_ms=45",
        "--json",
    ]
    assert cli.run([*arguments, "--out", str(tmp_path / "replayed")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["logged"]["requests"] == 60
    assert list(document["policies"]) == ["offload", "split"]
    change = document["policies"]["offload"]["response_ms"]["mean"] - document["logged"]["response_ms"]["mean"]
    assert change == pytest.approx(40.0)
    assert document["differences"]["offload"]["response_ms"]["mean"] == pytest.approx(40.0)
    assert document["self_check"]["error_percent"]["response_ms"] > 50
    assert document["links"] == {"from": "scenario", "measured_share": 0.0, "found": {}}
    assert "intervals" in document["policies"]["split"]


def test_policies_that_nobody_knows_are_found_before_anything_runs(tmp_path: Path) -> None:
    run = logged(tmp_path, made(tmp_path, requests=30))
    done: list[str] = []
    with pytest.raises(UnknownNameError):
        replay(run, ["split", "nobody"], on_run=done.append)
    assert not done
    with pytest.raises(InputError):
        replay(run, ["split"], seed=4)
