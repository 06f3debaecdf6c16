"""The benchmark's quick mode, small: every contestant that needs no installing, and what keeps others out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import peers, race, scenario, simulator
from benchmarks.contestants import CONTESTANTS, REFERENCE, Contestant
from benchmarks.errors import LeftOut


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What the command prints with --json."""
    assert simulator.main(["--quick", "--json", "--requests", "300", "--rounds", "1", *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_quick_document_has_a_speed_for_everyone_who_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "--no-peers", "--only", "simpy-resources,simpy-fewest,splitexit-simpy")
    assert (found["requests"], found["rounds"], found["left_out"]) == (300, 1, {})
    assert set(found["requests_per_s"]) == {REFERENCE, "simpy-fewest", "splitexit-simpy"}
    assert all(per_s > 0 for per_s in found["requests_per_s"].values())
    assert found["ratios"][REFERENCE] == 1.0
    assert all(0 <= s <= race.TOLERANCE_S for s in found["largest_difference_s"].values())
    assert all(mb > 1 for mb in found["peak_mb"].values())
    assert found["machine"]["cpu"]


def test_the_policy_that_is_asked_again_simulates_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "--no-peers", "--only", "splitexit-simpy-asked-again")
    assert set(found["requests_per_s"]) == {REFERENCE, "splitexit-simpy-asked-again"}


def test_who_cannot_run_is_left_out_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """YAFS is on no package index, and the folder that is given is no checkout of it."""
    for given, says in (([], "--yafs FOLDER"), (["--yafs", str(tmp_path)], "expects a checkout")):
        found = document(capsys, "--only", "yafs", *given)
        assert set(found["requests_per_s"]) == {REFERENCE}
        assert says in found["left_out"]["yafs"]
        assert "\n" not in found["left_out"]["yafs"]


def test_the_table_has_a_line_for_everyone(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulator.main(["--requests", "50", "--rounds", "1", "--only", "yafs"]) == 0
    out = capsys.readouterr().out
    assert "SimPy, a process per request" in out
    assert "1.00" in out
    assert "left out: on no package index" in out


def test_what_cannot_be_installed_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "_python", lambda: "false")
    with pytest.raises(LeftOut, match=r"ciw could not be installed: code 1"):
        peers._install.__wrapped__("ciw")


def test_another_answer_is_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(race, "TOLERANCE_S", -1.0)
    assert simulator.main(["--quick", "--requests", "50", "--rounds", "1", "--only", REFERENCE]) == 1
    assert "response times differ" in capsys.readouterr().err


def test_a_contestant_that_breaks_is_left_out(tmp_path: Path) -> None:
    broken = Contestant("broken", "Broken", "no_such_module")
    found = race.race([CONTESTANTS[0], broken], scenario.arrivals, 20, 1, tmp_path)
    assert "no_such_module" in found.left_out["broken"]


def test_many_devices_are_measured_beside_one(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "--devices", "200", "--requests", "650")
    assert (found["benchmark"], found["devices"], found["cells"], found["requests"]) == ("devices", 200, 2, 600)
    assert found["ratio"] == found["requests_per_s"]["many-devices"] / found["requests_per_s"]["one-device"]
    assert simulator.main(["--devices", "100", "--requests", "1", "--rounds", "1"]) == 0
    assert "100 devices on 1 cells" in capsys.readouterr().out


WRONG = (["--requests", "-1"], ["--rounds", "0"], ["--only", "nobody"], ["--devices", "7"])


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_options_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        simulator.main(arguments)
    assert caught.value.code == 2
    assert "expected" in capsys.readouterr().err


def test_fewer_arrivals_are_the_first_of_more() -> None:
    """So that a contestant that simulates more requests can be compared on the first of them."""
    np.testing.assert_array_equal(scenario.arrivals(200), scenario.arrivals(1000)[:200])


def test_every_package_is_pinned() -> None:
    needed = {c.package for c in CONTESTANTS if c.package and c.package != peers.YAFS} | set(peers.NEEDED_BY_YAFS)
    assert all(peers._pin(package)[0].isdigit() for package in needed)
