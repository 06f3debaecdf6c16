"""Comparisons: intervals, warm-up, groups, energy, verdicts, sequential stopping."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitexit import cli
from splitexit.compare import compare
from splitexit.errors import InputError
from splitexit.results import column
from tests import synthetic

KEYS = {"accuracy", "response_ms", "deadline_miss_rate", "offload_rate", "exit_rates", "uplink_bytes_mean", "requests"}


def test_a_summary_has_the_metrics_load_and_verdict(tmp_path: Path) -> None:
    found = compare(synthetic.experiment(tmp_path), ["local", "offload"], [0, 1, 2]).summaries
    assert found["local"].keys() > KEYS
    assert found["local"]["response_ms"].keys() == {"mean", "p50", "p95", "p99"}
    assert found["local"]["verdict"] == "stable"
    assert found["local"]["bottleneck"] == "device"
    assert found["local"]["utilisation"]["device"] == pytest.approx(0.3, rel=0.1)  # 10 a second, 30 ms each
    assert found["offload"]["utilisation"]["edge"] == pytest.approx(0.3, rel=0.1)
    assert found["local"]["throughput_per_s"] == pytest.approx(10, rel=0.1)
    assert "groups" not in found["local"]


def test_an_overloaded_device_is_called_unstable(tmp_path: Path) -> None:
    busy = synthetic.experiment(tmp_path, devices__arrivals={"name": "poisson", "rate_hz": 50.0}, requests=1000)
    assert compare(busy, ["local"], [0]).summaries["local"]["verdict"] == "unstable"


def test_an_edge_that_gives_up_its_queue_is_called_backlogged(tmp_path: Path) -> None:
    """The deadline bounds the queue; the requests that nobody waits for any more show it."""
    busy = synthetic.experiment(
        tmp_path, devices__count=5, devices__arrivals={"name": "poisson", "rate_hz": 15.0}, devices__deadline_ms=200.0
    )
    assert compare(busy, ["offload"], [0]).summaries["offload"]["verdict"] == "backlogged"


def test_a_batching_edge_is_named_where_it_binds(tmp_path: Path) -> None:
    """Jobs of a batch share its seconds, so the rows do not say how busy it was; sheds say that it was too busy."""
    edge = {"queue": 1, "batching": {"max_size": 2}}
    busy = synthetic.experiment(tmp_path, edge=edge, devices__count=8)
    summary = compare(busy, ["offload"], [0]).summaries["offload"]
    assert np.isnan(summary["utilisation"]["edge"])
    assert summary["bottleneck"] == "edge"
    assert summary["shed_rate"] > 0.01
    assert summary["verdict"] == "backlogged"


def test_the_warm_up_leaves_every_figure_but_not_the_table(tmp_path: Path) -> None:
    whole = compare(synthetic.experiment(tmp_path), ["local"], [0])
    later = compare(synthetic.experiment(tmp_path, warmup_s=10.0), ["local"], [0])
    table = whole.runs[0].table
    assert len(later.runs[0].table) == len(table)
    counted = column(table, "arrival_s") >= 10.0
    summary = later.summaries["local"]
    assert summary["requests"] == counted.sum() < len(table)
    assert summary["response_ms"]["mean"] == pytest.approx(1e3 * column(table, "response_s")[counted].mean())


def test_a_warm_up_that_leaves_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"warmup_s: 1000 leaves nothing.*lower it, or raise requests"):
        compare(synthetic.experiment(tmp_path, warmup_s=1000.0), ["local"], [0])


def test_groups_have_sections_that_add_up(tmp_path: Path) -> None:
    groups = {"slow": {"arrivals": {"name": "poisson", "rate_hz": 2.0}}, "fast": {"count": 3}}
    summary = compare(synthetic.experiment(tmp_path, groups=groups), ["local"], [0, 1]).summaries["local"]
    assert summary["groups"].keys() == {"slow", "fast"}
    assert sum(group["requests"] for group in summary["groups"].values()) == summary["requests"] == 2 * 4 * 300
    assert summary["utilisation"]["device fast"] > summary["utilisation"]["device slow"]


def test_energy_is_charged_where_it_is_known(tmp_path: Path) -> None:
    known = synthetic.experiment(tmp_path, devices__energy={"compute_w": 4.0, "idle_w": 0.0, "radio": "wifi"})
    found = compare(known, ["local", "offload"], [0]).summaries
    assert found["local"]["device_energy_mj_mean"] == pytest.approx(4.0 * 30)  # 4 W for 30 ms
    assert found["offload"]["device_energy_mj_mean"] > 0
    unknown = compare(synthetic.experiment(tmp_path), ["local"], [0]).summaries
    assert "device_energy_mj_mean" not in unknown["local"]


def test_one_seed_has_batch_means_and_several_have_replications(tmp_path: Path) -> None:
    experiment = synthetic.experiment(tmp_path, requests=1000)
    one, three = compare(experiment, ["local"], [0]), compare(experiment, ["local"], [0, 1, 2])
    assert one.document()["intervals_from"] == "batch means"
    found = one.summaries["local"]["intervals"]["response_ms"]
    assert found["batches"] * found["batch_size"] <= 1000
    assert found["low"] < found["mean"] < found["high"]
    assert three.document()["intervals_from"] == "replications"
    assert "batches" not in three.summaries["local"]["intervals"]["response_ms"]


def test_precision_adds_seeds_until_it_is_reached(tmp_path: Path) -> None:
    experiment = synthetic.experiment(tmp_path, requests=100)
    loose = compare(experiment, ["local", "offload"], [3], precision=0.5)
    tight = compare(experiment, ["local", "offload"], [3], precision=0.02)
    assert loose.seeds == tuple(range(3, 13))  # ten replications at the least
    assert len(tight.seeds) > 10
    assert tight.document()["precision"]["reached"]
    assert max(tight.document()["precision"]["relative_half_widths"].values()) <= 0.02
    few = compare(experiment, ["local"], [0], precision=1e-6, max_seeds=11)
    assert len(few.seeds) == 11
    assert not few.document()["precision"]["reached"]
    assert [run.seed for run in tight.of("local")] == list(tight.seeds)


def test_common_random_numbers_stay(tmp_path: Path) -> None:
    found = compare(synthetic.experiment(tmp_path, requests=50), ["local", "offload"], [0], precision=0.5)
    for mine, other in zip(found.of("local"), found.of("offload"), strict=True):
        for name in ("arrival_s", "sample"):
            np.testing.assert_array_equal(column(mine.table, name), column(other.table, name))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command."""
    code = cli.run(arguments)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("columns", ["80", "200"])
def test_the_tables_stay_within_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("NO_COLOR", "1")
    energy = {"compute_w": 4.0, "idle_w": 0.0, "radio": "wifi"}
    groups: dict[str, Any] = {"a": {}, "b": {"count": 2}}
    synthetic.experiment(tmp_path, requests=100, devices__energy=energy, groups=groups)
    for command in (["compare", "--policies", "local,offload"], ["simulate"], ["simulate", "--precision", "20%"]):
        code, out, err = run(capsys, *command, "scenario.yaml", "--out", "run")
        assert code == 0, err
        assert "J/request" in out
        assert "group" in out
        assert max(map(len, out.splitlines())) <= int(columns)
        assert "\x1b" not in out


def test_simulate_prints_one_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    synthetic.experiment(tmp_path, requests=50)
    code, out, _ = run(capsys, "simulate", "scenario.yaml", "--precision", "50%", "--out", "run", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["policies"]["local"].keys() > KEYS
    assert document["precision"]["asked"] == 0.5
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["policies"] == document["policies"]


@pytest.mark.parametrize("text", ["x", "0", "200%", "-1%", ""])
def test_a_wrong_precision_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    synthetic.experiment(tmp_path)
    code, _, err = run(capsys, "simulate", "scenario.yaml", "--precision", text)
    assert code == 2
    assert err.startswith("error: --precision")
    assert len(err.splitlines()) == 1
