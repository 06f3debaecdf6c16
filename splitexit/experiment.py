"""From a scenario to everything that both worlds need: model, recording, times, links, policies, requests.

The simulator and the live device build on the same Experiment and the same random streams, so that
equal seeds mean equal arrivals, samples and service times in both.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from splitexit import energy, streams
from splitexit.arrivals import Arrivals, Intensity
from splitexit.bundle import Bundle, ModelSpec
from splitexit.calibration import Calibration, ServiceTimes
from splitexit.decision import Setting
from splitexit.errors import ArtifactError, InputError, PolicyError
from splitexit.fleet import Cell, Downtime, Group, cells_of, downtimes_of, groups_of
from splitexit.hardware import calibration_on
from splitexit.inference import Decider
from splitexit.links import Fifo, Link
from splitexit.links.sharing import Sharing
from splitexit.policies import Policy
from splitexit.recording import Recording
from splitexit.results import DEVICE, EDGE, SCHEMA, WITH_MODES
from splitexit.scenario import HOST as HOST
from splitexit.scenario import Cloud, Scenario
from splitexit.scenario.events import LinkEvent
from splitexit.setting import energy_model, mode_misfits, setting_of
from splitexit.streams import stream
from splitexit.wiring import DIRECTIONS, Links, fresh
from splitexit.workload import Workload as Workload

CLOUD_CODEC = "raw"
"""How the edge passes features on to the cloud: as they are, so that the answers are those that were recorded."""


@dataclass(frozen=True)
class Experiment:
    """A scenario with its files read.

    Args:
        scenario: what to run.
        bundle, recording: the model and what it said.
        host: the calibration that the hardware name `host` stands for.
        subset: sample ids to draw requests from (default: the whole test part).

    What is asked for a group may be asked without one where there is only one.
    """

    scenario: Scenario
    bundle: Bundle
    recording: Recording
    host: Calibration
    subset: tuple[int, ...] | None = None

    @classmethod
    def open(
        cls, scenario: Scenario, host: Calibration | None = None, subset: Sequence[int] | None = None
    ) -> Experiment:
        """Reads the scenario's bundle; raises InputError where a file is missing or does not fit."""
        bundle = Bundle.open(scenario.bundle)
        recording = Recording.load(bundle.recording, bundle.spec)
        if host is None:
            host = Calibration.load(bundle.calibration, bundle.spec)
        experiment = cls(scenario, bundle, recording, host, None if subset is None else tuple(subset))
        for path, what in experiment.misfits():
            raise InputError(f"{scenario.file}: {'.'.join(map(str, path))}: {what}")
        return experiment

    def misfits(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Keys that do not fit the bundle or the links, each with what is wrong."""
        scenario = self.scenario
        for path, hardware in scenario.machines():
            try:
                self._on(hardware)
            except ArtifactError as error:
                yield path, str(error)
        yield from mode_misfits(self)
        if (cloud := scenario.cloud) is not None and (what := self._cloud_misfit(cloud)):
            yield ("cloud", "split"), what
        for label, point in scenario.access_points.items():
            if point.sharing == "processor" and (what := self._link_misfit(label, (0, 1))):
                yield ("access_points", label, "sharing"), what
        for n, event in enumerate(scenario.events):
            if isinstance(event, LinkEvent):
                labels = [event.on] if event.on else [*scenario.fleet, *scenario.access_points]
                found = (self._link_misfit(label, DIRECTIONS[event.direction]) for label in labels)
                if what := next(filter(None, found), ""):
                    yield ("events", n), what

    def _link_misfit(self, label: str, directions: Iterable[int]) -> str:
        """Why the links of a group or access point can neither be shared nor be under events; empty if they can."""
        scenario = self.scenario
        owner = scenario.access_points.get(label) or scenario.fleet[label]
        try:
            for direction in directions:
                self.links.of(scenario.links(owner)[direction]).sent_bytes(0.0, 0.0)
        except InputError as error:
            return str(error)
        return ""

    def _cloud_misfit(self, cloud: Cloud) -> str:
        last, pair = self.spec.num_stages - 1, (cloud.split, CLOUD_CODEC)
        if cloud.split > last:
            return f"found {cloud.split}; expected 1 to {last}: the model has {last + 1} stages"
        codecs = self.recording.codecs()
        cut_before = any(split < cloud.split for split in codecs)
        if not cut_before or (CLOUD_CODEC in codecs.get(cloud.split, ()) and pair in self.host.encode):
            return ""
        return (
            f"the edge passes {CLOUD_CODEC}@{cloud.split} on, which was not recorded and calibrated; run "
            f"`splitexit record --pair {CLOUD_CODEC}@{cloud.split}`, then `splitexit calibrate`"
        )

    def on_part(self, part: str) -> Experiment:
        """The same with requests drawn from that part of the recording."""
        if part == "test":
            return self
        said = self.recording
        replayed = Recording({**said.parts, "test": said.parts[part]}, said.num_classes, said.made)
        return replace(self, recording=replayed, subset=None)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travels between processes without what can be worked out again."""
        return type(self), (self.scenario, self.bundle, self.recording, self.host, self.subset)

    @property
    def spec(self) -> ModelSpec:
        """The model's structure."""
        return self.bundle.spec

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The groups of devices, in the order of their numbers."""
        return groups_of(self.scenario)

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of its rows."""
        return WITH_MODES if any(group.config.modes for group in self.groups) else SCHEMA

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every access point, in the order of the scenario."""
        return cells_of(self.scenario)

    @cached_property
    def downtimes(self) -> tuple[Downtime, ...]:
        """When which servers of the edge are down, by time."""
        return downtimes_of(self.scenario)

    @property
    def total_devices(self) -> int:
        """Devices of all groups; they are numbered from 0."""
        return self.groups[-1].first + self.groups[-1].count

    @cached_property
    def _firsts(self) -> list[int]:
        return [group.first for group in self.groups]

    def group(self, device: int) -> Group:
        """The group that a device belongs to."""
        return self.groups[bisect_right(self._firsts, device) - 1]

    def cell(self, device: int) -> Cell | None:
        """The access point that a device is on; None if it has links of its own."""
        group = self.group(device)
        label = group.config.access_point
        if label is None:
            return None
        first = next(cell for cell in self.cells if cell.label == label)
        return self.cells[first.index + (device - group.first) % first.config.count]

    @cached_property
    def _calibrations(self) -> dict[str, Calibration]:
        return {}

    def _on(self, hardware: str, side: str = EDGE) -> Calibration:
        known, key = self._calibrations, f"{HOST} {side}" if hardware == HOST else hardware
        if key not in known:
            known[key] = self.host.on(side) if hardware == HOST else calibration_on(hardware, self.spec, self.host)
        return known[key]

    def device_calibration(self, group: Group | None = None) -> Calibration:
        """Seconds of every part on the devices of a group."""
        return self._on((group or self.groups[0]).config.hardware, DEVICE)

    def mode_calibrations(self, group: Group) -> dict[str, Calibration]:
        """By name, the same in the modes that the devices of a group have beside their own."""
        return {name: self._on(mode.hardware, DEVICE) for name, mode in group.config.modes.items()}

    @property
    def edge_calibration(self) -> Calibration:
        """Seconds of every part on the scenario's edge."""
        return self._on(self.scenario.edge.hardware)

    @property
    def cloud_calibration(self) -> Calibration | None:
        """Seconds of every part on the scenario's cloud, if it has one."""
        return None if self.scenario.cloud is None else self._on(self.scenario.cloud.hardware)

    def setting(self, group: Group | None = None) -> Setting:
        """What every policy of a group may know beforehand."""
        return self._settings[0 if group is None else group.number]

    @cached_property
    def _settings(self) -> tuple[Setting, ...]:
        return tuple(setting_of(self, group) for group in self.groups)

    def energy_model(self, group: Group) -> energy.Model:
        """How the devices of a group take energy, as far as the scenario says so or figures were published."""
        return energy_model(self, group)

    @cached_property
    def links(self) -> Links:
        """The scenario's links under its events."""
        return Links(self.scenario)

    def uplink(self, seed: int, device: int) -> Fifo:
        """A device's fresh uplink, under the scenario's events; for devices with links of their own."""
        return Fifo(self._own(0, device, stream(seed, streams.UPLINK, device)))

    def downlink(self, seed: int, device: int) -> Fifo:
        """A device's fresh downlink, likewise."""
        return Fifo(self._own(1, device, stream(seed, streams.DOWNLINK, device)))

    def _own(self, direction: int, device: int, rng: np.random.Generator) -> Link:
        group = self.group(device)
        return self.links.fresh(group.label, group.config, direction, rng)

    def cell_uplink(self, seed: int, cell: Cell) -> Fifo | Sharing:
        """An access point's fresh uplink, under the scenario's events."""
        return self._shared(0, cell, stream(seed, streams.CELL_UPLINK, cell.index))

    def cell_downlink(self, seed: int, cell: Cell) -> Fifo | Sharing:
        """An access point's fresh downlink, likewise."""
        return self._shared(1, cell, stream(seed, streams.CELL_DOWNLINK, cell.index))

    def _shared(self, direction: int, cell: Cell, rng: np.random.Generator) -> Fifo | Sharing:
        link = self.links.fresh(cell.label, cell.config, direction, rng)
        return Fifo(link) if cell.config.sharing == "fifo" else Sharing(link)

    def cloud_uplink(self, seed: int) -> Fifo:
        """The fresh link from the edge to the cloud; only where there is one."""
        return Fifo(fresh(self.links.of(self._cloud.uplink), stream(seed, streams.CLOUD_UPLINK)))

    def cloud_downlink(self, seed: int) -> Fifo:
        """And back."""
        return Fifo(fresh(self.links.of(self._cloud.downlink), stream(seed, streams.CLOUD_DOWNLINK)))

    @property
    def _cloud(self) -> Cloud:
        assert self.scenario.cloud is not None, "the scenario has no cloud"
        return self.scenario.cloud

    def decider(self, label: str, seed: int, device: int) -> Decider:
        """A prepared instance of the policy with this label for a device: fresh, but that stateless ones are shared.

        Raises InputError where it does not fit the device's setting.
        """
        group = self.group(device)
        known = self._deciders.get((label, group.number))
        if known is not None:
            return known
        policy: Policy = self.scenario.policy(label, group.config).create()
        try:
            policy.prepare(self.setting(group), stream(seed, streams.POLICY, device))
        except ArtifactError:
            raise
        except (InputError, PolicyError) as error:
            of_group = f" of the group {group.label!r}" if self.scenario.groups else ""
            raise InputError(f"policy {label!r}{of_group}: {error}") from error
        decider = Decider(policy, self.setting(group))
        if policy.stateless:
            self._deciders[label, group.number] = decider
        return decider

    @cached_property
    def _deciders(self) -> dict[tuple[str, int], Decider]:
        return {}

    def device_times(self, seed: int, device: int) -> ServiceTimes:
        """What every part of every request takes on this device."""
        group = self.group(device)
        return ServiceTimes(
            self.device_calibration(group),
            lambda block: stream(seed, streams.DEVICE_TIMES, device, block),
            self.mode_calibrations(group),
        )

    def edge_times(self, seed: int, device: int) -> ServiceTimes:
        """What every part of every request of this device takes on the edge."""
        return ServiceTimes(self.edge_calibration, lambda block: stream(seed, streams.EDGE_TIMES, device, block))

    def cloud_times(self, seed: int, device: int) -> ServiceTimes:
        """What every part of every request of this device takes in the cloud; only where there is one."""
        calibration = self._on(self._cloud.hardware)
        return ServiceTimes(calibration, lambda block: stream(seed, streams.CLOUD_TIMES, device, block))

    def workload(self, seed: int, device: int, requests: int | None = None) -> Workload:
        """A device's requests; samples in the scenario's order without repeats until all were used."""
        group = self.group(device)
        count = self.scenario.requests if requests is None else requests
        arrivals, intensity = self.arrivals[group.number], self.intensity(group, device - group.first)
        times = None
        if not arrivals.closed:
            times_s = arrivals.times_s(count, stream(seed, streams.ARRIVALS, device))
            times_s = times_s if intensity is None else intensity.warp(times_s)
            times, count = times_s.tolist(), len(times_s)
        positions = self._positions(stream(seed, streams.SAMPLES, device), count, group.config.order == "in-order")
        test = self.recording.test
        return Workload(
            device,
            positions.tolist(),
            test.sample[positions].tolist(),
            test.label[positions].tolist(),
            times,
            arrivals.think_s if arrivals.closed else 0.0,
            group.config.deadline_s,
            intensity if arrivals.closed else None,
        )

    @cached_property
    def known(self) -> dict[Any, Any]:
        """What an engine has worked out of this experiment and need not work out again, by keys of its own."""
        return {}

    @cached_property
    def arrivals(self) -> tuple[Arrivals, ...]:
        """The arrival process of every group."""
        return tuple(group.config.arrivals.create() for group in self.groups)

    @cached_property
    def _intensities(self) -> dict[tuple[int, int], Intensity | None]:
        return {}

    def intensity(self, group: Group, number: int) -> Intensity | None:
        """How the events change the arrivals of a group's device; None if they do not."""
        if not self.scenario.events:
            return None
        windows = group.arrival_windows(self.scenario.events, number)
        key = (group.number, len(windows))  # shares count from the first device, so the number says which windows
        if key not in self._intensities:
            self._intensities[key] = Intensity(windows) if windows else None
        return self._intensities[key]

    @cached_property
    def pool(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Positions that requests are drawn from."""
        pool = np.arange(len(self.recording.test))
        if self.subset is not None:
            pool = pool[np.isin(self.recording.test.sample, self.subset)]
            if not len(pool):
                raise ArtifactError(f"{self.bundle.samples}: none of its samples is in the recording's test part")
        return pool

    def _positions(
        self, rng: np.random.Generator, count: int, in_order: bool
    ) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        rounds = max(1, -(-count // len(self.pool)))
        if in_order:
            return np.tile(np.roll(self.pool, -rng.integers(len(self.pool))), rounds)[:count]
        return np.concatenate([rng.permutation(self.pool) for _ in range(rounds)])[:count]
