"""Real processes for tests: start them, read their first line, end them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from splitexit import cli

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(*arguments: object) -> list[str]:
    """A splitexit command line."""
    return [sys.executable, "-c", "from splitexit.cli import main; main()", *map(str, arguments)]


def run(*arguments: object, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, timeout=timeout_s
    )


def here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The same command without a process of its own, for one that ends before it starts anything."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = cli.run([str(argument) for argument in arguments])
    return subprocess.CompletedProcess(list(arguments), code, out.getvalue(), err.getvalue())


class Process:
    """A command that says in one JSON line where it listens."""

    def __init__(self, arguments: Sequence[object]) -> None:
        self.popen = subprocess.Popen(
            command(*arguments, "--json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=ENVIRONMENT,
        )
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        if not line:
            raise AssertionError(f"{arguments[0]} did not start: {self.popen.communicate()[1]}")
        self.ready: dict[str, Any] = json.loads(line)

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return str(self.ready["address"])

    def end(self, number: int = signal.SIGTERM, timeout_s: float = 30) -> tuple[int, str, str]:
        """Sends a signal; exit code, the rest of stdout, stderr."""
        self.popen.send_signal(number)
        out, err = self.popen.communicate(timeout=timeout_s)
        return self.popen.returncode, out, err


@contextmanager
def started(*arguments: object) -> Iterator[Process]:
    """A process that is killed at the end, if it still runs."""
    process = Process(arguments)
    try:
        yield process
    finally:
        if process.popen.poll() is None:
            process.popen.kill()
        process.popen.communicate()


def wait_for(what: Any, timeout_s: float = 60.0) -> float:
    """Seconds until what() is true; fails after `timeout_s`."""
    start_s = time.monotonic()
    while not what():
        assert time.monotonic() - start_s < timeout_s, "waited in vain"
        time.sleep(0.005)
    return time.monotonic() - start_s
