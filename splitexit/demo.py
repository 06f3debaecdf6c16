"""The main job in one go: devices and an edge in processes, shaped links between them, then the simulation.

It measures what the model costs on this machine, starts a `splitexit.live.deployment`, has the devices classify the
bundle's sample images under one policy after the other, and then simulates the same requests. Both worlds share
arrivals, samples, service times and policy objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from splitexit.compare import Run, as_run, run_once
from splitexit.errors import ProcessError
from splitexit.experiment import Experiment
from splitexit.fleet import require_live
from splitexit.live.deployment import Deployment
from splitexit.policies import OmniscientPolicy
from splitexit.rehearsal import calibrate_for
from splitexit.results import column, marked, to_table
from splitexit.scenario import Scenario

Say = Callable[[str], None]

REHEARSAL_S = 6.0


@dataclass(frozen=True)
class Demonstration:
    """What was measured and what was simulated, per policy, with the processes that did it."""

    experiment: Experiment
    seed: int
    measured: dict[str, Run]
    simulated: dict[str, Run]
    pids: Mapping[str, int]
    interrupted: bool = False

    @cached_property
    def lines(self) -> dict[str, dict[str, Any]]:
        """Per policy: accuracy, measured and simulated response times, and the difference of the means."""
        return {policy: self._line(policy) for policy in self.measured}

    def _line(self, policy: str) -> dict[str, Any]:
        measured, simulated = self.measured[policy].summary, self.simulated[policy].summary
        real, model = measured["response_ms"], simulated["response_ms"]
        return {
            "accuracy": measured["accuracy"],
            "simulated_accuracy": simulated["accuracy"],
            "requests": measured["requests"],
            "offload_rate": measured["offload_rate"],
            "measured_ms": real,
            "simulated_ms": model,
            "error_percent": 100.0 * (model["mean"] - real["mean"]) / real["mean"],
            "overrun_rate": measured["overrun_rate"],
        }

    def document(self) -> dict[str, Any]:
        """The content of summary.json and of `--json`."""
        return {
            "scenario": self.experiment.scenario.name,
            "seed": self.seed,
            "device_pid": self.pids["device 0"],
            "edge_pid": self.pids["edge"],
            "pids": dict(self.pids),
            "policies": self.lines,
        }

    def table(self) -> pa.Table:
        """All rows: the measured ones, then the simulated ones, with the columns `world` and `policy` in front."""
        worlds = (("live", self.measured), ("simulated", self.simulated))
        tables = [
            marked(run.table, world=world, policy=policy) for world, runs in worlds for policy, run in runs.items()
        ]
        return pa.concat_tables(tables)


def live_policies(scenario: Scenario) -> list[str]:
    """The scenario's policies that a real device can follow."""
    return [label for label, spec in scenario.policies.items() if not isinstance(spec.create(), OmniscientPolicy)]


def demonstrate(scenario: Scenario, folder: Path, seconds: float, requests: int | None, say: Say) -> Demonstration:
    """Runs everything; `folder` gets the calibration of this machine.

    Args:
        seconds: how long the live runs may take together; decides the number of requests where that is None.
        say: told, in a line each, what is happening.

    Raises:
        InputError: the scenario, its bundle or its samples do not fit.
        ProcessError: a process did not start, or ended before its time.
    """
    require_live(scenario)
    policies, seed = live_policies(scenario), scenario.seed
    rehearsed = scenario.policy_label if scenario.policy_label in policies else policies[0]
    host = calibrate_for(scenario, rehearsed, say=say, longest_s=REHEARSAL_S)
    host.save(folder / "calibration.json")
    with Deployment.open(scenario, host=host, say=say) as deployment:
        experiment, pids = deployment.experiment, dict(deployment.pids)
        count = requests or _affordable(experiment, policies, seed, seconds)
        measured = _measure(deployment, policies, seed, count, say)
    say("simulating the same requests")
    simulated = {policy: run_once(experiment, policy, seed, count) for policy in measured}
    return Demonstration(experiment, seed, measured, simulated, pids, len(measured) < len(policies))


def _measure(deployment: Deployment, policies: Sequence[str], seed: int, count: int, say: Say) -> dict[str, Run]:
    """The live runs; Ctrl-C ends them, and what was measured till then is kept if it is anything."""
    measured: dict[str, Run] = {}
    try:
        for policy in policies:
            say(f"live: {policy}, {count} images")
            live = deployment.run(policy, seed, count)
            if live.interrupted:
                raise KeyboardInterrupt
            if live.failed:
                raise ProcessError("; ".join(live.failed.values()))
            table = to_table(live.rows, deployment.experiment.schema)
            measured[policy] = as_run(deployment.experiment, policy, seed, table)
    except KeyboardInterrupt:
        if not measured:
            raise
        say(f"interrupted; keeping {', '.join(measured)}")
    return measured


def _affordable(experiment: Experiment, policies: Sequence[str], seed: int, seconds: float) -> int:
    """How many requests per device and policy fit into the time, by a short simulation."""
    probe = 30
    spans = [column(run_once(experiment, policy, seed, probe).table, "done_s").max() for policy in policies]
    return max(10, min(experiment.scenario.requests, int(probe * seconds / sum(spans))))
