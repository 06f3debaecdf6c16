"""HOST:PORT."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from splitexit.errors import UsageError


@dataclass(frozen=True)
class Address:
    """A host and a port; port 0 stands for any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, option: str) -> Address:
        """From `HOST:PORT` or `[IPv6]:PORT`; raises UsageError naming the option."""
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isdecimal() or int(port) > 65535:
            raise UsageError(f"{option} {text!r}: expected HOST:PORT, e.g. 127.0.0.1:50051")
        return cls(host.strip("[]"), int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def listener(self, option: str) -> socket.socket:
        """A socket bound to it and listening; raises UsageError where that cannot be."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((self.host, self.port))
            bound.listen()
        except OSError as error:
            bound.close()
            raise UsageError(
                f"{option} {self}: {error.strerror or error}; try another port, or 0 for a free one"
            ) from None
        return bound

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def check_exposure(address: Address, insecure: bool) -> None:
    """Raises UsageError where others could reach an address without that having been asked for."""
    if not address.is_loopback and not insecure:
        raise UsageError(
            f"--listen {address}: other machines could connect, unencrypted and unchecked; "
            "say --insecure if that is meant, or listen on 127.0.0.1"
        )
