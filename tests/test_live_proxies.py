"""The network of proxies: who shares which, what it takes, and that it lets go."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from splitexit.errors import ProcessError
from splitexit.experiment import Experiment
from splitexit.links import LINKS
from splitexit.live.network import NETWORKS
from splitexit.live.proxies import ProxyNetwork
from tests import synthetic
from tests.test_live_link import receive, round_trip_s, server
from tests.test_live_processes import alive

pytestmark = pytest.mark.serial

CHANGES = {
    "groups": {"near": {"count": 3, "access_point": "cell"}, "far": {"count": 1}},
    "access_points": {"cell": {"count": 2, "uplink": {"name": "constant", "mbps": 100.0, "delay_ms": 40.0}}},
}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Three devices on two access points and one with links of its own."""
    return synthetic.experiment(tmp_path_factory.mktemp("proxies"), **CHANGES)


@pytest.fixture
def network(experiment: Experiment) -> Iterator[ProxyNetwork]:
    """In front of an edge that sends back what it gets."""
    made = ProxyNetwork(experiment)
    with server() as target:
        made.connect(target)
        yield made
        made.close()


def call(network: ProxyNetwork, number: int) -> socket.socket:
    """A device's connection to the edge."""
    place = network.device(number)
    assert place.namespace is None
    opened = socket.create_connection((place.address.host, place.address.port), timeout=20)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened


def ended(network: ProxyNetwork) -> Any:
    """What the links say at the end; bytes are counted once they have been handed on."""
    time.sleep(0.2)
    return network.end()


def test_it_is_in_the_table() -> None:
    assert NETWORKS.load("proxy") is ProxyNetwork
    ProxyNetwork.require()


def test_nothing_runs_before_there_is_an_edge(experiment: Experiment) -> None:
    network = ProxyNetwork(experiment)
    assert network.pids == {}
    assert network.edge.address.is_loopback
    network.close()


def test_devices_of_an_access_point_share_its_links(network: ProxyNetwork) -> None:
    """Device k is on number k mod 2."""
    ports = [network.device(number).address.port for number in range(4)]
    assert ports[0] == ports[2]
    assert len(set(ports)) == 3


def test_a_run(network: ProxyNetwork) -> None:
    """At once before it and after it; in it the cell's 40 ms and 5 ms, and each link says what it carried."""
    with call(network, 0) as near, call(network, 3) as far:
        assert min(round_trip_s(near) for _ in range(5)) < 0.04
        network.begin(0, time.monotonic())
        assert 0.045 <= round_trip_s(near) < 0.245
        assert 0.010 <= round_trip_s(far, 500) < 0.210
        found = ended(network)
        assert {name: (of["up"]["bytes"], of["down"]["bytes"]) for name, of in found.items()} == {
            "cell 0": (1000, 1000),
            "cell 1": (0, 0),
            "device 3": (500, 500),
        }
        assert min(round_trip_s(near) for _ in range(5)) < 0.04


def test_it_lets_go(network: ProxyNetwork) -> None:
    """Connections end with it, and its process; closing twice is closing once."""
    (pid,) = network.pids.values()
    with call(network, 1) as opened:
        round_trip_s(opened)
        network.close()
        network.close()
        assert receive(opened, 1) == b""
    assert not alive(pid)


def test_its_death_is_noticed(network: ProxyNetwork) -> None:
    assert network._child is not None
    network._child.kill()
    with pytest.raises(ProcessError, match="link was killed"):
        network.end()


@pytest.mark.parametrize(
    "name", ["3g", "lte", "5g", "wifi", "ethernet", "fading", "gilbert-elliott", "jitter", "events"]
)
def test_every_link_gets_to_the_process_of_the_links(tmp_path: Path, name: str) -> None:
    """It travels there as it is at the start of a run, chance and events included, and is used there."""
    link: dict[str, object] = {"name": name}
    changes: dict[str, object] = {}
    match name:
        case "fading":
            link |= {"bandwidth_mhz": 5.0, "snr_db": 20.0}
        case "gilbert-elliott":
            link |= {"mbps": 50.0, "p": 0.1, "r": 0.5}
        case "jitter":
            link = {"name": "constant", "mbps": 50.0, "delay_ms": 5.0, "jitter_ms": 1.0}
        case "events":
            link = {"name": "constant", "mbps": 50.0, "delay_ms": 5.0}
            changes = {"events": [{"kind": "bandwidth", "at_s": 0.0, "factor": 0.5}]}
    assert name in LINKS.names() or name in ("jitter", "events")
    network = ProxyNetwork(synthetic.experiment(tmp_path, uplink=link, downlink=link, **changes))
    with server() as target:
        try:
            network.connect(target)
            with call(network, 0) as opened:
                network.begin(1, time.monotonic())
                assert round_trip_s(opened, 100) < 5
                assert ended(network)["device 0"]["up"]["bytes"] == 100
        finally:
            network.close()
