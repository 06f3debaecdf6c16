"""Who takes part in a scenario: groups of devices, access points, and what the live system has none of yet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from splitexit.errors import UsageError
from splitexit.scenario import HOST, AccessPoint, Devices, Scenario
from splitexit.scenario.events import Burst, EdgeDown, Event, Leave

Window = tuple[float, float, float]
"""From and until when, in seconds, and the factor that holds meanwhile."""


@dataclass(frozen=True)
class Group:
    """Devices that are all alike.

    number  of the group, from 0
    first   number of its first device among those of all groups; `count` of them follow one another
    config  the group's keys, with what it has from `devices`
    """

    label: str
    number: int
    first: int
    count: int
    config: Devices

    @property
    def devices(self) -> range:
        """The numbers of its devices."""
        return range(self.first, self.first + self.count)

    def arrival_windows(self, events: Sequence[Event], number: int) -> list[Window]:
        """When arrivals at the group's device of this number (from 0 in the group) are denser, rarer, or none."""
        windows = []
        for event in events:
            if isinstance(event, Burst) and event.on in (None, self.label):
                windows.append((event.at_s, event.end_s, event.factor))
            elif isinstance(event, Leave) and event.on in (None, self.label) and number < self.leaving(event.share):
                windows.append((event.at_s, event.end_s, 0.0))
        return windows

    def leaving(self, share: float) -> int:
        """How many devices this share is: rounded up, but for what is an error of floating point."""
        return math.ceil(share * self.count - 1e-9)


@dataclass(frozen=True)
class Cell:
    """One access point: `number` among those of its label, `index` among all; `config` is what its label says."""

    label: str
    number: int
    index: int
    config: AccessPoint


@dataclass(frozen=True)
class Downtime:
    """Servers of the edge that are down from `start_s` to before `end_s` (inf: for ever)."""

    start_s: float
    end_s: float
    servers: tuple[int, ...]


def groups_of(scenario: Scenario) -> tuple[Group, ...]:
    """The groups, with their devices numbered one after the other."""
    groups, first = list[Group](), 0
    for number, (label, config) in enumerate(scenario.fleet.items()):
        groups.append(Group(label, number, first, config.count, config))
        first += config.count
    return tuple(groups)


def cells_of(scenario: Scenario) -> tuple[Cell, ...]:
    """Every access point, numbered one after the other."""
    cells = list[Cell]()
    for label, config in scenario.access_points.items():
        cells += [Cell(label, number, len(cells) + number, config) for number in range(config.count)]
    return tuple(cells)


def downtimes_of(scenario: Scenario) -> tuple[Downtime, ...]:
    """When which servers of the edge are down, by time."""
    everyone = tuple(range(scenario.edge.servers))
    found = [
        Downtime(event.at_s, event.end_s, everyone if event.server is None else (event.server,))
        for event in scenario.events
        if isinstance(event, EdgeDown)
    ]
    return tuple(sorted(found, key=lambda down: (down.start_s, down.servers)))


def require_live(scenario: Scenario) -> None:
    """Raises UsageError, naming the key, where a scenario needs what the live system cannot do yet."""
    for key in _simulated_only(scenario):
        raise UsageError(f"{scenario.file}: {key}: only the simulator can do that yet; try `splitexit simulate`")
    _require_settable(scenario)


def _require_settable(scenario: Scenario) -> None:
    """Native devices have no modes."""
    for label, devices in scenario.fleet.items():
        if devices.modes and devices.hardware == HOST:
            key = ".".join((*map(str, scenario.place(label)), "modes"))
            raise UsageError(
                f"{scenario.file}: {key}: the devices are this machine itself (hardware: {HOST}), whose frequency and "
                "accelerators cannot be set from here; name the hardware that they stand for, or try "
                "`splitexit simulate`"
            )


def _simulated_only(scenario: Scenario) -> Iterator[str]:
    if scenario.edge.servers > 1:
        yield "edge.servers"
    if scenario.cloud is not None:
        yield "cloud"
    for label, point in scenario.access_points.items():
        if point.sharing == "processor":
            yield f"access_points.{label}.sharing"


def require_single(scenario: Scenario) -> None:
    """Raises UsageError, naming the key, where a scenario needs more than processes that are started one by one can do.

    Several devices are no such thing: each is a process of its own.
    """
    for key in _together_only(scenario):
        raise UsageError(f"{scenario.file}: {key}: needs all processes together; try `splitexit live`")
    _require_settable(scenario)


def _together_only(scenario: Scenario) -> Iterator[str]:
    yield from _simulated_only(scenario)
    used = {
        "groups": scenario.groups,
        "devices.access_point": scenario.devices.access_point,
        "edge.batching": scenario.edge.batching,
        "events": scenario.events,
    }
    yield from (key for key, value in used.items() if value)
