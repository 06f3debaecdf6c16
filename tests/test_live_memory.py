"""What a live device says of its decisions, and what its policy keeps between runs."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from splitexit import memory
from splitexit.bundle import Bundle
from splitexit.cli.device import _keep, _recall
from splitexit.cli.live_output import decision_line
from splitexit.experiment import Experiment
from splitexit.policies.local import Local
from splitexit.policies.random import Random
from splitexit.results import decisions
from splitexit.streams import POLICY, stream
from tests import synthetic
from tests.live_process import run

POLICIES = {"random": "random", "local": "local"}


def prepared(world: Experiment, seed: int = 0) -> Random:
    policy = Random()
    policy.prepare(world.setting(), stream(seed, POLICY, 0))
    return policy


def test_a_device_goes_on_where_it_stopped(live_bundle: Bundle, tmp_path: Path) -> None:
    """Two runs with one memory: the second goes on in the stream of chance; both say how long decisions took."""
    changes = {
        "bundle": str(live_bundle.path),
        "policies": POLICIES,
        "requests": 12,
        "devices__arrivals__rate_hz": 60.0,
    }
    scenario, kept = synthetic.write_scenario(tmp_path, **changes), tmp_path / "memory.json"
    states = []
    for said in ("does not exist yet", f"_rng read from {kept}"):
        options = ("--policy", "random", "--memory", kept, "--out", tmp_path / "run", "--json")
        done = run("device", scenario, "--edge", "127.0.0.1:9", *options)
        assert done.returncode == 0, done.stderr
        assert said in done.stderr.replace("\n", "")
        document = json.loads(done.stdout)
        assert document["decision_us"]["count"] == 12
        assert 0 < document["decision_us"]["p50"] <= document["decision_us"]["p99"]
        states.append(kept.read_text())
    assert states[0] != states[1]


def test_what_is_kept_is_what_was_learned(tmp_path: Path) -> None:
    world, file = synthetic.experiment(tmp_path), tmp_path / "memory.json"
    with Console(file=(tmp_path / "said").open("w"), width=200) as console:
        first, second = prepared(world), prepared(world, seed=1)
        first._rng.random(7)
        _keep(first, file, console)
        _recall(second, file, console)
        assert memory.state(second) == memory.state(first)
        _keep(second, None, console)
        _recall(Local(), file, console)
        before = file.read_text()
        _keep(Local(), file, console)
    assert file.read_text() == before
    said = (tmp_path / "said").read_text().splitlines()
    assert said == [
        f"memory: written to {file}",
        f"memory: _rng read from {file}",
        f"memory: this policy remembers nothing; {file} is left alone",
    ]


def test_decisions_in_short() -> None:
    """By hand: 1 to 100 µs."""
    took = decisions([1000 * of for of in range(1, 101)])
    assert (took["count"], took["p50"]) == (100, 50.5)
    assert decision_line(took) == "decisions: p50 50.5 µs, p99 99.0 µs, of 100"
    assert decision_line(decisions([])) == "decisions: none"
