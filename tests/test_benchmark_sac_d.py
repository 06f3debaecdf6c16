"""The benchmark of SAC-d compares on the same seeds, and fails where nothing was won."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("gymnasium")

from benchmarks import sac_d


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sac_d, "SCENARIO", sac_d.SCENARIO.replace("requests: 500", "requests: 8"))
    options = ["--steps=20", "--trainings=2", "--seeds=3", "--first-seed=7", "--codecs=png"]
    monkeypatch.setattr(sys, "argv", ["sac_d.py", *options])


def test_its_document(few: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Networks that learned nothing yet do not win, which is its exit code."""
    with pytest.raises(SystemExit) as left:
        sac_d.main()
    found = json.loads(capsys.readouterr().out)
    assert left.value.code == (min(t["difference"]["low"] for t in found["trainings"]) <= 0)
    assert (found["steps"], found["seeds"], found["requests_per_seed"]) == (20, [7, 9], 8)
    assert {name.partition(", ")[2] for name in found["fixed"]} == {"", "png@0"}
    assert found["fixed"][found["best_fixed"]["action"]] == max(found["fixed"].values())
    assert [training["seed"] for training in found["trainings"]] == [0, 1]
    means = [training["mean"] for training in found["trainings"]]
    assert found["sac_d"]["mean"] == pytest.approx(np.mean(means))
    assert found["difference"]["mean"] == pytest.approx(np.mean(means) - found["best_fixed"]["mean"])
