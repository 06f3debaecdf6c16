"""Real TCP and UDP through the packet shaper: when packets arrive, what is dropped, what is left after a failure."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from splitexit.errors import ProcessError, UsageError
from splitexit.experiment import Experiment
from splitexit.links import Fifo, Link
from splitexit.links.constant import Constant
from splitexit.links.markov import Markov
from splitexit.links.modulated import Modulated
from splitexit.live import tun
from splitexit.live.netns import EDGE, address_of, inside
from splitexit.live.shaper import BUFFER_PACKETS, Lane, Shaper, Tun
from splitexit.live.tun import TunNetwork
from splitexit.live.ways import fresh_ways, require_fifo, way_of
from tests.live_process import wait_for
from tests.synthetic import experiment as open_experiment
from tests.tun_machine import in_python, needs_tun, own_spaces, spaces_of

pytestmark = pytest.mark.serial

PORT = 9000


class Socketed:
    """UDP sockets in the namespaces of a network: the edge's, and one for every device."""

    def __init__(self, network: Tun) -> None:
        spaces = network.spaces
        self.edge = inside(spaces.edge, lambda: bound(str(EDGE)))
        self.devices = [
            inside(space, lambda n=number: bound(str(address_of(n)))) for number, space in enumerate(spaces.devices)
        ]

    def close(self) -> None:
        """All of them."""
        for one in (self.edge, *self.devices):
            one.close()


def bound(host: str) -> socket.socket:
    """Receives what comes there, for ten seconds at most."""
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind((host, PORT))
    one.settimeout(10.0)
    return one


@contextmanager
def network(names: list[str]) -> Iterator[tuple[Tun, Socketed]]:
    """A network with sockets, for devices that send over the links of these names."""
    made = Tun(names)
    try:
        sockets = Socketed(made)
        yield made, sockets
        sockets.close()
    finally:
        made.close()


def both(link: Link) -> tuple[Fifo, Fifo]:
    """The same up and down."""
    return Fifo(link), Fifo(link)


def stamps(receiver: socket.socket, count: int) -> list[float]:
    """When so many datagrams had come, in seconds of time.monotonic()."""
    found = []
    for _ in range(count):
        receiver.recv(2000)
        found.append(time.monotonic())
    return found


def send_up(sockets: Socketed, device: int, size_bytes: int) -> None:
    """One IP packet of that size."""
    sockets.devices[device].sendto(bytes(size_bytes - 28), (str(EDGE), PORT))


@needs_tun
def test_packets_take_the_link_s_time_headers_included() -> None:
    """1000 bytes at 8 Mbit/s take 1 ms, the delay is 10 ms; ten at once follow each other. Else: at once."""
    with network(["device 0"]) as (made, sockets):
        start_s = time.monotonic()
        send_up(sockets, 0, 1000)
        assert stamps(sockets.edge, 1)[0] - start_s < 0.008
        made.begin({"device 0": both(Constant(mbps=8.0, delay_ms=10.0))}, time.monotonic())
        start_s = time.monotonic()
        for _ in range(10):
            send_up(sockets, 0, 1000)
        came_s = [one - start_s for one in stamps(sockets.edge, 10)]
        assert came_s[0] >= 0.011
        assert came_s[-1] >= 0.020
        sockets.edge.sendto(bytes(972), (str(address_of(0)), PORT))
        assert stamps(sockets.devices[0], 1)
        found = made.end()["device 0"]
        assert (found["up"]["bytes"], found["down"]["bytes"]) == (10_000, 1_000)
        assert (found["up"]["dropped"], found["down"]["dropped"]) == (0, 0)
        start_s = time.monotonic()
        send_up(sockets, 0, 1000)
        assert stamps(sockets.edge, 1)[0] - start_s < 0.008


@needs_tun
def test_before_time_zero_packets_go_at_once() -> None:
    with network(["device 0"]) as (made, sockets):
        made.begin({"device 0": both(Constant(mbps=8.0, delay_ms=2000.0))}, time.monotonic() + 5.0)
        send_up(sockets, 0, 100)
        assert stamps(sockets.edge, 1)[0] < time.monotonic() + 2.0
        assert made.end()["device 0"]["up"]["bytes"] == 0


@needs_tun
def test_what_is_under_way_at_the_end_arrives() -> None:
    """Even what would never have: the link is down for ever."""
    with network(["device 0"]) as (made, sockets):
        never = Modulated(Constant(mbps=8.0), [(0.0, float("inf"), 0.0)])
        made.begin({"device 0": both(never)}, time.monotonic())
        send_up(sockets, 0, 100)
        sockets.edge.settimeout(0.2)
        with pytest.raises(TimeoutError):
            stamps(sockets.edge, 1)
        sockets.edge.settimeout(10.0)
        assert made.end()["device 0"]["up"]["bytes"] == 0
        assert len(stamps(sockets.edge, 1)) == 1


@needs_tun
def test_a_full_buffer_drops_the_tail() -> None:
    """Of 30 packets at once ten may wait; links that vary by chance come to the shaper as they are drawn here."""
    with network(["device 0"]) as (made, sockets):
        made.begin({"device 0": both(Markov(mbps=[0.8, 0.9], dwell_ms=50.0))}, time.monotonic(), 10)
        for _ in range(30):
            send_up(sockets, 0, 1000)
        assert len(stamps(sockets.edge, 10)) == 10
        found = made.end()["device 0"]["up"]
        assert found["bytes"] == 10_000
        assert found["dropped"] == 20


@needs_tun
def test_devices_of_an_access_point_wait_for_each_other() -> None:
    """10 packets of 1000 bytes each at 0.8 Mbit/s take 0.2 s together; a third device has a link of its own."""
    with network(["cell 0", "cell 0", "device 2"]) as (made, sockets):
        ways = {"cell 0": both(Constant(mbps=0.8)), "device 2": both(Constant(mbps=0.8))}
        made.begin(ways, time.monotonic())
        start_s = time.monotonic()
        for _ in range(10):
            for device in (0, 1, 2):
                send_up(sockets, device, 1000)
        took_s = stamps(sockets.edge, 30)[-1] - start_s
        found = made.end()
    assert took_s >= 0.2
    assert found["cell 0"]["up"]["bytes"] == 20_000
    assert found["device 2"]["up"]["bytes"] == 10_000


@needs_tun
def test_tcp_has_a_window_here_and_the_usual_congestion_control() -> None:
    """64 KiB on a fresh connection with 40 ms to and fro: two round trips more than the bytes take."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            left = 65_536
            while left:
                left -= len(connection.recv(left))
            connection.sendall(struct.pack("!d", time.monotonic()))

    with network(["device 0"]) as (made, _):
        listener = inside(made.spaces.edge, lambda: socket.create_server((str(EDGE), PORT)))
        Thread(target=serve, daemon=True).start()
        made.begin({"device 0": both(Constant(mbps=100.0, delay_ms=20.0))}, time.monotonic())
        client = inside(made.spaces.devices[0], lambda: socket.create_connection((str(EDGE), PORT), timeout=10))
        with client:
            control = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")
            start_s = time.monotonic()
            client.sendall(bytes(65_536))
            took_s = struct.unpack("!d", client.recv(8))[0] - start_s
        listener.close()
    assert control == b"cubic"
    assert took_s >= 0.101  # by hand in tests/test_links_tcp.py


@needs_tun
@pytest.mark.parametrize("how", ["ends", "is killed"])
def test_nothing_is_left_of_a_shaper_that_fails(how: str) -> None:
    """It ends with an error in one line where it is needed next; namespaces go at the end."""
    before = own_spaces()
    made = Tun(["device 0"])
    assert len(own_spaces()) == len(before) + 2
    try:
        os.kill(made.pid, signal.SIGKILL if how == "is killed" else signal.SIGTERM)
        with pytest.raises(ProcessError, match=r"^link was killed \(SIG(KILL|TERM)\)$"):
            made.begin({"device 0": both(Constant(mbps=1.0))}, time.monotonic())
    finally:
        made.close()
        made.close()
    assert own_spaces() == before


class Failing(Constant):
    """A link that fails in the shaper."""

    def finish_s(self, start_s: float, size_bytes: float) -> float:
        raise ArithmeticError("no more")


@needs_tun
def test_a_link_that_fails_ends_the_shaper() -> None:
    """Said in one line at the next turn, instead of packets that wait for ever."""
    with network(["device 0"]) as (made, sockets):
        made.begin({"device 0": both(Failing(mbps=8.0, jitter_ms=1.0))}, time.monotonic())
        send_up(sockets, 0, 100)
        wait_for(lambda: not _alive(made.pid))
        with pytest.raises(ProcessError, match="^link: internal error: ArithmeticError: no more$"):
            made.end()


def _alive(pid: int) -> bool:
    return "State:\tZ" not in Path("/proc", str(pid), "status").read_text()


HELD = """
import time
from splitexit.live.shaper import Tun
if __name__ == "__main__":
    made = Tun(["device 0"])
    try:
        print("up", made.pid, flush=True)
        time.sleep(60)
    finally:
        made.close()
"""


@needs_tun
def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    """To the whole session, as a terminal sends it."""
    process = in_python(HELD)
    assert process.stdout is not None
    shaper = int(process.stdout.readline().split()[1])
    assert len(spaces_of(process.pid)) == 2
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=20)
    assert spaces_of(process.pid) == []
    assert not Path("/proc", str(shaper)).exists()


@needs_tun
def test_after_a_kill_the_shaper_ends_and_the_next_network_clears_up() -> None:
    process = in_python(HELD)
    assert process.stdout is not None
    shaper = int(process.stdout.readline().split()[1])
    process.kill()
    process.communicate()
    wait_for(lambda: not Path("/proc", str(shaper)).exists())
    assert len(spaces_of(process.pid)) == 2
    Tun(["device 0"]).close()
    assert spaces_of(process.pid) == []


@needs_tun
def test_a_scenario_s_network(tmp_path: Path) -> None:
    """The seam: places, the run, and links by name; two runs of one seed are the same links."""
    experiment = open_experiment(tmp_path, devices__count=2)
    made = TunNetwork(experiment)
    try:
        assert made.transport == "tcp"
        assert made.edge.address.host == str(EDGE)
        made.connect(made.edge.address)
        assert {made.device(number).namespace for number in (0, 1)} == set(own_spaces()) - {made.edge.namespace}
        assert list(made.pids) == ["link"]
        for seed in (0, 1):
            made.begin(seed, time.monotonic())
            assert set(made.end()) == {"device 0", "device 1"}
        assert made.end() == {}
    finally:
        made.close()


def test_no_tun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("splitexit.live.netns.require", lambda kind, tools: None)
    monkeypatch.setattr(tun, "TUN", tmp_path / "tun")
    with pytest.raises(UsageError, match=f"^--network tun: there is no {tmp_path}/tun; run `modprobe tun`, or take"):
        TunNetwork.require()


def test_a_lane_by_hand() -> None:
    """Without a kernel: 1000 bytes at 8 Mbit/s, two may wait, and what is handed on is written."""
    ours, theirs = os.pipe()
    lane = Lane(Fifo(Constant(mbps=8.0, delay_ms=5.0)), buffer_packets=2)
    for _ in range(3):
        lane.offer(0.0, bytes(1000), theirs)
    assert lane.fidelity.dropped == 1
    assert lane.due_s == pytest.approx(0.006)
    lane.offer(0.0011, bytes(1000), theirs)  # the first has left the buffer, though it has not arrived
    lane.hand_on(0.0065)
    assert len(os.read(ours, 9000)) == 1000
    assert lane.fidelity.late_s[0] == pytest.approx(0.0005)
    lane.let_go()
    assert len(os.read(ours, 9000)) == 2000
    assert lane.due_s == float("inf")
    assert lane.fidelity.size_bytes == 1000
    for end in (ours, theirs):
        os.close(end)


def test_a_shaper_that_nobody_told_anything(tmp_path: Path) -> None:
    """Passes on IPv4 to whom it is for; the rest, and what is for nobody, goes nowhere."""
    edge, edge_here = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    device, device_here = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for one in (edge_here, device_here):
        one.setblocking(False)
    shaper = Shaper(edge_here.fileno(), [device_here.fileno()], ["device 0"])
    Thread(target=shaper.run, daemon=True).start()
    packet = bytes([0x45, *bytes(15), *address_of(0).packed])
    device.send(packet)
    assert edge.recv(100) == packet
    edge.send(b"\x60" + packet[1:])
    edge.send(packet[:16] + address_of(7).packed)
    edge.send(packet)
    assert device.recv(100) == packet
    assert shaper.do(shaper.end) == {}
    with pytest.raises(ZeroDivisionError):
        shaper.do(lambda: 1 // 0)


def test_ways(tmp_path: Path) -> None:
    """Devices of an access point have one; a cell that shares its processor cannot be one of packets."""
    plain = open_experiment(tmp_path, devices__count=2)
    assert [way_of(plain, device) for device in (0, 1)] == ["device 0", "device 1"]
    assert set(fresh_ways(plain, 0)) == {"device 0", "device 1"}
    require_fifo(plain)


def cell(folder: Path, sharing: str) -> Experiment:
    """Three devices on two access points."""
    points = {"cafe": {"sharing": sharing, "count": 2}}
    return open_experiment(folder, access_points=points, devices__access_point="cafe", devices__count=3)


def test_ways_of_access_points(tmp_path: Path) -> None:
    shared = cell(tmp_path, "fifo")
    require_fifo(shared)
    assert [way_of(shared, device) for device in range(3)] == ["cafe 0", "cafe 1", "cafe 0"]
    assert set(fresh_ways(shared, 0)) == {"cafe 0", "cafe 1"}
    with pytest.raises(UsageError, match=r"access_points\.cafe\.sharing: a real network here serves packets first"):
        require_fifo(cell(tmp_path, "processor"))


def test_links_without_their_transport() -> None:
    """Packets have their headers already; the link itself keeps its transport."""
    link = Constant(mbps=8.0, delay_ms=10.0, jitter_ms=1.0, transport="tcp")
    bare = link.bare()
    assert (bare.transport, bare.plain, link.transport) == ("none", False, "tcp")
    assert Fifo(Constant(mbps=8.0, transport="tcp").bare()).send(0.0, 1000) == (0.0, 0.001, 0.001)


def test_the_buffer_is_that_of_linux() -> None:
    """A thousand packets hold any message of a megabyte: the link model knows no losses."""
    assert BUFFER_PACKETS * 1448 > 2**20
