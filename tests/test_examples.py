"""Every shipped scenario runs and prints what stands beside it (house rule 12).

The expected figures lie in scenarios/expected; after a change that is meant to move them, write them anew with
`python -m tests.test_examples` and read the difference.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from splitexit.compare import compare
from splitexit.experiment import Experiment
from splitexit.results import rows_sha256
from splitexit.scenario import load

SCENARIOS = Path(__file__).resolve().parents[1] / "scenarios"
FILES = sorted(SCENARIOS.glob("*.yaml"))
SEEDS, REQUESTS = (0, 1), 200


@cache
def figures(path: Path) -> dict[str, Any]:
    """Per policy, what a short comparison says."""
    comparison = compare(Experiment.open(load(path, [f"requests={REQUESTS}"])), _policies(path), SEEDS)
    return {
        policy: {
            "accuracy": round(summary["accuracy"], 4),
            "response_ms": {key: round(value, 3) for key, value in summary["response_ms"].items()},
            "offload_rate": round(summary["offload_rate"], 4),
            "deadline_miss_rate": round(summary["deadline_miss_rate"], 4),
        }
        for policy, summary in comparison.summaries.items()
    }


def _policies(path: Path) -> list[str]:
    return list(load(path).policies)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_prints_what_is_expected(path: Path) -> None:
    expected = json.loads((SCENARIOS / "expected" / f"{path.stem}.json").read_text())
    found = figures(path)
    assert found.keys() == expected.keys()
    for policy, values in expected.items():
        for key, value in values.items():
            assert found[policy][key] == pytest.approx(value, rel=1e-3, abs=1e-3), (policy, key)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_policy_is_best_at_everything(path: Path) -> None:
    """An example is worth shipping where the choice matters: the most accurate is not the fastest."""
    found = {policy: values for policy, values in figures(path).items() if policy != "oracle"}
    fastest = min(found, key=lambda policy: found[policy]["response_ms"]["mean"])
    assert found[fastest]["accuracy"] < max(values["accuracy"] for values in found.values())


def test_the_order_of_policies_changes_nothing() -> None:
    path = FILES[0]
    experiment = Experiment.open(load(path, ["requests=50"]))
    labels = _policies(path)
    forth, back = compare(experiment, labels, [3]), compare(experiment, labels[::-1], [3])
    for label in labels:
        assert rows_sha256(forth.of(label)[0].table) == rows_sha256(back.of(label)[0].table)


if __name__ == "__main__":
    for file in FILES:
        target = SCENARIOS / "expected" / f"{file.stem}.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(figures(file), indent=1) + "\n")
        print(target)
