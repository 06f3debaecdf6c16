"""Paths and journeys of all groups as arrays, and how long the steps of each group's requests take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from splitexit.calibration import Calibration
from splitexit.decision import Setting
from splitexit.experiment import Experiment
from splitexit.fleet import Group
from splitexit.sim.compiled.choices import Choices
from splitexit.sim.compiled.journeys import Path
from splitexit.sim.compiled.layout import JOURNEY, NONE, PATH, Array
from splitexit.sim.compiled.times import Columns, Step, on_device, on_edge
from splitexit.streams import DEVICE_TIMES, EDGE_TIMES, stream


@dataclass
class GroupTimes:
    """The columns of a group's paths: those on the device, then those on the edge."""

    device: Columns
    edge: Columns

    @classmethod
    def of(cls, device: Calibration, edge: Calibration, paths: Sequence[Path]) -> GroupTimes:
        """The steps that some path takes."""
        there = dict.fromkeys(step for path in paths for step in (*path.device, path.fallback) if step is not None)
        behind = dict.fromkeys(step for path in paths for step in edge_steps(path))
        return cls(Columns(device, list(there), on_device), Columns(edge, list(behind), on_edge))

    @property
    def width(self) -> int:
        """Columns."""
        return len(self.device.steps) + len(self.edge.steps)

    @property
    def constant(self) -> Array | None:
        """(width,) where nothing varies."""
        if self.device.constant is None or self.edge.constant is None:
            return None
        return np.concatenate([self.device.constant, self.edge.constant])

    def draw(self, seed: int, device: int, first: int, count: int) -> Array:
        """(count, width) seconds for requests of a device."""
        there = self.device.draw(lambda block: stream(seed, DEVICE_TIMES, device, block), first, count)
        behind = self.edge.draw(lambda block: stream(seed, EDGE_TIMES, device, block), first, count)
        return np.concatenate([there, behind], axis=1)


def edge_steps(path: Path) -> tuple[Step, ...]:
    """The call, the decoding, and what follows; nothing where nothing is sent."""
    return () if path.pair is None else (("rpc",), ("decode", *path.pair), *path.edge)


class Book:
    """The paths and journeys of all groups in single arrays.

    paths, steps, journeys   as in splitexit.sim.compiled.layout.World
    path_of                  the Path behind each record of `paths`
    said, alone              (journeys, 2): exit and prediction, with and without a reply
    payload_bytes, position  of each journey; position is the sample's place in the recording's test part
    first                    number of each group's first journey
    """

    @classmethod
    def of(cls, experiment: Experiment, policy: str, choices: Sequence[Choices]) -> Book:
        """The book of these choices; the last one of this policy if nothing has changed."""
        size = sum(len(chosen.journeys) for chosen in choices)
        known: tuple[int, Book] | None = experiment.known.get(("book", policy))
        if known is not None and known[0] == size and all(chosen.plan is None for chosen in choices):
            return known[1]
        book = cls(experiment, choices)
        experiment.known["book", policy] = size, book
        return book

    def __init__(self, experiment: Experiment, choices: Sequence[Choices]) -> None:
        self.path_of: list[Path] = []
        self.times: list[GroupTimes] = []
        self.first: list[int] = []
        self._records: list[tuple[Any, ...]] = []
        self._steps: list[int] = []
        self._overhead_bytes = experiment.edge_calibration.rpc.uplink_overhead_bytes
        self._reserve(choices)
        for group, chosen in zip(experiment.groups, choices, strict=True):
            self._add(experiment, group, chosen)
        self.paths = np.array(self._records, PATH)
        self.steps = np.array(self._steps, np.uint32)

    def _reserve(self, choices: Sequence[Choices]) -> None:
        sizes = [chosen.plans * chosen.samples for chosen in choices]
        self.first = [0, *np.cumsum(sizes).tolist()][:-1]
        count = sum(sizes)
        self.journeys = np.zeros(count, JOURNEY)
        self.said, self.alone = np.zeros((count, 2), np.int32), np.zeros((count, 2), np.int32)
        self.payload_bytes = np.zeros(count, np.int32)
        self.position = np.concatenate([np.arange(n) % c.samples for n, c in zip(sizes, choices, strict=True)])

    def _add(self, experiment: Experiment, group: Group, chosen: Choices) -> None:
        paths, first_path = chosen.paths, len(self.path_of)
        device, setting = experiment.device_calibration(group), experiment.setting(group)
        times = GroupTimes.of(device, experiment.edge_calibration, paths)
        self.times.append(times)
        for path in paths:
            self._add_path(path, times, setting)
        number_of = {path: first_path + number for number, path in enumerate(paths)}
        for number, found in chosen.journeys.items():
            at = self.first[group.number] + number
            self.journeys[at] = number_of[found.path], found.payload_bytes + self._overhead_bytes
            self.payload_bytes[at] = found.payload_bytes
            self.said[at] = found.said.exit, found.said.prediction
            self.alone[at] = found.alone.exit, found.alone.prediction

    def _add_path(self, path: Path, times: GroupTimes, setting: Setting) -> None:
        self.path_of.append(path)
        there = times.device.steps
        first = len(self._steps)
        self._steps += [there.index(step) for step in path.device]
        rpc = len(self._steps)
        self._steps += [len(there) + times.edge.steps.index(step) for step in edge_steps(path)]
        edge_end = len(self._steps)
        if path.fallback is not None:
            self._steps.append(there.index(path.fallback))
        sends = path.pair is not None
        self._records.append(
            (
                setting.fallback_s[path.pair[0]] if path.pair and path.fallback else 0.0,
                inf if path.timeout_s is None else path.timeout_s,
                first,
                rpc - 1 if sends else rpc,
                rpc - 1 if sends else NONE,
                rpc,
                rpc + 1,
                edge_end,
                edge_end if path.fallback else NONE,
                path.fallback is not None,
            )
        )
