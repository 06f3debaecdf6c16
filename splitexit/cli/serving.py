"""What the commands share that serve until they are told to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

Insecure = Annotated[bool, typer.Option("--insecure", help="Allow an address that other machines can reach.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@contextmanager
def until_signalled() -> Iterator[threading.Event]:
    """Inside, SIGTERM and Ctrl-C set the event instead of ending the process."""
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def announce(what: str, address: object, json: bool, **more: object) -> None:
    """The one line that says that something listens, and where."""
    import os
    from json import dumps

    content = {"address": str(address), **more, "pid": os.getpid()}
    facts = ", ".join(f"{key} {value}" for key, value in content.items() if key != "address")
    print(dumps(content) if json else f"{what} ready on {address} ({facts})", flush=True)
