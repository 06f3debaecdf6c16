"""One run of the compiled engine: supplies the event loop with requests and room, and hands out its rows."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf, nan

import numpy as np

from splitexit.errors import InputError
from splitexit.experiment import Experiment
from splitexit.links import Fifo
from splitexit.sim.compiled import loop
from splitexit.sim.compiled.choices import choose
from splitexit.sim.compiled.layout import (
    DEVICE,
    EVENT,
    LINK,
    NONE,
    ROW,
    SERVER,
    STATE,
    TASK,
    Array,
    World,
)
from splitexit.sim.compiled.paths import Book
from splitexit.sim.compiled.supply import Supply
from splitexit.sim.compiled.support import supports

ROWS = 4096


class Engine:
    """A scenario under one policy and one seed.

    Args:
        experiment, policy, seed, requests: as for splitexit.sim.simulate.

    Raises:
        InputError: the policy does not fit, or the compiled engine cannot do it.
    """

    def __init__(self, experiment: Experiment, policy: str, seed: int, requests: int | None = None) -> None:
        if reason := supports(experiment, policy):
            raise InputError(f"the compiled engine cannot run this: {reason}; use --engine simpy")
        self.experiment = experiment
        self.requests = experiment.scenario.requests if requests is None else requests
        groups = experiment.groups
        choices = [choose(experiment, policy, seed, group, self.requests) for group in groups]
        self.book = Book.of(experiment, policy, choices)
        self._supply = Supply(experiment, choices, self.book, seed, self.requests)
        self._world = self._build()

    @property
    def _varies(self) -> bool:
        return any(times.constant is None for times in self.book.times)

    def _build(self) -> World:
        experiment, count = self.experiment, self.experiment.total_devices
        state = np.zeros(1, STATE)
        state["downlink_bytes"] = experiment.edge_calibration.rpc.downlink_bytes
        state["least_loaded"] = experiment.scenario.edge.balancer == "least-loaded"
        state["groups"] = len(experiment.groups)
        width = max(times.width for times in self.book.times)
        lines = count * self._supply.length if self._varies else 0
        devices, links = _stations(experiment)
        devices["place"] = np.arange(count) * self._supply.length
        devices["total"] = self.requests
        seconds = np.zeros((len(experiment.groups) + lines, width))
        for group, times in zip(experiment.groups, self.book.times, strict=True):
            if times.constant is not None:
                seconds[group.number, : times.width] = times.constant
                devices["line"][group.devices] = group.number
        world = World(
            state=state,
            events=np.zeros(4 * count + 4096, EVENT),
            alarms=np.zeros(4 * count + 4096, EVENT),
            tasks=np.zeros(0, TASK),
            devices=devices,
            links=links,
            servers=_servers(experiment),
            paths=self.book.paths,
            steps=self.book.steps,
            journeys=self.book.journeys,
            arrival_s=np.zeros(count * self._supply.length),
            journey=np.zeros(count * self._supply.length, np.uint32),
            seconds=seconds,
            kept=np.zeros((0, width)),
            rows=np.zeros(0, ROW),
        )
        return self._more_tasks(world, count + 1024)

    def _more_tasks(self, world: World, count: int) -> World:
        """Room for so many tasks, and for their rows."""
        had = len(world.tasks)
        tasks = np.zeros(count, TASK)
        tasks[:had] = world.tasks
        tasks["next"][had:] = np.arange(had + 1, count + 1)
        tasks["next"][-1] = world.state["free_task"][0] if had else NONE
        world.state["free_task"] = had
        kept = np.zeros((count if self._varies else 1, world.kept.shape[1]))
        kept[: len(world.kept)] = world.kept
        rows = np.zeros(max(ROWS, 2 * count), ROW)
        rows[: len(world.rows)] = world.rows
        return world._replace(tasks=tasks, kept=kept, rows=rows)

    def _load(self, device: int) -> None:
        """The device's next requests, in place of those that have begun."""
        world, record = self._world, self._world.devices[device]
        stretch = self._supply.next(device)
        first, count, place = int(record["loaded"]), len(stretch.journey), int(record["place"])
        here = slice(place, place + count)
        if stretch.arrival_s is not None:
            world.arrival_s[here] = stretch.arrival_s
        world.journey[here] = stretch.journey
        if stretch.seconds is not None:
            lines = slice(here.start + len(self.book.times), here.stop + len(self.book.times))
            world.seconds[lines, : stretch.seconds.shape[1]] = stretch.seconds
        record["base"], record["loaded"] = first, first + count
        world.state["lacking"] = 0
        if count < min(self._supply.length, self.requests - first):  # the rest never comes
            record["total"] = first + count

    def rows(self) -> Iterator[Array]:
        """Runs; yields the rows in order of completion, stretch by stretch, each valid until the next one."""
        try:
            for device in range(len(self._world.devices)):
                self._load(device)
            loop.begin(self._world)
            while (why := loop.run(self._world)) != loop.FINISHED:
                if why == loop.ROWS_FULL:
                    yield self._taken()
                else:
                    self._provide(why)
            yield self._taken()
        finally:
            self._supply.close()

    def _provide(self, why: int) -> None:
        """What the loop stopped for."""
        world = self._world
        if why == loop.REQUESTS_NEEDED:
            self._load(int(world.state["device"][0]))
        elif why == loop.TASKS_FULL:
            self._world = self._more_tasks(world, 2 * len(world.tasks))
        else:
            events, alarms = (np.concatenate([heap, np.zeros_like(heap)]) for heap in (world.events, world.alarms))
            self._world = world._replace(events=events, alarms=alarms)

    def ordered(self) -> Array:
        """Runs; all rows in order of (device, request)."""
        found = np.zeros(len(self._world.devices) * self.requests, ROW)
        there = np.zeros(len(found), bool)
        for rows in self.rows():
            at = rows["device"] * np.int64(self.requests) + rows["number"]
            found[at], there[at] = rows, True
        return found if there.all() else found[there]

    def _taken(self) -> Array:
        state = self._world.state
        found = self._world.rows[: int(state["rows"][0])]
        state["rows"] = 0
        return found


def _stations(experiment: Experiment) -> tuple[Array, Array]:
    """Devices and links: two per device that has its own, two per access point."""
    devices, links = np.zeros(experiment.total_devices, DEVICE), list[tuple[float, ...]]()
    for name in ("resumed", "resumed_last", "due", "due_last", "line", "ahead", "parked"):
        devices[name] = NONE
    devices["alarm_s"] = inf
    first_of_cell = {}
    for cell in experiment.cells:
        first_of_cell[cell.index] = len(links)
        links += [_link(experiment.cell_uplink(0, cell)), _link(experiment.cell_downlink(0, cell))]
    for group in experiment.groups:
        config, arrivals = group.config, experiment.arrivals[group.number]
        those = devices[group.first : group.first + group.count]
        those["deadline_s"], those["pipeline"] = config.deadline_s, config.pipeline
        those["closed"], those["think_s"] = arrivals.closed, arrivals.think_s
        those["free"] = config.pipeline and not arrivals.closed
        if config.access_point is None:
            those["uplink"] = len(links) + 2 * np.arange(group.count)
            pair = [_link(experiment.uplink(0, group.first)), _link(experiment.downlink(0, group.first))]
            links += pair * group.count
        else:
            cells = (experiment.cell(device) for device in group.devices)
            those["uplink"] = [first_of_cell[cell.index] for cell in cells if cell is not None]
        those["downlink"] = those["uplink"] + 1
    devices["loop_s"] = np.where(devices["closed"], 0.0, nan)
    return devices, np.array(links, LINK)


def _link(queue: object) -> tuple[float, float, float]:
    assert isinstance(queue, Fifo)
    return 0.0, 8.0 / queue.link.mean_bps, queue.link.delay_s


def _servers(experiment: Experiment) -> Array:
    edge = experiment.scenario.edge
    servers = np.zeros(edge.servers, SERVER)
    servers["idle"], servers["head"], servers["tail"] = edge.workers, NONE, NONE
    servers["room"] = NONE if edge.queue is None else edge.queue
    return servers
