"""Processes that share the cores of one machine: how much slower each becomes for the others.

A calibration measures a pass alone, and how much longer it takes while n other processes compute
(`Calibration.corun`). How many do, changes from moment to moment. A mean field takes the place of that: every other
process is taken to compute at a random moment with its own utilisation, independently of the rest. Their number N then
has a Poisson-binomial distribution, and a pass takes E[corun(N)] times as long as alone. Utilisations come from a
simulation, which needs the slowdown; so one is made without, and then `ROUNDS` more with what the last one gave.

What follows from "independently": a device that waits for the edge before it computes again never meets it, and the
mean field says that it sometimes does. So the slowdown of very few processes is overstated.

Native parts (hardware `host`) are slowed. Paced ones compute for real too, for as long as the host takes, and then
wait: they slow others for that time, and are themselves none the slower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from splitexit.calibration import Calibration
from splitexit.compare import Run, run_once
from splitexit.decision import Setting
from splitexit.experiment import HOST, Experiment
from splitexit.fleet import Group
from splitexit.results import column

ROUNDS = 2


@dataclass(frozen=True)
class SharedCores(Experiment):
    """An experiment whose native parts take longer by these factors; what a policy may know stays as it was.

    devices  of each group, in order; 1 for all where it is empty
    edge     of the edge
    """

    devices: tuple[float, ...] = ()
    edge: float = 1.0

    @classmethod
    def of(cls, experiment: Experiment, devices: Sequence[float], edge: float) -> SharedCores:
        """The same experiment under such factors."""
        e = experiment
        return cls(e.scenario, e.bundle, e.recording, e.host, e.subset, tuple(devices), edge)

    def __reduce__(self) -> tuple[Any, ...]:
        cls, arguments = super().__reduce__()
        return cls, (*arguments, self.devices, self.edge)

    @cached_property
    def _slowed(self) -> dict[int | None, Calibration]:
        """Calibrations by the number of the group; None: of the edge."""
        return {}

    def device_calibration(self, group: Group | None = None) -> Calibration:
        """Seconds of every part on the devices of a group, with the slowdown."""
        group = group or self.groups[0]
        factor = self.devices[group.number] if self.devices else 1.0
        return self._slower(group.number, super().device_calibration(group), factor)

    @property
    def edge_calibration(self) -> Calibration:
        """Seconds of every part on the edge, with the slowdown."""
        return self._slower(None, super().edge_calibration, self.edge)

    def _slower(self, key: int | None, alone: Calibration, factor: float) -> Calibration:
        if factor == 1.0:
            return alone
        if key not in self._slowed:
            self._slowed[key] = alone.slowed(factor)
        return self._slowed[key]

    def setting(self, group: Group | None = None) -> Setting:
        """What a policy may know beforehand: times as they were calibrated, alone."""
        return self._alone.setting(group)

    @cached_property
    def _alone(self) -> Experiment:
        return Experiment(self.scenario, self.bundle, self.recording, self.host, self.subset)


def is_native(experiment: Experiment) -> bool:
    """Whether any part computes on this machine at its own speed."""
    scenario = experiment.scenario
    return HOST in (scenario.edge.hardware, *(group.config.hardware for group in experiment.groups))


def sharing_cores(experiment: Experiment, policy: str, seed: int, requests: int | None = None) -> Experiment:
    """The experiment as it is where all its processes run on one machine; itself where nothing changes."""
    shared = experiment
    if not is_native(experiment) or len(experiment.host.corun) < 2:
        return shared
    for _ in range(ROUNDS):
        busy = utilisations(shared, run_once(shared, policy, seed, requests))
        shared = SharedCores.of(experiment, *_slowdowns(experiment, busy))
    return shared


Busy = Mapping[int | None, Sequence[float]]
"""Share of the time that each process computes for real: of the devices of each group; None: of the edge's workers."""


def utilisations(experiment: Experiment, run: Run) -> Busy:
    """What a simulated run says of how long each process computed."""
    rows = run.table
    span_s = max(float(column(rows, "done_s").max()), 1e-12)
    device, edge = column(rows, "device"), experiment.scenario.edge
    work_s = column(rows, "device_compute_s") + column(rows, "encode_s")
    found: dict[int | None, Sequence[float]] = {}
    for group in experiment.groups:
        real_s = work_s * _real_shares(experiment, group, run) / span_s
        found[group.number] = [min(1.0, float(real_s[device == number].sum())) for number in group.devices]
    workers = edge.workers * edge.servers
    real = _real_share(experiment, edge.hardware, experiment.edge_calibration) / (span_s * workers)
    found[None] = [min(1.0, real * _edge_work_s(column(rows, "edge_compute_s"), edge.batching is not None))] * workers
    return found


def _edge_work_s(compute_s: np.ndarray[Any, Any], batched: bool) -> float:
    """Seconds that the edge computed; requests of one pass share them, and name the same seconds."""
    return float((np.unique(compute_s) if batched else compute_s).sum())


def _real_shares(experiment: Experiment, group: Group, run: Run) -> np.ndarray[Any, Any]:
    """`_real_share` in every row, as if all were of this group."""
    shares = np.full(
        len(run.table), _real_share(experiment, group.config.hardware, experiment.device_calibration(group))
    )
    for name, times in experiment.mode_calibrations(group).items():
        shares[column(run.table, "mode") == name] = _real_share(experiment, group.config.modes[name].hardware, times)
    return shares


def _real_share(experiment: Experiment, hardware: str, on: Calibration) -> float:
    """The part of a machine's time in which this host computes for it, before it waits."""
    if hardware == HOST:
        return 1.0
    host_s, there_s = (sum(stage.mean for stage in of.stages) for of in (experiment.host, on))
    return min(1.0, host_s / there_s) if there_s > 0 else 1.0


def _slowdowns(experiment: Experiment, busy: Busy) -> tuple[list[float], float]:
    """E[corun(N)] of the devices of each group and of the edge; 1 where a part is paced."""
    everyone = [share for shares in busy.values() for share in shares]
    factor = experiment.host.corun_factor
    devices = []
    for group in experiment.groups:
        mean = float(np.mean([expected(factor, _without(everyone, share)) for share in busy[group.number]]))
        devices.append(mean if group.config.hardware == HOST else 1.0)
    native = experiment.scenario.edge.hardware == HOST
    return devices, expected(factor, _without(everyone, busy[None][0])) if native else 1.0


def _without(shares: Sequence[float], one: float) -> list[float]:
    """All but one that is so large."""
    others = list(shares)
    others.remove(one)
    return others


def expected(factor: Callable[[float], float], shares: Sequence[float]) -> float:
    """E[factor(N)], N the number of independent events that happen, each with its probability."""
    chances = np.ones(1)
    for share in shares:
        chances = np.convolve(chances, (1.0 - share, share))
    return float(sum(chance * factor(float(n)) for n, chance in enumerate(chances)))
