"""One simulated run: every device of a scenario under one policy and one seed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from splitexit.experiment import Experiment
from splitexit.results import Completion
from splitexit.sim.calendar import Calendar
from splitexit.sim.device import Device
from splitexit.sim.edge import Edge


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
    edge = Edge(calendar, experiment.scenario.edge.workers)
    for number in range(experiment.scenario.devices.count):
        decider = experiment.decider(policy, seed, number)
        workload = experiment.workload(seed, number, requests)
        Device(calendar, edge, experiment, seed, workload, decider, rows.append).take_next()
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
