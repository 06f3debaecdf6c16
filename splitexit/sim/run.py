"""One simulated run: every device of a scenario under one policy and one seed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from splitexit.experiment import Experiment
from splitexit.results import EDGE, Completion
from splitexit.sim.calendar import Calendar
from splitexit.sim.device import Device
from splitexit.sim.lane import FifoLane
from splitexit.sim.server import Server
from splitexit.sim.tier import Tier
from splitexit.sim.transport import Transport


def simulate(experiment: Experiment, policy: str, seed: int, requests: int | None = None) -> list[Completion]:
    """Runs the scenario and returns one row per request, in the order of completion.

    Args:
        experiment: the scenario with its files read.
        policy: a label of the scenario's policies.
        seed: decides arrivals, samples, service times and losses; the same for every policy.
        requests: per device, instead of the scenario's number.

    Raises:
        InputError: the policy does not fit the scenario.
    """
    rows: list[Completion] = []
    calendar = Calendar()
    spec = experiment.spec
    edge = Tier(calendar, spec, EDGE, spec.num_stages, lambda number: experiment.edge_times(seed, number), "round-robin")
    edge.servers.append(Server(calendar, edge, experiment.scenario.edge.workers, None))
    for number in range(experiment.scenario.devices.count):
        decider = experiment.decider(policy, seed, number)
        workload = experiment.workload(seed, number, requests)
        device = Device(
            calendar,
            experiment.recording.test,
            experiment.device_times(seed, number),
            workload,
            decider,
            experiment.scenario.devices.pipeline,
            rows.append,
        )
        device.transport = Transport(
            calendar,
            edge,
            FifoLane(calendar, experiment.uplink(seed, number), True),
            FifoLane(calendar, experiment.downlink(seed, number), False),
            experiment.edge_times(seed, number),
            experiment.edge_calibration.rpc,
            device.sense,
            device.heard,
        )
        device.take_next()
    with _no_collection():
        calendar.run()
    return rows


@contextmanager
def _no_collection() -> Iterator[None]:
    """Pauses the collector of cycles: a run makes none, and looking for them takes a fifth of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
