"""This machine's calibration for a live run: what a call costs through the network of that run."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest

from splitexit.bundle import Bundle
from splitexit.calibration import Calibration, Rpc
from splitexit.errors import SplitexitError, UnknownNameError
from splitexit.live import host
from splitexit.live.network import NETWORKS
from splitexit.models import corun
from tests.live_bundle import PAIRS


def check(rpc: Rpc, bundle: Bundle) -> None:
    """Framing is that of gRPC alone, whichever way the bytes take."""
    assert 40 <= rpc.uplink_overhead_bytes <= 300
    assert rpc.downlink_bytes <= 4 * bundle.spec.num_classes + 300
    assert 1e-4 < rpc.seconds.median < 0.1


@pytest.mark.parametrize("network", ["proxy", "tun"])
def test_a_call_through_an_unshaped_network(live_bundle: Bundle, network: str) -> None:
    try:
        NETWORKS.load(network).require()
    except SplitexitError as error:
        pytest.skip(str(error))
    check(host.rpc_through(live_bundle, network, calls=20), live_bundle)


def test_a_network_that_is_none(live_bundle: Bundle) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'proxy'"):
        host.calibrate_host(live_bundle, network="proxi")


def test_a_calibration_of_every_recorded_pair(
    live_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corun, "available_cores", lambda: 1)
    monkeypatch.setattr(host, "RPC_CALLS", 20)
    seen: list[tuple[int, int]] = []
    found = host.calibrate_host(live_bundle, repetitions=15, progress=lambda done, total: seen.append((done, total)))
    found.save(tmp_path / "calibration.json")
    found = Calibration.load(tmp_path / "calibration.json", live_bundle.spec)
    assert set(found.encode) == set(found.decode) == set(PAIRS)
    assert seen[-1] == (15, 15)
    assert list(found.corun) == [0, 1, 2]
    assert found.corun[0] == 1.0
    assert all(a <= b for a, b in pairwise(found.corun.values()))
    assert found.made["gap_ms"] == 15.0
    assert "--network proxy" in found.made["command"]
    check(found.rpc, live_bundle)


def test_links_of_no_time_leave_nothing_behind(live_bundle: Bundle) -> None:
    """A network is closed whatever happens inside."""
    before = set(os.listdir("/var/run/netns")) if os.path.isdir("/var/run/netns") else set()
    with pytest.raises(ZeroDivisionError), host._unshaped(live_bundle, "proxy") as network:
        assert network.edge.address.port == 0
        raise ZeroDivisionError
    after = set(os.listdir("/var/run/netns")) if os.path.isdir("/var/run/netns") else set()
    assert after <= before
