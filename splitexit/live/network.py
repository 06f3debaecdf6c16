"""How devices reach the edge: emulated links between processes on one machine.

A network gives every device, and the edge, a place (namespace and address), and drives the scenario's links between
them. `NETWORKS` names the kinds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from splitexit.experiment import Experiment
from splitexit.live.address import Address
from splitexit.registry import Registry


@dataclass(frozen=True)
class Place:
    """Where a process listens, or whom it calls.

    address    to listen on (port 0: any free one), or to connect to
    namespace  name of the network namespace that the process enters before it opens a socket; None: the usual one
    """

    address: Address
    namespace: str | None = None


class Network(ABC):
    """The links of a scenario between real processes.

    Used in this order: made, `edge` says where the edge listens, `connect` once it does, `device` says where each
    device finds it; then for every run `begin`, `end`; at last `close`, which also serves after a failure.

    Args:
        experiment: whose links (`uplink`, `downlink`, access points) are driven, under its events.

    transport  what `transport` of the scenario's links says of such a network: "none" or "tcp"
    """

    transport: ClassVar[str] = "none"

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment

    @classmethod
    def require(cls) -> None:
        """Raises UsageError, in one line, where this machine or user cannot have such a network."""

    @property
    @abstractmethod
    def edge(self) -> Place:
        """Where the edge is to listen."""

    @abstractmethod
    def connect(self, edge: Address) -> None:
        """The edge listens there now: makes the ways to it. Until `begin`, everything goes through at once."""

    @property
    def pids(self) -> Mapping[str, int]:
        """Of the processes that it runs, by name; none until `connect`."""
        return {}

    @abstractmethod
    def device(self, number: int) -> Place:
        """From where, and at which address, this device reaches the edge."""

    @abstractmethod
    def begin(self, seed: int, origin_s: float) -> None:
        """From `origin_s` (time.monotonic()) on, which is the links' time zero, they are as this seed draws them."""

    @abstractmethod
    def end(self) -> Mapping[str, Any]:
        """The run is over: how exact each link was, by its name; then everything goes through at once again."""

    @abstractmethod
    def close(self) -> None:
        """Ends every process and removes every namespace that it made; may be called twice."""


NETWORKS: Registry[Network] = Registry(
    "network",
    {
        "proxy": "splitexit.live.proxies:ProxyNetwork",
        "tun": "splitexit.live.tun:TunNetwork",
        "tbf": "splitexit.live.tbf:TbfNetwork",
    },
)
"""proxy: TCP proxies, anywhere. tun: real TCP through a user-space packet shaper; tbf: through the kernel's token
bucket; both on Linux as root."""
