"""The processes of a live run: a parent that starts them, and a pipe to each.

Processes are spawned, because a fork hangs where gRPC has been used. A child ends when its pipe does, so that none is
left behind whatever happened to the parent; Ctrl-C is the parent's affair, children do not hear of it.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from splitexit.errors import InputError, ProcessError, SplitexitError

NAMESPACES = Path("/var/run/netns")
_CLONE_NEWNET = 0x40000000  # linux/sched.h

START_S, END_S = 300.0, 3.0
"""How long a process may take to start (it loads torch and a model, perhaps with many others), and to be gone."""

Message = tuple[Any, ...]
"""What happened or is to be done, in a word, and what belongs to it."""


class Child:
    """A process, as its parent sees it.

    Args:
        name: what to call it in messages.
        work: what it does: called there with its end of the line and the arguments; found by its module's name.
    """

    def __init__(self, name: str, work: Callable[..., None], *arguments: Any) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_live, args=(work, theirs, arguments), name=name, daemon=True)
        with uninterrupted(), _deaf():
            self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid or 0

    def tell(self, *message: Any) -> None:
        """Sends a message; one that has ended does not hear it."""
        with suppress(OSError):
            self.pipe.send(message)

    def receive(self, within_s: float | None = None) -> Message:
        """Its next message; raises what it failed with, ProcessError where it has ended or takes longer than that."""
        if not self.pipe.poll(within_s):
            raise ProcessError(f"{self.name}: nothing heard of it for {within_s:.0f} s")
        try:
            message: Message = self.pipe.recv()
        except (EOFError, OSError):
            raise ProcessError(f"{self.name} {self._end()}") from None
        if message[0] == "failed":
            _, text, code = message
            raise (
                InputError(f"{self.name}: {text}")
                if code == InputError.exit_code
                else ProcessError(f"{self.name}: {text}")
            )
        if message[0] == "missing":
            raise ModuleNotFoundError(f"{self.name}: no module {message[1]!r}", name=message[1])
        return message

    def expect(self, what: str, within_s: float = START_S, say: Callable[[str], None] = lambda line: None) -> Message:
        """What it adds to this message, passing by others; what it says meanwhile goes to `say`. Raises as above."""
        while (message := self.receive(within_s))[0] != what:
            if message[0] == "said":
                say(f"{self.name}: {message[1]}")
        return message[1:]

    def _end(self) -> str:
        """How it ended, in words."""
        self._process.join(END_S)
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"was killed ({signal.Signals(-code).name})"
        return "ended" if not code else f"ended with exit code {code}"

    def kill(self) -> None:
        """Ends it at once, as a power cut would."""
        self._process.kill()

    def close(self) -> None:
        """Ends it, at once: nothing that it has is worth a wait. May be called twice."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the end of the block. Only for the main thread, for no other is interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = list[int]()
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if heard:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def _deaf() -> Iterator[None]:
    """A process that is started in the block inherits that SIGINT is blocked."""
    resource_tracker.ensure_running()  # when it starts, it unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Line:
    """A child's end of the pipe; the process ends when the other end does.

    Messages with the name of a handler in `handlers` are handled when they come, in another thread; the others
    wait for `next`.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._lock = pipe, threading.Lock()
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.handlers: dict[str, Callable[[], None]] = {}
        threading.Thread(target=self._listen, name="control", daemon=True).start()

    def _listen(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                message = self._pipe.recv()
                if handler := self.handlers.get(message[0]):
                    handler()
                else:
                    self._messages.put(message)
        os._exit(0)

    def tell(self, *message: Any) -> None:
        """Sends a message; from any thread."""
        with self._lock, suppress(OSError):
            self._pipe.send(message)

    def say(self, text: str) -> None:
        """A line for the person who watches."""
        self.tell("said", text)

    def next(self, *expected: str) -> Message:
        """The next message, waited for as long as it takes; raises ProcessError for one that does not come in turn."""
        message = self._messages.get()
        if message[0] not in expected:
            raise ProcessError(f"told to {message[0]}, when it was to {' or '.join(expected)}")
        return message


def _live(work: Callable[..., None], pipe: Connection, arguments: tuple[Any, ...]) -> None:
    """What runs in a child: the work; what fails there is told the parent in a line."""
    line = Line(pipe)
    try:
        work(line, *arguments)
    except SplitexitError as error:
        line.tell("failed", str(error), error.exit_code)
    except ModuleNotFoundError as error:
        line.tell("missing", error.name)
    except Exception as error:
        if os.environ.get("SPLITEXIT_DEBUG"):
            traceback.print_exc()
        line.tell("failed", f"internal error: {type(error).__name__}: {' '.join(str(error).split())}", 1)
    sys.stderr.flush()
    os._exit(0)  # threads of gRPC may take their time


def settle_memory() -> None:
    """Before a timed run: garbage is collected, and what is left is never looked at again.

    A full collection goes through every object there is, some hundred thousand after imports: tens of milliseconds
    in which no request moves. After `gc.freeze` it goes through those of the run alone.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def hurry() -> None:
    """Asks for precedence over other processes, which takes a privilege; without it nothing changes."""
    with suppress(OSError):
        os.nice(-5)


def enter(namespace: str | None) -> None:
    """Moves the calling thread, and those that it starts, into a named network namespace (None: stays).

    Raises ProcessError where that cannot be.
    """
    if namespace is None:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        with (NAMESPACES / namespace).open() as opened:
            if libc.setns(opened.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    except OSError as error:
        raise ProcessError(f"cannot enter the network namespace {namespace!r}: {error.strerror}") from None
