"""What the processes of a live run do: be the edge, or be a device."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from splitexit.bundle import Bundle
from splitexit.calibration import Calibration, Pair
from splitexit.errors import ProcessError
from splitexit.live.edge import EdgeRuntime
from splitexit.live.model import LiveModel, use_one_thread
from splitexit.live.network import Place
from splitexit.live.processes import Line, enter, settle_memory
from splitexit.live.tuning import tune_process
from splitexit.results import Completion
from splitexit.scenario import Edge, Scenario

READY_S, PIECE_S = 10.0, 0.5
"""How long a device looks for its edge before a run, and how often it hands over its rows."""


@dataclass(frozen=True)
class EdgeOrder:
    """What an edge is to serve, how, and where.

    calibration   of the machine that it stands for; None: native
    """

    bundle: Path
    config: Edge
    pairs: tuple[Pair, ...]
    calibration: Calibration | None
    namespace: str | None


@dataclass(frozen=True)
class DeviceOrder:
    """Which device of a scenario, with which images (`data`; None: the bundle's own) and host calibration."""

    scenario: Scenario
    number: int
    data: str | None
    host: Calibration


class _WarmEdge(EdgeRuntime):
    """Warms up when it is told how often, and not once more when it is to listen: a replacement has to be quick."""

    def warm_up(self, rounds: int = 0) -> None:
        super().warm_up(rounds)


def serve(line: Line, order: EdgeOrder) -> None:
    """The edge: loads, then listens when it is told where; as a replacement that may be much later."""
    _prepare_process()
    enter(order.namespace)
    from splitexit.live.server import EdgeServer

    use_one_thread()
    config = order.config
    runtime = _WarmEdge(
        LiveModel.open(Bundle.open(order.bundle), order.pairs),
        workers=config.workers,
        queue=config.queue,
        batching=config.batching,
        hardware=config.hardware,
        calibration=order.calibration,
    )
    runtime.warm_up(3)
    settle_memory()
    line.tell("loaded")
    _, address = line.next("listen")
    server = EdgeServer(runtime, address)
    server.start()
    line.tell("listening", server.address)
    line.next("end")


def drive(line: Line, order: DeviceOrder) -> None:
    """A device: loads, connects from where it is told, then runs as often as it is told."""
    _prepare_process()
    from splitexit.live.run import Station

    station = Station.open(order.scenario, order.data, order.host, order.number)
    station.warm_up()
    line.tell("loaded")
    _, place = line.next("connect")
    assert isinstance(place, Place)
    enter(place.namespace)
    with station.connect(place.address, line.say) as client:
        line.tell("connected")
        while True:
            _, policy, seed, requests = line.next("prepare")
            rows = _Rows(line)
            shift = station.prepare(policy, seed, client, rows.add, requests)
            line.handlers["stop"] = shift.runtime.stop
            _await(lambda: client.ready, f"no edge at {place.address}")
            station.greet(client)
            settle_memory()
            line.tell("ready")
            _, origin_s = line.next("begin")
            late = shift.run(origin_s)
            rows.hand_over()
            line.tell("done", late, shift.runtime.decide_ns)


def _prepare_process() -> None:
    """One core for each process, as a device has for a request: before torch is imported."""
    os.environ["OMP_NUM_THREADS"] = "1"
    tune_process()


def _await(condition: Callable[[], bool], otherwise: str) -> None:
    """Until the condition holds; raises ProcessError where that takes too long."""
    give_up_s = time.monotonic() + READY_S
    while not condition():
        if time.monotonic() > give_up_s:
            raise ProcessError(f"{otherwise} for {READY_S:.0f} s")
        time.sleep(0.02)


class _Rows:
    """Hands rows to the parent, a few at a time: sending each would wake the parent between any two requests."""

    def __init__(self, line: Line) -> None:
        self._line, self._rows, self._sent_s = line, list[Completion](), time.monotonic()

    def add(self, row: Completion) -> None:
        """One more row."""
        self._rows.append(row)
        if time.monotonic() - self._sent_s > PIECE_S:
            self.hand_over()

    def hand_over(self) -> None:
        """Sends what there is."""
        self._line.tell("rows", self._rows)
        self._rows, self._sent_s = [], time.monotonic()
