"""Links between processes as TCP proxies, all in one process: anywhere, without privileges.

One proxy for each device with links of its own and one for each access point. A thread hands on for each direction;
they sleep but for some 150 microseconds before a piece is due, so that dozens of them share a core without harm.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any

from splitexit.experiment import Experiment
from splitexit.live.address import Address
from splitexit.live.link import LinkProxy
from splitexit.live.network import Network, Place
from splitexit.live.processes import Child, Line, hurry
from splitexit.live.ways import fresh_ways, way_of

LOOPBACK = Address("127.0.0.1", 0)
ANSWER_S = 30.0
"""How long the process of the links may take for an answer."""


class ProxyNetwork(Network):
    """Every device finds the edge at a port of its own, or of its access point."""

    def __init__(self, experiment: Experiment) -> None:
        super().__init__(experiment)
        self._child: Child | None = None
        self._addresses: dict[str, Address] = {}

    @property
    def edge(self) -> Place:
        return Place(LOOPBACK)

    def connect(self, edge: Address) -> None:
        of = self.experiment
        names = {way_of(of, device): of.cell(device) is not None for device in range(of.total_devices)}
        self._child = Child("link", relay, edge, names)
        (self._addresses,) = self._child.expect("listening")

    @property
    def pids(self) -> Mapping[str, int]:
        return {} if self._child is None else {"link": self._child.pid}

    def device(self, number: int) -> Place:
        return Place(self._addresses[way_of(self.experiment, number)])

    def begin(self, seed: int, origin_s: float) -> None:
        assert self._child is not None, "begin comes after connect"
        self._child.tell("begin", fresh_ways(self.experiment, seed), origin_s)
        self._child.expect("begun", ANSWER_S)

    def end(self) -> Mapping[str, Any]:
        assert self._child is not None, "end comes after begin"
        self._child.tell("end")
        found: Mapping[str, Any]
        (found,) = self._child.expect("ended", ANSWER_S)
        return found

    def close(self) -> None:
        if self._child is not None:
            self._child.close()


def relay(line: Line, edge: Address, names: Mapping[str, bool]) -> None:
    """The process of the links: a proxy in front of the edge for every name, with whether devices share it.

    Nothing here makes cycles, so that a collector of them would only stop all links now and then.
    """
    hurry()
    proxies = {name: LinkProxy(LOOPBACK, edge, shared=shared) for name, shared in names.items()}
    gc.disable()
    line.tell("listening", {name: proxy.address for name, proxy in proxies.items()})
    while True:
        match line.next("begin", "end"):
            case "begin", links, origin_s:
                for name, (up, down) in links.items():
                    proxies[name].begin(up, down, origin_s)
                line.tell("begun")
            case _:
                line.tell("ended", {name: proxy.end() for name, proxy in proxies.items()})
