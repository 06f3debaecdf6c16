"""Links between processes in the kernel: a veth pair for every device, with a token bucket (tbf) at the link's rate.

For links that never change: no process stands in the way, but nothing follows a trace or an event either. Delay is
netem's, where the kernel has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from splitexit.errors import ProcessError, UsageError
from splitexit.experiment import Experiment
from splitexit.links import PACKET_BYTES, Link
from splitexit.links.constant import Constant
from splitexit.live import netns
from splitexit.live.address import Address
from splitexit.live.netns import EDGE, PREFIX_BITS, QUIET, TCP, Spaces, address_of, configure, inside, run
from splitexit.live.network import Network, Place
from splitexit.live.shaper import BUFFER_PACKETS, DEVICE
from splitexit.live.ways import Ways, fresh_ways, way_of

FRAME_BYTES = PACKET_BYTES + 14
"""What the kernel counts for a full packet: with the head of an Ethernet frame (IEEE 802.3), which the link's rate does
not count."""

BURST_S = 0.001
"""Tokens that may gather, in seconds of the rate, but for two frames at least: tbf's clock is the kernel's
high-resolution timer, and a bucket that is too small for its latency loses rate (tc-tbf(8), `burst`)."""

_TRIAL = {
    "tbf": "root tbf rate 1mbit burst 4000 limit 100000",
    "netem": "root netem delay 1ms",
}


def has(discipline: str) -> bool:
    """Whether this kernel has that queueing discipline: tries it in a namespace of its own."""
    trial = Spaces(0)
    try:
        run("tc", "-n", trial.edge, "qdisc", "add", "dev", "lo", *_TRIAL[discipline].split())
    except ProcessError:
        return False
    finally:
        trial.close()
    return True


def disciplines(link: Constant) -> list[str]:
    """What `tc qdisc add dev DEVICE` is told for a link, in this order (the recipe of netem's manual for both)."""
    rate_bps = link.mean_bps * FRAME_BYTES / PACKET_BYTES
    burst_bytes = max(2 * FRAME_BYTES, round(rate_bps * BURST_S / 8))
    bucket = f"tbf rate {rate_bps:.0f}bit burst {burst_bytes} limit {BUFFER_PACKETS * FRAME_BYTES}"
    if not link.delay_s:
        return [f"root {bucket}"]
    delay = f"root handle 1: netem delay {1e6 * link.delay_s:.0f}us limit {BUFFER_PACKETS}"
    return [delay, f"parent 1:1 handle 10: {bucket}"]


def misfit(link: Link) -> str:
    """Why a token bucket cannot be that link; empty if it can."""
    if not isinstance(link, Constant):
        return f"its rate changes ({type(link).__name__})"
    return "its delay varies" if link.jitter_ms else ""


class Veths:
    """Namespaces, and a pair of devices from the edge to each of the others.

    Args:
        names: of the link that each device sends over; each its own.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self.spaces = Spaces(len(names))
        try:
            with netns.congestion_control_allowed():
                for space in self.spaces.all:
                    inside(space, lambda: configure(QUIET | TCP))
            for number, space in enumerate(self.spaces.devices):
                self._join(number, space)
        except BaseException:
            self.close()
            raise

    def _join(self, number: int, space: str) -> None:
        here, there = f"{DEVICE}{number}", address_of(number)
        run("ip", "-n", self.spaces.edge, "-batch", "-", told=_lines(
            f"link add {here} type veth peer name {DEVICE} netns {space}",
            f"addr add {EDGE} peer {there} dev {here}",
            f"link set {here} mtu {PACKET_BYTES} up",
            "link set lo up",
        ))  # fmt: skip
        run("ip", "-n", space, "-batch", "-", told=_lines(
            f"addr add {there}/{PREFIX_BITS} dev {DEVICE}",
            f"link set {DEVICE} mtu {PACKET_BYTES} up",
            "link set lo up",
        ))  # fmt: skip

    def _ends(self) -> Iterator[tuple[str, str, str, str]]:
        """Name of the link, direction, namespace and device that sends."""
        for number, (name, space) in enumerate(zip(self._names, self.spaces.devices, strict=True)):
            yield name, "up", space, DEVICE
            yield name, "down", self.spaces.edge, f"{DEVICE}{number}"

    def begin(self, ways: Ways) -> None:
        """From now on the links are those, which `misfit` has nothing to say of."""
        self.end()
        for name, direction, space, device in self._ends():
            link = ways[name][direction == "down"].link
            assert isinstance(link, Constant), "see misfit"
            for words in disciplines(link):
                run("tc", "-n", space, "qdisc", "add", "dev", device, *words.split())

    def end(self) -> dict[str, dict[str, dict[str, float]]]:
        """What passed each link, by name and direction; then everything goes through at once."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        for name, direction, space, device in self._ends():
            for entry in json.loads(run("tc", "-n", space, "-s", "-j", "qdisc", "show", "dev", device)):
                if entry.get("kind") == "tbf":
                    counted = {"bytes": entry["bytes"], "packets": entry["packets"], "dropped": entry["drops"]}
                    found.setdefault(name, {})[direction] = counted
                if entry.get("root") and entry.get("kind") in _TRIAL:
                    run("tc", "-n", space, "qdisc", "del", "dev", device, "root")
        return found

    def close(self) -> None:
        """Removes the namespaces, and the devices with them; may be called twice."""
        self.spaces.close()


def _lines(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


class TbfNetwork(Network):
    """A namespace for the edge and for every device, joined by veth pairs that the kernel shapes.

    `end` reports what was counted; how exact the rate is, `splitexit link --self-test --network tbf` measures.

    Raises UsageError where a link is not one rate and one delay, or the kernel lacks what it needs.
    """

    transport: ClassVar[str] = "tcp"

    def __init__(self, experiment: Experiment) -> None:
        super().__init__(experiment)
        self._check()
        self._veths = Veths([way_of(experiment, device) for device in range(experiment.total_devices)])
        self._port = 0

    @classmethod
    def require(cls) -> None:
        netns.require("tbf", ("ip", "tc"))
        if not has("tbf"):
            raise UsageError("--network tbf: this kernel has no tbf (CONFIG_NET_SCH_TBF); take --network tun")

    def _check(self) -> None:
        """Raises UsageError for the first link that is beyond a token bucket."""
        if self.experiment.cells:
            label = self.experiment.cells[0].label
            raise UsageError(f"--network tbf: access_points.{label}: devices share it; take --network tun")
        delayed = False
        for name, both in fresh_ways(self.experiment, 0).items():
            for direction, fifo in zip(("uplink", "downlink"), both, strict=True):
                if what := misfit(fifo.link):
                    raise UsageError(f"--network tbf: {direction} of {name}: {what}; take --network tun")
                delayed |= fifo.link.delay_s > 0.0
        if delayed:
            require_delay()

    @property
    def edge(self) -> Place:
        return Place(Address(str(EDGE), self._port), self._veths.spaces.edge)

    def connect(self, edge: Address) -> None:
        self._port = edge.port

    def device(self, number: int) -> Place:
        return Place(Address(str(EDGE), self._port), self._veths.spaces.devices[number])

    def begin(self, seed: int, origin_s: float) -> None:
        self._veths.begin(fresh_ways(self.experiment, seed))  # such a link is the same at all times

    def end(self) -> Mapping[str, Any]:
        return self._veths.end()

    def close(self) -> None:
        self._veths.close()


def require_delay() -> None:
    """Raises UsageError where the kernel cannot delay packets."""
    if not has("netem"):
        raise UsageError(
            "--network tbf: a delay needs netem, which this kernel has not (CONFIG_NET_SCH_NETEM); take --network tun"
        )
