"""YAFS 3: modules on nodes, messages over links; a checkout of its branch YAFS3 is needed.

Two things are put right. A link of YAFS is busy until the message has arrived, propagation included, so transmission
and propagation are two hops with a relay between them; that is exact only where messages are never closer together
than the propagation, as here behind a device that takes as long. And it divides bytes by megabits, so sizes are
given in bits. A module serves one message at a time, so the edge has one worker: behind this device it never queues.
"""

from __future__ import annotations

import csv
import itertools
import tempfile
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from yafs.application import Application, Message, fractional_selectivity
from yafs.core import Sim
from yafs.distribution import Distribution
from yafs.placement import Placement
from yafs.selection import Selection
from yafs.topology import Topology

from benchmarks.workload import DELAY_S, DEVICE_S, DOWN_BYTES, EDGE_S, RATE_BPS, UP_BYTES

DEVICE, RELAY_UP, EDGE, RELAY_DOWN, CLIENT = range(5)
NEVER_S, ENDLESS_MBPS = 1e12, 1e12
_folder = tempfile.TemporaryDirectory(prefix="splitexit-benchmark-")


class Gaps(Distribution):  # type: ignore[misc]
    """The given gaps between arrivals, then never again."""

    def __init__(self, gaps: list[float]) -> None:
        super().__init__(name="gaps")
        self._gaps = itertools.chain(gaps, itertools.repeat(NEVER_S))

    def next(self) -> float:
        """Seconds to the next arrival."""
        return next(self._gaps)


class Fixed(Placement):  # type: ignore[misc]
    """Every module in its place, and the arrivals on the device."""

    def __init__(self, gaps: list[float], message: Message) -> None:
        super().__init__(name="fixed")
        self._gaps, self._message = gaps, message

    def initial_allocation(self, sim: Sim, app_name: str) -> None:
        """Called once by YAFS."""
        services = sim.apps[app_name].services
        sim.deploy_source(app_name, id_node=DEVICE, msg=self._message, distribution=Gaps(self._gaps))
        sim.deploy_module(app_name, "device", services["device"], [DEVICE])
        sim.deploy_module(app_name, "edge", services["edge"], [EDGE])
        sim.deploy_sink(app_name, node=CLIENT, module="client")


class ShortestPath(Selection):  # type: ignore[misc]
    """What YAFS's tutorial selects, for the one instance of every module."""

    def get_path(self, sim: Sim, app_name: str, message: Message, topology_src: int, *others: Any, **_: Any) -> Any:
        """([path], [process])."""
        alloc_des, alloc_module = others[:2]
        process = alloc_module[app_name][message.dst][0]
        return [nx.shortest_path(sim.topology.G, source=topology_src, target=alloc_des[process])], [process]


def run(arrivals: list[float]) -> Path:
    """The file of events that YAFS writes."""
    taken, up, down = (
        Message("taken", "sensor", "device", instructions=DEVICE_S, bytes=0),
        Message("up", "device", "edge", instructions=EDGE_S, bytes=8 * UP_BYTES),
        Message("down", "edge", "client", instructions=0, bytes=8 * DOWN_BYTES),
    )
    app = Application(name="workload")
    kinds = {"sensor": app.TYPE_SOURCE, "device": app.TYPE_MODULE, "edge": app.TYPE_MODULE, "client": app.TYPE_SINK}
    app.set_modules([{name: {"Type": kind}} for name, kind in kinds.items()])
    app.add_source_messages(taken)
    app.add_service_module("device", taken, up, fractional_selectivity, threshold=1.0)
    app.add_service_module("edge", up, down, fractional_selectivity, threshold=1.0)
    out = Path(_folder.name) / "events"
    sim = Sim(_topology(), default_results_path=str(out))
    sim.deploy_app(app, Fixed(np.diff(arrivals, prepend=0.0).tolist(), taken), ShortestPath())
    sim.run(arrivals[-1] + 60.0, show_progress_monitor=False)
    return out.with_suffix(".csv")


def _topology() -> Topology:
    hops = ((DEVICE, RELAY_UP), (RELAY_UP, EDGE), (EDGE, RELAY_DOWN), (RELAY_DOWN, CLIENT))
    kinds = itertools.cycle(({"BW": RATE_BPS / 1e6, "PR": 0.0}, {"BW": ENDLESS_MBPS, "PR": DELAY_S}))
    topology = Topology()
    topology.load(
        {
            "entity": [{"id": node, "model": "node", "IPT": 1.0} for node in range(5)],
            "link": [{"s": s, "d": d, **kind} for (s, d), kind in zip(hops, kinds, strict=False)],
        }
    )
    return topology


def responses(events: Path, arrivals: list[float]) -> list[float]:
    """From the emission at the sensor to the arrival at the client; nothing overtakes."""
    with events.open(newline="") as file:
        rows = list(csv.DictReader(file))
    emitted = [float(row["time_emit"]) for row in rows if row["module"] == "device"]
    answered = [float(row["time_out"]) for row in rows if row["module"] == "client"]
    return [end - start for start, end in zip(emitted, answered, strict=True)]
