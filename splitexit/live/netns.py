"""Network namespaces for real networks on Linux: made, named after this process, removed whatever happens."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address
from itertools import count
from pathlib import Path
from typing import TypeVar

from splitexit.errors import ProcessError, UsageError
from splitexit.live.processes import NAMESPACES, enter

T = TypeVar("T")

PREFIX = "splitexit"

EDGE = IPv4Address("10.232.0.1")
"""Of a private network (RFC 1918) that nobody outside the namespaces sees."""

PREFIX_BITS, MOST_DEVICES = 16, 2**16 - 4

CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
"""By their bits (linux/capability.h): to make devices, and to mount and enter namespaces."""

_STATUS, _SETTINGS = Path("/proc/self/status"), Path("/proc/sys/net")

CONTROL = "cubic"

SOCKET_BUFFERS = "4096 16777216 16777216"

TCP = {
    "ipv4/tcp_congestion_control": CONTROL,
    "ipv4/tcp_no_metrics_save": "1",
    "ipv4/tcp_wmem": SOCKET_BUFFERS,
    "ipv4/tcp_rmem": SOCKET_BUFFERS,
}
"""Linux's default congestion control, which a machine may have changed. No connection begins with what the kernel
remembers of others to the same host, or a fresh one would not be fresh. Buffers of sockets hold any message, so that
it is the congestion window alone that limits: Linux begins with a send buffer of 20 segments and enlarges it when that
was full, which costs an upload of 64 KiB a round trip now and then."""

QUIET = {"ipv6/conf/all/disable_ipv6": "1", "ipv6/conf/default/disable_ipv6": "1"}
"""Packets that nobody asked for (router solicitations) would take a slow link's time."""

_numbers = count()


def address_of(device: int) -> IPv4Address:
    """A device's address; `number_of` is the inverse."""
    return EDGE + 1 + device


def number_of(address: bytes) -> int:
    """Whose address those four bytes are."""
    return (address[2] << 8 | address[3]) - 2


def require(kind: str, tools: Iterable[str]) -> None:
    """Raises UsageError, in one line, where namespaces cannot be had; `tools` are the programs that are needed."""
    instead = "or take --network proxy"
    if sys.platform != "linux":
        raise UsageError(f"--network {kind}: needs Linux, this is {sys.platform}; {instead}")
    missing = [name for name, bit in CAPABILITIES.items() if not _effective() >> bit & 1]
    if missing:
        raise UsageError(f"--network {kind}: needs {' and '.join(missing)}; run it as root (sudo), {instead}")
    for tool in tools:
        if shutil.which(tool) is None:
            raise UsageError(f"--network {kind}: there is no program `{tool}`; install iproute2, {instead}")


def _effective() -> int:
    """The capabilities that this process has."""
    lines = _STATUS.read_text().splitlines()
    return int(next(line for line in lines if line.startswith("CapEff:")).split()[1], 16)


def run(*command: str, told: str = "") -> str:
    """What a command prints; raises ProcessError with the first line of its complaint."""
    done = subprocess.run(command, input=told, capture_output=True, text=True)
    if done.returncode:
        complaint = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[0]
        raise ProcessError(f"{' '.join(command)}: {complaint}")
    return done.stdout


def configure(settings: dict[str, str]) -> None:
    """Sets what the kernel keeps under /proc/sys/net for the namespace of the calling thread.

    Raises ProcessError where the kernel refuses a value; a setting that it does not have is passed by.
    """
    for name, value in settings.items():
        file = _SETTINGS / name
        try:
            if file.exists():
                file.write_text(value)
        except OSError as error:
            raise ProcessError(f"this kernel takes no {name} = {value}: {error.strerror}") from None


@contextmanager
def congestion_control_allowed(name: str = CONTROL) -> Iterator[None]:
    """Inside, namespaces may have that congestion control, which the kernel otherwise allows if it is its default.

    For a thread in the initial namespace. The machine's list of what is allowed is afterwards what it was before.
    """
    file = _SETTINGS / "ipv4/tcp_allowed_congestion_control"
    allowed = file.read_text()
    if name in allowed.split():
        yield
        return
    with file.open("w") as opened:  # stays that of this namespace, wherever the thread goes
        opened.write(f"{allowed.strip()} {name}")
        opened.flush()
        try:
            yield
        finally:
            opened.seek(0)
            opened.write(allowed)


def inside(space: str, act: Callable[[], T]) -> T:
    """What a function returns that runs in a namespace, in a thread of its own; raises what it raises."""

    def work() -> T:
        enter(space)
        return act()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


class Spaces:
    """Namespaces for the edge and every device.

    Their names hold the number of this process, so that those of processes that were killed can be told and removed,
    which is done here first.

    Args:
        devices: how many.
    """

    def __init__(self, devices: int) -> None:
        if devices > MOST_DEVICES:
            raise UsageError(f"{devices} devices; {MOST_DEVICES} at most have addresses")
        remove_leftovers()
        own = f"{PREFIX}-{os.getpid()}-{next(_numbers)}"
        self.edge, self.devices = f"{own}-edge", [f"{own}-{number}" for number in range(devices)]
        try:
            for name in self.all:
                run("ip", "netns", "add", name)
        except BaseException:
            self.close()
            raise

    @property
    def all(self) -> list[str]:
        """The edge's first."""
        return [self.edge, *self.devices]

    def close(self) -> None:
        """Removes them; may be called twice."""
        for name in self.all:
            _remove(name)


def remove_leftovers() -> None:
    """Removes the namespaces of processes that are no more."""
    for file in NAMESPACES.glob(f"{PREFIX}-*-*"):
        owner = file.name.split("-")[1]
        if owner.isdecimal() and not Path("/proc", owner).exists():
            _remove(file.name)


def _remove(name: str) -> None:
    if (NAMESPACES / name).exists():
        with suppress(ProcessError):
            run("ip", "netns", "delete", name)
