"""The drift alarm: a live run that was stored once is still foretold, by the simulator and by the in-process pair.

Whoever changes what a request takes in either world hears of it here, without a process and without a clock. How the
run was recorded, and when to do it anew, stands in tests/data/README.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from splitexit.cli import run
from splitexit.compare import as_run, run_once
from splitexit.corun import SharedCores
from splitexit.experiment import Experiment
from splitexit.report.stored import StoredRun
from splitexit.results import column, to_table
from splitexit.summary import Summariser
from splitexit.validate import Measured, figures, measured_before

FOLDER = Path(__file__).parent / "data" / "live-run"

MEAN_PERCENT, P95_PERCENT = 3.0, 6.0
"""How far the worlds may be from the stored run. A calibration that is a tenth off is further from it."""

World = Callable[[Experiment, str, int], Any]


@pytest.fixture(scope="module")
def measured() -> Measured:
    """What was stored."""
    return measured_before(StoredRun.open(FOLDER))


def simulator(experiment: Experiment, policy: str, seed: int) -> Any:
    """Rows of the simulator."""
    return run_once(experiment, policy, seed).table


def pair(experiment: Experiment, policy: str, seed: int) -> Any:
    """Rows of a device and an edge in this process, with torch, on the same links in virtual time."""
    pytest.importorskip("torch")
    pytest.importorskip("grpc")
    from splitexit.live.images import open_images
    from splitexit.live.model import LiveModel
    from splitexit.live.pair import run_pair

    pairs = [(split, codec) for split, codecs in experiment.setting().codecs.items() for codec in codecs]
    model = LiveModel.open(experiment.bundle, pairs)
    return to_table(run_pair(experiment, policy, seed, model, open_images(experiment.bundle)))


def errors(measured: Measured, experiment: Experiment, world: World) -> dict[str, float]:
    """Of mean and p95 in percent, of accuracy and offload rate in points."""
    (real,) = measured.runs
    foretold = as_run(experiment, real.policy, real.seed, world(experiment, real.policy, real.seed))
    there, here = (figures(Summariser(experiment), of) for of in (real, foretold))
    found = {name: 100.0 * (here[name] / there[name] - 1.0) for name in ("mean", "p95")}
    return found | {name: 100.0 * (here[name] - there[name]) for name in ("accuracy", "offload_rate")}


@pytest.mark.parametrize("world", [simulator, pair])
def test_the_stored_run_is_still_foretold(measured: Measured, world: World) -> None:
    found = errors(measured, measured.experiment, world)
    print(found)
    assert abs(found["mean"]) <= MEAN_PERCENT
    assert abs(found["p95"]) <= P95_PERCENT
    assert abs(found["accuracy"]) <= 0.5, "one image in 240 may stand on the threshold on another processor"
    assert abs(found["offload_rate"]) <= 0.5


@pytest.mark.parametrize("world", [simulator, pair])
def test_the_alarm_rings_if_everything_takes_a_tenth_longer(measured: Measured, world: World) -> None:
    slower = SharedCores.of(measured.experiment, [1.1], 1.1)
    assert errors(measured, slower, world)["mean"] > MEAN_PERCENT


def test_the_alarm_rings_if_the_link_is_slower(measured: Measured) -> None:
    scenario = measured.experiment.scenario
    slow = replace(scenario.uplink, parameters={**scenario.uplink.parameters, "delay_ms": 10.0})
    later = replace(measured.experiment, scenario=scenario.model_copy(update={"uplink": slow}))
    assert errors(measured, later, simulator)["mean"] > MEAN_PERCENT


def test_the_command_hears_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["validate", "--against", str(FOLDER), "--seeds-band", "20", "--out", str(tmp_path), "--json"]
    assert run([*arguments, "--max-error", str(P95_PERCENT)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["metrics"]["mean"]["measured_ms"] > 0
    assert run([*arguments, "--max-error", "0.001"]) == 1


def test_what_is_stored_was_a_live_run_that_kept_its_pace() -> None:
    stored = StoredRun.open(FOLDER)
    assert (stored.world, stored.manifest["network"]) == ("live", "proxy")
    assert len(stored.rows) == 240
    assert column(stored.rows, "overrun").mean() <= 0.01
    assert "bundle: ../../../scenarios/data/resnet32-cifar10" in (FOLDER / "config.yaml").read_text()
