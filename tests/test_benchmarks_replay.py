"""The benchmark of replays, on logs that were simulated."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from benchmarks import replay as benchmark
from splitexit.report.stored import StoredRun
from splitexit.scenario import load
from tests import synthetic
from tests.test_replay import stored

QUIET = {"spread_percent": 1.0, "median_ms": 5.0, "load_average": 0.1}


@pytest.fixture
def found(tmp_path: Path) -> benchmark.Document:
    """The line of a case that was simulated twice, so that nothing is unknown but the link."""
    logs = {
        policy: [
            StoredRun.open(stored(tmp_path / f"{policy}-{n}", synthetic.experiment(tmp_path, requests=100), [policy]))
            for n in range(2)
        ]
        for policy in ("offload", "split")
    }
    return benchmark.line(benchmark.Case("made up", "none", ("offload", "split")), "offload", "split", logs, QUIET)


def test_a_line_compares_what_is_predicted_with_what_was_measured(found: benchmark.Document) -> None:
    assert abs(found["error_percent"]) < 1.0
    assert abs(found["self_check_percent"]) < 1.0
    assert found["spread_percent"] == 0.0
    assert found["measured_share"] == pytest.approx(1.0)
    assert found["predicted_ms"] == pytest.approx(found["measured_ms"], rel=0.01)
    assert len(found["errors_percent"]) == 2


def test_the_table_says_what_is_within_the_target(found: benchmark.Document) -> None:
    off = {**found, "error_percent": 12.0, "spread_percent": 20.0}
    options = argparse.Namespace(network="proxy", repeat=2, markdown=False)
    text = benchmark.shown([found, off], options)
    assert "1 of 2 predicted means within 5 %; error" in text
    assert "12.0 % (worst)" in text
    assert text.splitlines()[2].endswith("noisy")
    assert benchmark.shown([found], argparse.Namespace(network="tun", repeat=2, markdown=True)).startswith("| case |")


def test_cases_are_chosen_by_name() -> None:
    assert [case.name for case in benchmark.chosen("LTE,tram trace")] == ["LTE", "tram trace"]
    with pytest.raises(SystemExit, match="--only nothing: no such case; there are LTE"):
        benchmark.chosen("nothing")


@pytest.mark.parametrize("case", benchmark.CASES, ids=lambda case: case.name)
def test_every_case_has_its_policies(case: benchmark.Case) -> None:
    whole, quick = benchmark.opened(case, False), benchmark.opened(case, True)
    for policy in case.policies:
        whole.policy(policy)
    assert quick.requests == max(20, whole.requests // 4)
    assert whole == load(whole.file, case.changes)
