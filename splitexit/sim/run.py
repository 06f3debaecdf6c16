"""One simulated run: every device of a scenario under one policy and one seed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from splitexit.experiment import Experiment
from splitexit.inference import infer
from splitexit.results import Completion
from splitexit.sim.calendar import Calendar
from splitexit.sim.device import Device, Life
from splitexit.sim.world import World


def simulate(
    experiment: Experiment,
    policy: str,
    seed: int,
    requests: int | None = None,
    lives: Callable[[int], Life] = lambda device: infer,
) -> list[Completion]:
    """Runs the scenario and returns one row per request, in the order of completion.

    Args:
        experiment: the scenario with its files read.
        policy: a label of the scenario's policies.
        seed: decides arrivals, samples, service times and losses; the same for every policy.
        requests: per device, instead of the scenario's number.
        lives: by device, how its requests are driven: `infer`, or what looks on while that does it.

    Raises:
        InputError: the policy does not fit the scenario.
    """
    rows: list[Completion] = []
    calendar = Calendar()
    world = World(experiment, seed, calendar)
    with _no_collection():
        for number in range(experiment.total_devices):
            device = _device(experiment, policy, seed, number, requests, calendar, rows.append, lives(number))
            world.connect(device, number)
            device.take_next()
        calendar.run()
    return rows


def _device(
    experiment: Experiment,
    policy: str,
    seed: int,
    number: int,
    requests: int | None,
    calendar: Calendar,
    sink: Callable[[Completion], None],
    life: Life,
) -> Device:
    return Device(
        calendar,
        experiment.recording.test,
        experiment.device_times(seed, number),
        experiment.workload(seed, number, requests),
        experiment.decider(policy, seed, number),
        experiment.group(number).config.pipeline,
        sink,
        life,
    )


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
