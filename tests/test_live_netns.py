"""Namespaces: refused in one line where they cannot be had, removed whatever happens."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from splitexit.errors import ProcessError, SplitexitError, UsageError
from splitexit.live import netns
from splitexit.live.netns import MOST_DEVICES, Spaces, address_of, configure, inside, number_of, remove_leftovers, run
from tests.tun_machine import needs_tun, own_spaces, spaces_of

ALL = sum(1 << bit for bit in netns.CAPABILITIES.values())


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine that has everything, from which a test takes something away."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(netns, "_effective", lambda: ALL)
    monkeypatch.setattr(shutil, "which", lambda tool: f"/sbin/{tool}")
    return monkeypatch


def refusal() -> str:
    """What `require` says, in one line."""
    with pytest.raises(UsageError) as caught:
        netns.require("tun", ("ip",))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_is_missing(able: pytest.MonkeyPatch) -> None:
    netns.require("tun", ("ip", "tc"))


def test_only_on_linux(able: pytest.MonkeyPatch) -> None:
    able.setattr(sys, "platform", "darwin")
    assert refusal() == "--network tun: needs Linux, this is darwin; or take --network proxy"


@pytest.mark.parametrize(
    ("bits", "named"),
    [
        (0, "CAP_NET_ADMIN and CAP_SYS_ADMIN"),
        (1 << 21, "CAP_NET_ADMIN"),
        (1 << 12, "CAP_SYS_ADMIN"),
    ],
)
def test_privileges(able: pytest.MonkeyPatch, bits: int, named: str) -> None:
    able.setattr(netns, "_effective", lambda: bits)
    assert refusal() == f"--network tun: needs {named}; run it as root (sudo), or take --network proxy"


def test_iproute2(able: pytest.MonkeyPatch) -> None:
    able.setattr(shutil, "which", lambda tool: None)
    assert refusal() == "--network tun: there is no program `ip`; install iproute2, or take --network proxy"


def test_capabilities_are_read_from_the_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nCapPrm:\t0\nCapEff:\t0000000000201000\nCapBnd:\tff\n")
    monkeypatch.setattr(netns, "_STATUS", status)
    assert netns._effective() == ALL


def test_a_command_that_fails() -> None:
    """In one line, with the first of its own."""
    with pytest.raises(ProcessError, match=r"^sh -c echo no >&2; echo more >&2; exit 3: no$"):
        run("sh", "-c", "echo no >&2; echo more >&2; exit 3")
    with pytest.raises(ProcessError, match="exit code 4$"):
        run("sh", "-c", "exit 4")
    assert run("cat", told="hello") == "hello"


def test_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Written where the kernel has them, passed by where it has not; a refusal is one line."""
    monkeypatch.setattr(netns, "_SETTINGS", tmp_path)
    (tmp_path / "one").write_text("0")
    configure({"one": "1", "none/such": "2"})
    assert (tmp_path / "one").read_text() == "1"
    (tmp_path / "two").mkdir()
    with pytest.raises(ProcessError, match="^this kernel takes no two = 1: Is a directory$"):
        configure({"two": "1"})


def test_congestion_control_is_allowed_for_a_while(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The list is as it was afterwards; nothing is written where the name is on it."""
    monkeypatch.setattr(netns, "_SETTINGS", tmp_path)
    (tmp_path / "ipv4").mkdir()
    file = tmp_path / "ipv4/tcp_allowed_congestion_control"
    file.write_text("reno bbr\n")
    with netns.congestion_control_allowed():
        assert file.read_text() == "reno bbr cubic"
    assert file.read_text().startswith("reno bbr\n")  # the kernel takes each writing as a whole
    file.write_text("reno cubic\n")
    with netns.congestion_control_allowed():
        assert file.read_text() == "reno cubic\n"


@pytest.mark.parametrize("device", [0, 1, 252, 253, 254, 300, MOST_DEVICES - 1])
def test_addresses(device: int) -> None:
    """Each device has one of its own, from which its number can be told; none is the network's or the broadcast."""
    address = address_of(device)
    assert number_of(address.packed) == device
    assert address.packed[:2] == netns.EDGE.packed[:2]
    assert address.packed[2:] not in (b"\0\0", b"\xff\xff", netns.EDGE.packed[2:])


def test_too_many_devices() -> None:
    with pytest.raises(UsageError, match=f"^{MOST_DEVICES + 1} devices; {MOST_DEVICES} at most have addresses$"):
        Spaces(MOST_DEVICES + 1)


@needs_tun
def test_namespaces_come_and_go() -> None:
    """Two sets of one process do not meet."""
    before = own_spaces()
    one, other = Spaces(2), Spaces(1)
    assert len(one.all) == 3
    assert set(own_spaces()) == {*before, *one.all, *other.all}
    one.close()
    one.close()
    assert set(own_spaces()) == {*before, *other.all}
    other.close()
    assert own_spaces() == before


@needs_tun
def test_a_namespace_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves none of those before it."""
    before, made = own_spaces(), []

    def failing(*command: str, told: str = "") -> str:
        made.append(command)
        if len(made) == 3:
            raise ProcessError("no more")
        return run(*command, told=told)

    monkeypatch.setattr(netns, "run", failing)
    with pytest.raises(ProcessError, match="^no more$"):
        Spaces(4)
    assert own_spaces() == before


@needs_tun
def test_leftovers_of_the_dead_are_removed_and_no_others() -> None:
    """By the number of the process in the name."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    left, kept = f"splitexit-{dead.pid}-0-edge", f"splitexit-{os.getppid()}-0-edge"
    for name in (left, kept):
        run("ip", "netns", "add", name)
    try:
        remove_leftovers()
        assert spaces_of(dead.pid) == []
        assert kept in spaces_of(os.getppid())
    finally:
        run("ip", "netns", "delete", kept)


@needs_tun
def test_a_thread_works_inside() -> None:
    """There it sees other devices than here; what it raises comes out."""
    spaces = Spaces(0)
    try:
        there = inside(spaces.edge, lambda: Path("/proc/thread-self/net/dev").read_text())
        assert "lo:" in there
        assert there.count(":") == 1 + there.count("lo:") - 1
        with pytest.raises(SplitexitError, match="^no$"):
            inside(spaces.edge, _refuse)
        with pytest.raises(ProcessError, match="cannot enter the network namespace 'splitexit-none'"):
            inside("splitexit-none", _refuse)
    finally:
        spaces.close()


def _refuse() -> None:
    raise SplitexitError("no")
