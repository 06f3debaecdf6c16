"""What the commands share that serve until they are told to end."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

Insecure = Annotated[bool, typer.Option("--insecure", help="Allow an address that other machines can reach.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@contextmanager
def until_signalled() -> Iterator[Callable[[], object]]:
    """Inside, SIGTERM and Ctrl-C do not end the process, but the call of what is given here, which waits for them.

    They come as bytes on a socket. A threading.Event, set by their handlers, may never wake: a handler that runs while
    the waiting thread holds the event's lock waits for that same lock; and a signal that the system gives to another
    thread does not interrupt the wait, without which no handler runs.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    told = signal.set_wakeup_fd(theirs.fileno())
    try:
        yield lambda: ours.recv(1)
    finally:
        signal.set_wakeup_fd(told)
        for number, handler in before.items():
            signal.signal(number, handler)
        ours.close()
        theirs.close()


def announce(what: str, address: object, json: bool, **more: object) -> None:
    """The one line that says that something listens, and where."""
    import os
    from json import dumps

    content = {"address": str(address), **more, "pid": os.getpid()}
    facts = ", ".join(f"{key} {value}" for key, value in content.items() if key != "address")
    print(dumps(content) if json else f"{what} ready on {address} ({facts})", flush=True)
