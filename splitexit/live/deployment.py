"""A scenario as real processes: the edge, every device and the links between them, started once and run at will."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any

from splitexit.calibration import Calibration
from splitexit.errors import SplitexitError, UsageError
from splitexit.experiment import Experiment
from splitexit.fleet import require_live
from splitexit.live.children import DeviceOrder, drive
from splitexit.live.edges import Edges
from splitexit.live.network import NETWORKS, Network
from splitexit.live.processes import Child, uninterrupted
from splitexit.live.run import open_experiment
from splitexit.policies import OmniscientPolicy
from splitexit.results import Completion
from splitexit.scenario import Scenario

Say = Callable[[str], None]

LEAD_S = 0.3
"""Time zero is so long after the last process was told of it."""

LOOK_S, STOP_S = 0.5, 10.0
"""How often progress is told while nothing else happens, and how long a device may take to stop."""


@dataclass(frozen=True)
class LiveRun:
    """What came of a run.

    rows         of all devices, in the order in which they were handed over
    late         replies that came after the device had given them up
    links        how exact each link was, by its name
    interrupted  whether Ctrl-C ended it; the rows are those until then
    failed       processes that ended before the run did -> how; what they had not handed over is missing
    decide_ns    what every decision took, of all devices that ended their run
    """

    rows: list[Completion]
    late: int
    links: Mapping[str, Any]
    interrupted: bool
    failed: Mapping[str, str]
    decide_ns: Sequence[int] = ()


@dataclass
class _Progress:
    """A run on its way: what has come, and which devices still work."""

    working: dict[Any, Child]
    rows: list[Completion] = field(default_factory=list)
    late: int = 0
    decide_ns: list[int] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class Deployment:
    """The processes of a scenario; they stay up between runs, so that another policy or seed costs no start.

    experiment   on the images at hand, with the host calibration that paced processes draw from: what to simulate with
    network      the kind of network between them
    """

    def __init__(self, experiment: Experiment, network: str, data: str | None, say: Say) -> None:
        self.experiment, self.network, self._say = experiment, network, say
        with ExitStack() as started:
            self._network: Network = NETWORKS.load(network)(experiment)
            started.callback(self._network.close)
            self._edges = Edges(experiment, self._network.edge, say)
            started.callback(self._edges.close)
            self._devices = self._start_devices(data, started)
            self._connect()
            self._started = started.pop_all()

    @classmethod
    def open(
        cls,
        scenario: Scenario,
        *,
        host: Calibration | None = None,
        network: str = "proxy",
        data: str | None = None,
        say: Say = lambda line: None,
    ) -> Deployment:
        """Starts all processes of a scenario.

        Args:
            host: what this machine takes, instead of the bundle's calibration.
            network: a name of NETWORKS.
            data: the whole recorded test set, instead of the bundle's own samples.
            say: told, in a line each, what is being started, and when devices lose and find the edge.

        Raises:
            InputError: the scenario, its bundle or its samples do not fit, or only the simulator can do what it asks.
            ProcessError: a process did not start.
        """
        require_live(scenario)
        NETWORKS.load(network).require()
        return cls(open_experiment(scenario, data, host)[0], network, data, say)

    def _start_devices(self, data: str | None, started: ExitStack) -> list[Child]:
        experiment, devices = self.experiment, list[Child]()
        for group in experiment.groups:
            count, hardware = group.count, group.config.hardware
            self._say(f"starting {count} device{'s' * (count > 1)} of {group.label}: {hardware}")
            for number in group.devices:
                order = DeviceOrder(experiment.scenario, number, data, experiment.host)
                devices.append(Child(f"device {number}", drive, order))
                started.callback(devices[-1].close)
        return devices

    def _connect(self) -> None:
        """Once the edge listens and all have loaded, shows every device its way."""
        address = self._edges.listen()
        for device in self._devices:
            device.expect("loaded", say=self._say)
        self._say(f"connecting them by {self.network}")
        self._network.connect(address)
        for number, device in enumerate(self._devices):
            device.tell("connect", self._network.device(number))
        for device in self._devices:
            device.expect("connected", say=self._say)

    @property
    def pids(self) -> Mapping[str, int]:
        """Process numbers: "edge" unless it is down, "device 0" and so on, and what the network runs."""
        edge = {} if self._edges.present is None else {"edge": self._edges.present.pid}
        return {**edge, **self._network.pids, **{device.name: device.pid for device in self._devices}}

    def run(
        self,
        policy: str,
        seed: int,
        requests: int | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> LiveRun:
        """Every device runs its requests, all from one time zero on; Ctrl-C ends it and keeps what there is.

        Args:
            policy: a label, as for the simulator; one that real devices can follow.
            requests: of each device, instead of the scenario's number.
            progress: told how many requests of all devices are done.

        Raises:
            InputError: the policy does not fit.
            ProcessError: a process has ended before the run begins.
        """
        self._check(policy, seed)
        self._prepare(policy, seed, requests)
        origin_s = time.monotonic() + LEAD_S
        self._network.begin(seed, origin_s)
        for device in self._devices:
            device.tell("begin", origin_s)
        state = _Progress({device.pipe: device for device in self._devices})
        try:
            self._follow(state, self._agenda(origin_s), progress)
            interrupted = False
        except KeyboardInterrupt:
            self._stop(state)
            interrupted = True
        links = self._end(state, seed, requests)
        return LiveRun(state.rows, state.late, links, interrupted, state.failed, state.decide_ns)

    def _check(self, policy: str, seed: int) -> None:
        check_policy(self.experiment.scenario, policy)
        for group in self.experiment.groups:
            self.experiment.decider(policy, seed, group.first)

    def _prepare(self, policy: str, seed: int, requests: int | None) -> None:
        """Everything is there and warm."""
        self._edges.prepare()
        for device in self._devices:
            device.tell("prepare", policy, seed, requests)
        for device in self._devices:
            device.expect("ready", say=self._say)

    def _agenda(self, origin_s: float) -> deque[tuple[float, Callable[[], None]]]:
        """What is done to the edge, and when; sorting keeps an end before the start of the same time."""
        agenda: list[tuple[float, Callable[[], None]]] = []
        for down in self.experiment.downtimes:
            agenda += [(origin_s + down.start_s, self._edges.kill), (origin_s + down.end_s, self._edges.replace)]
        return deque(sorted(agenda, key=lambda entry: entry[0]))

    def _follow(
        self, state: _Progress, agenda: deque[tuple[float, Callable[[], None]]], progress: Callable[[int], None]
    ) -> None:
        """Takes in what the processes say, and does what is due, until no device works."""
        while state.working:
            due_s = agenda[0][0] - time.monotonic() if agenda else LOOK_S
            heard = wait([*state.working, *self._edge_pipe()], min(max(due_s, 0.0), LOOK_S))
            with uninterrupted():
                while agenda and agenda[0][0] <= time.monotonic():
                    agenda.popleft()[1]()
                for pipe in heard:
                    self._hear(state, pipe)
            progress(len(state.rows))

    def _edge_pipe(self) -> list[Any]:
        return [] if self._edges.present is None else [self._edges.present.pipe]

    def _hear(self, state: _Progress, pipe: Any) -> None:
        """One message, or the end of a process."""
        edge = self._edges.present
        child = state.working.get(pipe) or (edge if edge is not None and edge.pipe is pipe else None)
        if child is None:  # an edge that was killed just now, as it was to be
            return
        try:
            match child.receive():
                case "rows", rows:
                    state.rows += rows
                case "said", text:
                    self._say(f"{child.name}: {text}")
                case "done", late, decide_ns:
                    state.late += late
                    state.decide_ns += decide_ns
                    del state.working[pipe]
        except SplitexitError as error:
            state.failed[child.name] = str(error)
            if state.working.pop(pipe, None) is None:
                self._edges.kill()

    def _stop(self, state: _Progress) -> None:
        """The devices end their runs and hand over what they have."""
        give_up_s = time.monotonic() + STOP_S
        for device in state.working.values():
            device.tell("stop")
        while state.working and time.monotonic() < give_up_s:
            for pipe in wait([*state.working], LOOK_S):
                self._hear(state, pipe)
        state.failed.update({child.name: f"{child.name} does not answer" for child in state.working.values()})

    def _end(self, state: _Progress, seed: int, requests: int | None) -> Mapping[str, Any]:
        """The links are free again; what is missing of devices that failed is counted."""
        for number, device in enumerate(self._devices):
            if device.name in state.failed:
                there = sum(row.device == number for row in state.rows)
                expected = len(self.experiment.workload(seed, number, requests))
                state.failed[device.name] += f"; {expected - there} of its {expected} requests are missing"
        try:
            return self._network.end()
        except SplitexitError as error:
            state.failed["link"] = str(error)
            return {}

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Ends all processes."""
        self._started.close()


def check_policy(scenario: Scenario, label: str) -> None:
    """Raises InputError where there is no such policy, or a device cannot follow it."""
    for devices in scenario.fleet.values():
        if isinstance(scenario.policy(label, devices).create(), OmniscientPolicy):
            raise UsageError(f"policy {label!r} decides with the truth, which no device knows: only simulate it")
