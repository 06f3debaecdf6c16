"""Links between processes as a real IP network: namespaces, TUN devices, a shaper of packets, the kernel's own TCP."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from splitexit.errors import UsageError
from splitexit.experiment import Experiment
from splitexit.live import netns
from splitexit.live.address import Address
from splitexit.live.network import Network, Place
from splitexit.live.shaper import Tun
from splitexit.live.ways import fresh_ways, require_fifo, way_of

TUN = Path("/dev/net/tun")


class TunNetwork(Network):
    """A namespace for the edge and for every device; packets take the time that the links say, headers included.

    The links' `transport` does not count: the kernel's TCP is the transport.
    """

    transport: ClassVar[str] = "tcp"

    def __init__(self, experiment: Experiment) -> None:
        super().__init__(experiment)
        require_fifo(experiment)
        self._tun = Tun([way_of(experiment, device) for device in range(experiment.total_devices)])
        self._port = 0

    @classmethod
    def require(cls) -> None:
        netns.require("tun", ("ip",))
        if not TUN.exists():
            raise UsageError(f"--network tun: there is no {TUN}; run `modprobe tun`, or take --network proxy")

    @property
    def edge(self) -> Place:
        return Place(Address(str(netns.EDGE), self._port), self._tun.spaces.edge)

    def connect(self, edge: Address) -> None:
        self._port = edge.port

    @property
    def pids(self) -> Mapping[str, int]:
        return {"link": self._tun.pid}

    def device(self, number: int) -> Place:
        return Place(Address(str(netns.EDGE), self._port), self._tun.spaces.devices[number])

    def begin(self, seed: int, origin_s: float) -> None:
        self._tun.begin(fresh_ways(self.experiment, seed), origin_s)

    def end(self) -> Mapping[str, Any]:
        return self._tun.end()

    def close(self) -> None:
        self._tun.close()
