"""What else a live run costs on this machine: a rehearsal over steady links, beside its simulation.

A calibration takes one part after the other in a process that does nothing else. In a live run a part comes after a
pause, in a process with other threads, whose caches hold other things; a message wakes processes that sleep, and wakes
them while the rest of it is still on its way. So before a run the same scenario runs for a while with another seed,
without its events, over links of constant rate and delay. The proxies keep to those within a per cent: what a call
takes beyond a simulation in which calls cost nothing is what a call costs here (`Calibration.rpc`). Over real TCP the
links have no rate, because how TCP fills one is for the simulator to foretell. What native sides took, relative to the
simulation, is how much slower they are in place (`Calibration.live`). Only requests count that found everything idle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from splitexit.bundle import Bundle
from splitexit.calibration import Calibration, Distribution
from splitexit.compare import run_once
from splitexit.corun import is_native, sharing_cores
from splitexit.errors import ProcessError
from splitexit.experiment import HOST, Experiment
from splitexit.live.deployment import Deployment
from splitexit.live.host import WIDE, calibrate_host
from splitexit.results import DEVICE, EDGE, LOCAL, column, to_table
from splitexit.scenario import Scenario, Spec
from splitexit.scenario.spec import Folders, parse

Say = Callable[[str], None]
Array = np.ndarray[Any, Any]

SEED_APART = 1_000_003
"""Between the seeds of a run and of its rehearsal."""

PROBE, CALLS = 50, 150
"""Requests of each device simulated to plan, and calls to be made if time allows."""

LONGEST_S = 12.0

FEW = 20
"""With fewer samples the calibration stays as it was."""

IDLE_S = 1e-3
"""Who waits less found nobody in front; a thread takes some 0.1 ms to wake up."""


def calibrate_for(
    scenario: Scenario, policy: str, network: str = "proxy", say: Say = lambda line: None, longest_s: float = LONGEST_S
) -> Calibration:
    """This machine's calibration for live runs of a scenario through such a network.

    Args:
        policy: a label; whose requests are rehearsed.
        network: a name of splitexit.live.network.NETWORKS.
        longest_s: how long the rehearsal may take.

    Raises:
        InputError: the scenario, its bundle or its samples do not fit.
        ProcessError: a process did not start, or ended before its time.
        KeyboardInterrupt: by Ctrl-C.
    """
    say("measuring what the model costs on this machine")
    host = calibrate_host(Bundle.open(scenario.bundle), network=network)
    steady, seed = steadied(scenario, rated=network == "proxy"), scenario.seed + SEED_APART
    requests = _affordable(Experiment.open(steady, host), policy, seed, longest_s)
    if not requests:  # nothing is native, and nothing is sent
        return host
    say(f"rehearsing {policy} over steady links, {requests} requests of each device")
    with Deployment.open(steady, host=host, network=network) as deployment:
        live = deployment.run(policy, seed, requests)
        if live.interrupted:
            raise KeyboardInterrupt
        if live.failed:
            raise ProcessError("; ".join(live.failed.values()))
        free = replace(deployment.experiment, host=without_calls(host))
    experiment = sharing_cores(free, policy, seed, requests)
    simulated = run_once(experiment, policy, seed, requests).table
    return learned(host, experiment, _in_order(to_table(live.rows)), _in_order(simulated))


def steadied(scenario: Scenario, rated: bool) -> Scenario:
    """The same without events, over links that always have their mean rate and delay.

    Args:
        rated: whether they have a rate at all.
    """

    def steady(link: Spec) -> Spec:
        made = link.create()
        mbps = made.mean_bps / 1e6 if rated else WIDE["mbps"]
        spec = {"name": WIDE["name"], "mbps": mbps, "delay_ms": 1e3 * made.delay_s}
        return parse("link", spec, Folders(Path(), Path()))

    relinked = scenario.relinked(lambda up, down: (steady(up), steady(down)))
    return relinked.model_copy(update={"events": ()})


def without_calls(host: Calibration) -> Calibration:
    """The calibration with calls that take no time."""
    return replace(host, rpc=replace(host.rpc, seconds=Distribution.constant(0.0)))


def _affordable(experiment: Experiment, policy: str, seed: int, longest_s: float) -> int:
    """Requests of each device, by a simulation of a few; 0 where nothing can be learned."""
    rows = run_once(experiment, policy, seed, PROBE).table
    sent = float((column(rows, "split") != LOCAL).mean())
    if not sent and not is_native(experiment):
        return 0
    span_s = float(column(rows, "done_s").max()) / PROBE
    return max(10, min(int(CALLS / max(sent, 1e-3)), int(longest_s / span_s)))


def _in_order(table: pa.Table) -> pa.Table:
    return table.sort_by([("device", "ascending"), ("request", "ascending")])


def learned(host: Calibration, experiment: Experiment, live: pa.Table, simulated: pa.Table) -> Calibration:
    """The calibration with what a rehearsal says of calls, and of native parts.

    Args:
        experiment: what was simulated, with calls that take no time.
        live, simulated: rows of the same requests, in the same order.
    """
    found, expected = _Costs.of(live), _Costs.of(simulated)
    alike = (found.split == expected.split) & (found.exit == expected.exit) & found.idle & expected.idle
    sent = alike & (found.split != LOCAL)
    native = [group.config.hardware == HOST for group in experiment.groups]
    groups = [experiment.group(device).number for device in column(live, "device").tolist()]
    factors = {}
    for side, took, simple, rows in (
        (DEVICE, found.device_s, expected.device_s, alike & np.array(native)[groups]),
        (EDGE, found.edge_s, expected.edge_s, sent & (experiment.scenario.edge.hardware == HOST)),
    ):
        if rows.sum() >= FEW:
            factors[side] = float(f"{took[rows].sum() / simple[rows].sum():.4g}")
    calls, rpc = int(sent.sum()), host.rpc
    if calls >= FEW:
        beyond_s = np.maximum(found.call_s - expected.call_s, 0.0)[sent]
        rpc = replace(rpc, seconds=Distribution.measured(beyond_s.tolist()))
    made = {**host.made, "rehearsal": {"requests": len(live), "idle": int(alike.sum()), "calls": calls}}
    return replace(host, rpc=rpc, live=factors, made=made)


class _Costs(NamedTuple):
    """What the requests of a table took; together the response.

    device_s  from its arrival on, without the call
    call_s    the network, and what it takes until an idle edge begins
    edge_s    computing at the edge
    idle      whether it waited for nobody, and was not lost
    """

    split: Array
    exit: Array
    device_s: Array
    call_s: Array
    edge_s: Array
    idle: Array

    @classmethod
    def of(cls, rows: pa.Table) -> _Costs:
        """Of every row."""
        edge_wait_s, edge_s = column(rows, "edge_wait_s"), column(rows, "edge_compute_s")
        call_s = column(rows, "network_s") + edge_wait_s
        device_s = column(rows, "done_s") - column(rows, "arrival_s") - call_s - edge_s
        device_wait_s = column(rows, "start_s") - column(rows, "arrival_s")
        failed = column(rows, "lost_reply") | column(rows, "shed")
        idle = ~failed & (device_wait_s < IDLE_S) & (edge_wait_s < IDLE_S)
        return cls(column(rows, "split"), column(rows, "exit"), device_s, call_s, edge_s, idle)
