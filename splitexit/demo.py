"""The main job in one go: a device and an edge in two processes, a shaped link between them, then the simulation.

This process is the device. It measures what the model costs on this machine, starts `splitexit serve` and
`splitexit link`, classifies the bundle's sample images under one policy after the other, and then simulates the
same requests. Both worlds share arrivals, samples, service times and policy objects.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from splitexit.bundle import Bundle
from splitexit.compare import Run, as_run, run_once
from splitexit.errors import EdgeUnavailableError, InputError, UsageError
from splitexit.experiment import Experiment
from splitexit.fleet import require_single
from splitexit.live.address import Address
from splitexit.live.client import EdgeClient
from splitexit.live.host import calibrate_host
from splitexit.live.run import Station
from splitexit.policies import OmniscientPolicy
from splitexit.results import Completion, column, to_table
from splitexit.scenario import Scenario

Say = Callable[[str], None]


@dataclass(frozen=True)
class Demonstration:
    """What was measured and what was simulated, per policy, with the processes that did it."""

    experiment: Experiment
    seed: int
    measured: dict[str, Run]
    simulated: dict[str, Run]
    device_pid: int
    edge_pid: int
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
            "device_pid": self.device_pid,
            "edge_pid": self.edge_pid,
            "policies": self.lines,
        }

    def table(self) -> pa.Table:
        """All rows: the measured ones, then the simulated ones, with the columns `world` and `policy` in front."""
        worlds = (("live", self.measured), ("simulated", self.simulated))
        tables = [_marked(run.table, world, policy) for world, runs in worlds for policy, run in runs.items()]
        return pa.concat_tables(tables)


def _marked(table: pa.Table, world: str, policy: str) -> pa.Table:
    for name, value in (("policy", policy), ("world", world)):
        table = table.add_column(0, name, pa.array([value] * len(table)))
    return table


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
        EdgeUnavailableError: a process did not start.
    """
    require_single(scenario)
    if scenario.devices.count != 1:
        raise UsageError(f"the demo runs one device, the scenario has devices.count {scenario.devices.count}")
    policies, seed = live_policies(scenario), scenario.seed
    say("measuring what the model costs on this machine")
    host = calibrate_host(Bundle.open(scenario.bundle))
    host.save(folder / "calibration.json")
    station = Station.open(scenario, host=host)
    count = requests or _affordable(station.experiment, policies, seed, seconds)
    with ExitStack() as processes:
        edge, edge_pid = processes.enter_context(_serving(scenario, say))
        link, _ = processes.enter_context(_process("link", _link_arguments(scenario, edge), say))
        client = station.connect(Address.parse(link, "link"), say)
        processes.callback(client.close)
        measured = _measure(station, policies, seed, client, count, say)
    say("simulating the same requests")
    simulated = {policy: run_once(station.experiment, policy, seed, count) for policy in measured}
    interrupted = len(measured) < len(policies)
    return Demonstration(station.experiment, seed, measured, simulated, os.getpid(), edge_pid, interrupted)


def _measure(
    station: Station, policies: Sequence[str], seed: int, client: EdgeClient, count: int, say: Say
) -> dict[str, Run]:
    """The live runs; Ctrl-C ends them, and what was measured till then is kept if it is anything."""
    measured: dict[str, Run] = {}
    try:
        for policy in policies:
            say(f"live: {policy}, {count} images")
            rows: list[Completion] = []
            station.run(policy, seed, client, rows.append, requests=count)
            measured[policy] = as_run(station.experiment, policy, seed, to_table(rows))
    except KeyboardInterrupt:
        if not measured:
            raise
        say(f"interrupted; keeping {', '.join(measured)}")
    return measured


def _affordable(experiment: Experiment, policies: Sequence[str], seed: int, seconds: float) -> int:
    """How many requests per policy fit into the time, by a short simulation."""
    probe = 30
    spans = [column(run_once(experiment, policy, seed, probe).table, "done_s").max() for policy in policies]
    return max(10, min(experiment.scenario.requests, int(probe * seconds / sum(spans))))


def _serving(scenario: Scenario, say: Say) -> Any:
    edge = scenario.edge
    arguments = ["serve", str(scenario.bundle), "--listen", "127.0.0.1:0"]
    arguments += [] if edge.queue is None else ["--queue", str(edge.queue)]
    return _process("edge", [*arguments, "--workers", str(edge.workers), "--hardware", edge.hardware], say)


def _link_arguments(scenario: Scenario, edge: str) -> list[str]:
    return ["link", "--to", edge, "--scenario", str(scenario.file), "--seed", str(scenario.seed)]


@contextmanager
def _process(what: str, arguments: Sequence[str], say: Say) -> Iterator[tuple[str, int]]:
    """A splitexit command that runs until the context ends; gives the address it announced, and its pid."""
    say(f"starting the {what}: splitexit {' '.join(arguments)}")
    command = [sys.executable, "-m", "splitexit", *arguments, "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield _announced(what, process), process.pid
    finally:
        process.terminate()
        try:
            process.communicate(timeout=3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _announced(what: str, process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        _, errors = process.communicate()
        why = " ".join(errors.split()) or "it ended without a word"
        raise EdgeUnavailableError(f"the {what} did not start: {why}")
    try:
        return str(json.loads(line)["address"])
    except (ValueError, KeyError) as error:
        raise InputError(f"the {what} said {line!r}, not its address") from error
