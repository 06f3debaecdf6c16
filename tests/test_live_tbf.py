"""Links by the kernel's token bucket: the commands, what is refused, and real packets where the kernel has it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from splitexit.errors import ProcessError, UsageError
from splitexit.links import Fifo, Link
from splitexit.links.constant import Constant
from splitexit.links.modulated import Modulated
from splitexit.links.presets import Lte
from splitexit.links.token_bucket import TokenBucket
from splitexit.live import tbf
from splitexit.live.netns import EDGE
from splitexit.live.tbf import FRAME_BYTES, TbfNetwork, Veths, disciplines, has, misfit, require_delay
from tests.synthetic import experiment
from tests.tun_machine import needs_tbf, own_spaces

FAST = {"name": "constant", "mbps": 8.0}


class FakeSpaces:
    """Namespaces on paper."""

    def __init__(self, devices: int) -> None:
        self.edge, self.devices = "edge", [f"space {number}" for number in range(devices)]
        self.all = [self.edge, *self.devices]

    def close(self) -> None:
        """Nothing is there."""


class FakeKernel:
    """Takes down the commands; tc knows these disciplines alone, and shows what was added."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *known: str) -> None:
        self.known, self.commands, self.told = known, list[str](), ""
        self.present: dict[tuple[str, str], list[dict[str, Any]]] = {}
        monkeypatch.setattr(tbf, "run", self.run)
        monkeypatch.setattr(tbf, "Spaces", FakeSpaces)
        monkeypatch.setattr(tbf, "inside", lambda space, act: None)

    def run(self, *command: str, told: str = "") -> str:
        self.told += told
        if command[0] != "tc":
            return ""
        self.commands.append(" ".join(command))
        where = (command[2], command[command.index("dev") + 1])
        if "show" in command:
            return json.dumps(self.present.get(where, []))
        if "del" in command:
            del self.present[where]
            return ""
        kind = next(word for word in command if word in ("tbf", "netem"))
        if kind not in self.known:
            raise ProcessError("tc qdisc: Error: Specified qdisc kind is unknown.")
        counted = {"kind": kind, "bytes": 3000, "packets": 2, "drops": 1}
        self.present.setdefault(where, []).append(counted | ({"root": True} if "root" in command else {}))
        return ""


def test_the_rate_is_that_of_ip() -> None:
    """The kernel counts 14 bytes of Ethernet with each packet of 1500; two frames may go at once, or a millisecond."""
    assert FRAME_BYTES == 1514
    assert disciplines(Constant(mbps=1.5)) == ["root tbf rate 1514000bit burst 3028 limit 1514000"]
    assert disciplines(Constant(mbps=150.0)) == ["root tbf rate 151400000bit burst 18925 limit 1514000"]


def test_a_delay_is_netem_s() -> None:
    """The rate below it, as netem's manual has it."""
    assert disciplines(Constant(mbps=1.5, delay_ms=2.5)) == [
        "root handle 1: netem delay 2500us limit 1000",
        "parent 1:1 handle 10: tbf rate 1514000bit burst 3028 limit 1514000",
    ]


@pytest.mark.parametrize(
    ("link", "what"),
    [
        (Constant(mbps=1.0), ""),
        (Lte(transport="tcp"), ""),
        (TokenBucket(mbps=1.0, depth_kb=10.0), "its rate changes (TokenBucket)"),
        (Modulated(Constant(mbps=1.0), [(1.0, 2.0, 0.5)]), "its rate changes (Modulated)"),
        (Constant(mbps=1.0, jitter_ms=1.0), "its delay varies"),
    ],
)
def test_what_a_bucket_cannot_be(link: Link, what: str) -> None:
    assert misfit(link) == what


def test_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each discipline is tried in a namespace of its own."""
    monkeypatch.setattr(tbf.netns, "require", lambda kind, tools: None)
    kernel = FakeKernel(monkeypatch, "tbf")
    assert (has("tbf"), has("netem")) == (True, False)
    assert kernel.commands[0] == "tc -n edge qdisc add dev lo root tbf rate 1mbit burst 4000 limit 100000"
    TbfNetwork.require()
    with pytest.raises(UsageError, match="^--network tbf: a delay needs netem, which this kernel has not"):
        require_delay()
    FakeKernel(monkeypatch)
    with pytest.raises(UsageError, match=r"^--network tbf: this kernel has no tbf \(CONFIG_NET_SCH_TBF\); take"):
        TbfNetwork.require()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({}, "a delay needs netem, which this kernel has not (CONFIG_NET_SCH_NETEM); take --network tun"),
        (
            {"uplink": {"name": "markov", "mbps": [1.0, 2.0], "dwell_ms": 9.0}},
            "uplink of device 0: its rate changes (Markov); take --network tun",
        ),
        (
            {"events": [{"kind": "outage", "at_s": 1.0, "for_s": 1.0, "direction": "down"}], "uplink": FAST},
            "downlink of device 0: its rate changes (Modulated); take --network tun",
        ),
        (
            {"access_points": {"cafe": {}}, "devices__access_point": "cafe"},
            "access_points.cafe: devices share it; take --network tun",
        ),
    ],
)
def test_scenarios_that_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, Any], what: str
) -> None:
    """In one line, before anything is made."""
    kernel = FakeKernel(monkeypatch, "tbf")
    with pytest.raises(UsageError) as caught:
        TbfNetwork(experiment(tmp_path, **changes))
    assert str(caught.value) == f"--network tbf: {what}"
    assert not kernel.told


def test_the_commands_of_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pairs of devices, then a bucket at each end, counted and removed at the end."""
    kernel = FakeKernel(monkeypatch, "tbf", "netem")
    down = {"name": "constant", "mbps": 80.0, "delay_ms": 5.0}
    made = TbfNetwork(experiment(tmp_path, uplink=FAST, downlink=down))
    assert "link add splitexit0 type veth peer name splitexit netns space 0\n" in kernel.told
    assert "addr add 10.232.0.1 peer 10.232.0.2 dev splitexit0\n" in kernel.told
    assert "addr add 10.232.0.2/16 dev splitexit\n" in kernel.told
    assert made.edge.namespace == "edge"
    made.connect(made.edge.address)
    assert made.device(0).namespace == "space 0"
    kernel.commands.clear()
    made.begin(0, time.monotonic())
    assert [line for line in kernel.commands if " add " in line] == [
        "tc -n space 0 qdisc add dev splitexit root tbf rate 8074667bit burst 3028 limit 1514000",
        "tc -n edge qdisc add dev splitexit0 root handle 1: netem delay 5000us limit 1000",
        "tc -n edge qdisc add dev splitexit0 parent 1:1 handle 10: "
        "tbf rate 80746667bit burst 10093 limit 1514000",
    ]  # fmt: skip
    counted = {"bytes": 3000, "packets": 2, "dropped": 1}
    assert made.end() == {"device 0": {"up": counted, "down": counted}}
    assert set(kernel.present) == {("edge", "lo")}  # of the trial; it goes with its namespace
    assert made.end() == {}
    made.close()


@pytest.mark.serial
@needs_tbf
def test_a_bucket_of_the_kernel_s(tmp_path: Path) -> None:
    """100 packets of 1000 bytes at 8 Mbit/s take 0.1 s, but for what may go at once; then all go at once again."""
    from tests.test_live_tun import Socketed, send_up, stamps

    before, made = own_spaces(), Veths(["device 0"])
    try:
        sockets = Socketed(made)
        send_up(sockets, 0, 100)  # neighbours get to know each other
        assert stamps(sockets.edge, 1)
        made.begin({"device 0": (Fifo(Constant(mbps=8.0)), Fifo(Constant(mbps=8.0)))})
        start_s = time.monotonic()
        for _ in range(100):
            send_up(sockets, 0, 1000)
        took_s = stamps(sockets.edge, 100)[-1] - start_s
        found = made.end()["device 0"]["up"]
        assert took_s >= 0.1 * 0.99 - 8 * 3028 / 8e6
        assert (found["bytes"], found["packets"], found["dropped"]) == (100 * 1014, 100, 0)
        assert made.end() == {}
        sockets.close()
    finally:
        made.close()
    assert own_spaces() == before


@needs_tbf
def test_a_scenario_without_delays(tmp_path: Path) -> None:
    """Through the seam, with the kernel's own bucket."""
    made = TbfNetwork(experiment(tmp_path, uplink=FAST, downlink=FAST, devices__count=2))
    try:
        assert made.transport == "tcp"
        assert made.edge.address.host == str(EDGE)
        made.begin(0, time.monotonic())
        assert set(made.end()) == {"device 0", "device 1"}
    finally:
        made.close()
