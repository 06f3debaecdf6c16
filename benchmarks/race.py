"""Contestants side by side: every one in a process of its own, asked in turn, round after round.

So a machine that is slower for a while is slower for all of them. Seconds are CPU seconds, the best of the rounds,
because other work on the machine only ever adds to them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.contestants import REFERENCE, Contestant
from benchmarks.errors import LeftOut

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE_S = 1e-9
Array = np.ndarray[Any, np.dtype[np.float64]]


class Disagreement(Exception):
    """A contestant simulated something else than the reference did."""


@dataclass
class Found:
    """What came out, by contestant; `left_out` says why one is missing."""

    requests: int
    rounds: int
    requests_per_s: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    largest_difference_s: dict[str, float] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def race(
    contestants: Sequence[Contestant],
    arrivals: Callable[[int], Array],
    requests: int,
    rounds: int,
    folder: Path,
    yafs: Path | None = None,
) -> Found:
    """Speeds, relative speeds, memory and differences of all contestants that can run.

    Args:
        contestants: the reference first.
        arrivals: number of requests -> seconds at which they arrive.
        requests: that every contestant simulates, some of them several times as many.
        rounds: how often each is timed.
        folder: for what the processes write.
        yafs: a checkout of YAFS.

    Raises:
        Disagreement: some response time differs by more than TOLERANCE_S from the reference's.
    """
    found, right, seconds = Found(requests, rounds), np.empty(0), dict[str, list[float]]()
    with ExitStack() as stack:
        runners = list[Runner]()
        for contestant in contestants:
            try:
                runner = stack.enter_context(Runner(contestant, arrivals(requests * contestant.times), folder, yafs))
                responses = runner.responses()[:requests]
            except LeftOut as error:
                found.left_out[contestant.name] = str(error)
                continue
            right = responses if contestant.name == REFERENCE else right
            found.largest_difference_s[contestant.name] = _difference_s(contestant, responses, right)
            runners.append(runner)
        for _ in range(rounds):
            for runner in runners:
                seconds.setdefault(runner.contestant.name, []).append(runner.seconds())
        for runner in runners:
            name = runner.contestant.name
            found.requests_per_s[name] = requests * runner.contestant.times / max(min(seconds[name]), 1e-9)
            found.peak_mb[name] = runner.peak_mb()
    base = found.requests_per_s[REFERENCE]
    found.ratios = {name: per_s / base for name, per_s in found.requests_per_s.items()}
    return found


def _difference_s(contestant: Contestant, responses: Array, right: Array) -> float:
    if len(responses) != len(right):
        raise Disagreement(f"{contestant.title}: {len(responses)} response times, expected {len(right)}")
    difference_s = float(np.max(np.abs(responses - right)))
    if not difference_s <= TOLERANCE_S:
        raise Disagreement(f"{contestant.title}: response times differ by up to {difference_s:.3g} s")
    return difference_s


class Runner:
    """A contestant's process, which ends with the context; raises LeftOut where it cannot run."""

    def __init__(self, contestant: Contestant, arrivals: Array, folder: Path, yafs: Path | None) -> None:
        python, path = Path(sys.executable), None
        if contestant.package:
            python, path = peers.python_with(contestant.package, yafs)
        self.contestant = contestant
        self._given, self._out, self._errors = (folder / f"{contestant.name}.{end}" for end in ("in.npy", "npy", "txt"))
        np.save(self._given, arrivals)
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.worker", contestant.module, self._given, self._out],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, filter(None, (ROOT, path))))},
            )

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._process.wait()

    def responses(self) -> Array:
        """Its response times in order of arrival, once the untimed run is over."""
        self._hear()
        found: Array = np.load(self._out)
        return found

    def seconds(self) -> float:
        """CPU seconds of one more run."""
        assert self._process.stdin is not None
        self._process.stdin.write("again\n")
        self._process.stdin.flush()
        return float(self._hear()["seconds"])

    def peak_mb(self) -> float:
        """The largest memory that its process ever held; it runs no more."""
        self._close()
        return float(self._hear()["peak_mb"])

    def _close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            said = [text for text in self._errors.read_text().splitlines() if text.strip()]
            raise LeftOut(said[-1] if said else f"ended with code {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found
