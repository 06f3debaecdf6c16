"""benchmarks/fidelity.py, with made-up validations: what it keeps, what it prints, and which targets it holds it to."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import fidelity
from benchmarks.fidelity import Failed, Line, Table, cells, markdown, noise, plain
from splitexit.scenario import load
from tests import synthetic

QUIET = {"median_ms": 5.0, "spread_percent": 1.5, "load_average": 0.1}
CALM = {"name": "constant", "mbps": 100.0, "delay_ms": 1.0}


def time_metric(error: float, in_band: bool = True, noisy: bool = False) -> dict[str, Any]:
    """Of a response time."""
    return {
        "measured_ms": 50.0,
        "simulated_ms": 50.0 + error / 2,
        "error_percent": error,
        "spread_percent": 0.7,
        "in_band": in_band,
        "noisy": noisy,
    }


def document(
    mean: float = 1.0, p95: float = -2.0, points: float = 0.0, load: float | None = 0.4, **more: Any
) -> dict[str, Any]:
    """What validate would say."""
    return {
        "scenario_sha256": "",
        "policy": "split",
        "network": "proxy",
        "devices": 2,
        "repetitions": 3,
        "interrupted": False,
        "load": {"bottleneck": "edge", "utilisation": load},
        "metrics": {
            "mean": time_metric(mean, more.pop("in_band", True), more.pop("noisy", False)),
            **{name: time_metric(p95) for name in ("p50", "p95", "p99")},
            **{name: {"error_points": points, "in_band": True} for name in ("accuracy", "offload_rate")},
        },
        **more,
    }


def line(name: str = "one", native: bool = False, **of: Any) -> Line:
    """One scenario's result."""
    return Line(name, native, document(**of), QUIET)


def missed(*lines: Line) -> list[str]:
    """The texts of the targets that are missed."""
    return [target.text for target in Table(lines, "proxy").targets if not target.met]


# Targets


def test_small_errors_meet_every_target() -> None:
    lines = [line(), line(load=0.8), line(native=True)]
    assert missed(*lines) == []
    assert len(Table(lines, "proxy").targets) == 6


@pytest.mark.parametrize(
    ("found", "what"),
    [
        ({"mean": 2.1}, "paced, load up to 70 %: median error of the mean"),
        ({"p95": -5.1}, "paced, load up to 70 %: median error of p95"),
        ({"points": -0.3}, "accuracy and share sent, worst difference"),
        ({"load": 0.71, "in_band": False}, "paced, load above 70 %: scenarios whose mean is outside the band"),
        ({"native": True, "mean": -5.1}, "native: median error of the mean"),
    ],
)
def test_every_target_can_be_missed(found: dict[str, Any], what: str) -> None:
    (text,) = missed(line(**found))
    assert text.startswith(what)


def test_one_bad_scenario_is_forgiven_by_the_median_but_not_by_the_worst() -> None:
    (text,) = missed(line(), line(), line(mean=6.5))
    assert "worst error of the mean" in text


def test_high_load_is_judged_by_the_band_alone() -> None:
    assert missed(line(load=0.9, mean=20.0)) == []


def test_an_edge_that_batches_has_no_known_load() -> None:
    assert line(load=None).kind == "paced"
    assert cells(line(load=None))[2] == "edge"


def test_policies_that_follow_their_estimates_may_send_another_share() -> None:
    assert missed(line(points=1.0, policy="neurosurgeon")) == []


def test_an_unknown_error_misses_its_target() -> None:
    entry = line()
    entry.document["metrics"]["mean"]["error_percent"] = None
    assert any("mean" in text for text in missed(entry))


# Tables


def test_every_scenario_has_a_line_under_the_headings() -> None:
    shown = plain([list(fidelity.HEADS), cells(line(noisy=True)), cells(line("two", load=0.8, in_band=False))])
    head, one, two = shown.splitlines()
    assert head.startswith("scenario")
    assert one.split() == [
        "one",
        "2",
        "edge",
        "40%",
        "split",
        "50.0",
        "[0.7",
        "%]",
        "50.5",
        "+1.0",
        "%",
        "-2.0",
        "%",
        "-2.0",
        "%",
        "-2.0",
        "%",
        "+0.00",
        "+0.00",
        "yes",
        "noisy",
    ]
    assert two.endswith("no")
    assert head.index("policy") == one.index("split") == two.index("split")


def test_a_readme_gets_markdown() -> None:
    head, rule, row = markdown([["a", "b"], ["1", "2"]]).splitlines()
    assert (head, rule, row) == ("| a | b |", "|---|---|", "| 1 | 2 |")


def test_it_says_what_it_was_measured_on() -> None:
    text = fidelity.shown(Table([line()], "tun"), as_markdown=False)
    assert "network tun; medians of 3 repetitions" in text
    assert "varied by 1.5 %" in text
    assert "cores" in text
    assert "median error of the mean, %: 1.00 (at most 2): met" in text


def test_noise_is_that_of_a_fixed_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.001, 0.010, *([0.010] * 50 + [0.020] * 50)])
    monkeypatch.setattr(fidelity, "_timed_s", lambda matrix, rounds: next(seconds))
    found = noise()
    assert found["median_ms"] == pytest.approx(15.0)
    assert found["spread_percent"] == pytest.approx(100 * 10 / 15)
    monkeypatch.undo()
    assert noise()["median_ms"] > 0.0


# The command


class Validations:
    """Takes the place of `splitexit validate`."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.fails: set[str] = set()

    def __call__(self, file: Path, folder: Path, arguments: Sequence[str]) -> dict[str, Any]:
        self.calls.append([file.stem, *arguments])
        if file.stem in self.fails:
            raise Failed(f"{file.stem}: exit code 1")
        folder.mkdir(parents=True, exist_ok=True)
        given = dict(zip(arguments[::2], arguments[1::2], strict=True))
        overrides = [given["--set"]] if "--set" in given else []
        return document(
            scenario_sha256=load(file, overrides).digest(),
            network=given["--network"],
            repetitions=int(given["--repeat"]),
        )


@pytest.fixture
def validations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Validations:
    """Two scenarios in a folder, one of them native."""
    for name, hardware in (("calm", "raspberry-pi-4"), ("native", "host")):
        (tmp_path / name).mkdir()
        synthetic.experiment(tmp_path / name, devices__hardware=hardware, edge__hardware="raspberry-pi-4", name=name)
        text = (tmp_path / name / "scenario.yaml").read_text().replace("bundle: bundle", f"bundle: {name}/bundle")
        (tmp_path / f"{name}.yaml").write_text(text)
    found = Validations()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fidelity, "SCENARIOS", tmp_path)
    monkeypatch.setattr(fidelity, "validate", found)
    monkeypatch.setattr(fidelity, "noise", lambda: QUIET)
    return found


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What --json prints."""
    assert fidelity.main(["--json", *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_it_runs_all_scenarios(validations: Validations, capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys)
    assert {name: entry["kind"] for name, entry in found["scenarios"].items()} == {"calm": "paced", "native": "native"}
    assert validations.calls == [[name, "--network", "proxy", "--repeat", "3"] for name in ("calm", "native")]
    assert (found["failed"], found["noise_percent"], found["network"]) == ([], 1.5, "proxy")
    assert all(target["met"] for target in found["targets"])


def test_what_is_finished_is_not_run_again(validations: Validations, capsys: pytest.CaptureFixture[str]) -> None:
    first = said(capsys)
    assert said(capsys) == first
    assert len(validations.calls) == 2
    said(capsys, "--repeat", "2")
    assert len(validations.calls) == 4, "measured another number of times"
    Path("calm.yaml").write_text(Path("calm.yaml").read_text().replace("requests: 300", "requests: 301"))
    said(capsys, "--repeat", "2")
    assert [call[0] for call in validations.calls[4:]] == ["calm"], "another scenario by now"


def test_quick_is_shorter_and_kept_elsewhere(validations: Validations, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "--quick", "--only", "calm", "--network", "tun")
    assert validations.calls == [["calm", "--network", "tun", "--repeat", "1", "--set", "requests=100"]]
    assert Path("runs/fidelity-tun-quick/calm/fidelity.json").exists()


def test_a_failure_is_named_and_the_rest_goes_on(validations: Validations, capsys: pytest.CaptureFixture[str]) -> None:
    validations.fails = {"calm"}
    assert fidelity.main([]) == 1
    out, err = capsys.readouterr()
    assert "native" in out
    assert "failed: calm: exit code 1" in err
    validations.fails = {"calm", "native"}
    assert fidelity.main(["--results", "other", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["failed"] == ["calm: exit code 1", "native: exit code 1"]


def test_a_missed_target_is_the_exit_code(
    validations: Validations, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fidelity, "MEAN_MEDIAN", 0.5)
    assert fidelity.main(["--only", "calm", "--markdown"]) == 1
    assert (
        "- paced, load up to 70 %: median error of the mean, %: 1.00 (at most 0.5): MISSED" in capsys.readouterr().out
    )


def test_an_unknown_scenario_ends_it(validations: Validations) -> None:
    with pytest.raises(SystemExit, match=r"--only cal: no such scenario; there are calm, native"):
        fidelity.main(["--only", "cal"])


def test_a_validation_that_fails_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Failed, match="nowhere: exit code 2"):
        fidelity.validate(tmp_path / "nowhere.yaml", tmp_path / "out", [])
    assert "nowhere.yaml" in capfd.readouterr().err


def test_results_of_another_network_are_not_taken(tmp_path: Path) -> None:
    scenario = synthetic.experiment(tmp_path).scenario
    options = argparse.Namespace(network="tun", repeat=3)
    ran = document(scenario_sha256=scenario.digest(), network="tun")
    assert fidelity._is_of(ran, scenario, options)
    assert not fidelity._is_of({**ran, "network": "proxy"}, scenario, options)
    assert not fidelity._is_of({**ran, "interrupted": True}, scenario, options)
