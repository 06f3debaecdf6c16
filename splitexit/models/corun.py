"""How much slower a pass through the network becomes while other processes of the same machine make passes too.

They share caches and memory with it, the clock falls when more cores work, and past the last core they take turns.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter, sleep

import numpy as np

from splitexit.bundle import Bundle
from splitexit.errors import ProcessError
from splitexit.models.runtime import Runtime, one_thread

ROUNDS, PASSES = 7, 12
SETTLE_S, GAP_S = 0.05, 0.005
"""Until the others are at work, and before every pass: like a request, it comes after a pause."""
START_S = 120.0


def measure_corun(
    bundle: Bundle, rounds: int = ROUNDS, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[int, float]:
    """Seconds of a pass while n other processes pass without a pause, relative to none: n -> factor.

    The median over rounds of the ratio of mean times; each round goes through all n, so that a machine that is slower
    for a while is so for all of them. Noise cannot make company faster: the curve never falls from 1. Raises
    ProcessError where a process does not start.
    """
    numbers = company(available_cores())
    work = _passes(bundle)
    seconds = np.zeros((rounds, len(numbers)))
    with _others(bundle.path, numbers[-1]) as others, one_thread():
        for round_ in range(-1, rounds):  # the first to warm up
            for column, number in enumerate(numbers):
                _let_compute(others, number)
                seconds[round_, column] = _mean_s(work)
            progress(max(round_ + 1, 0), rounds)
    medians = np.median(seconds / seconds[:, :1], axis=0)
    factors = np.maximum.accumulate(np.maximum(medians, 1.0))
    return {number: float(f"{factor:.4g}") for number, factor in zip(numbers, factors, strict=True)}


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def company(cores: int) -> list[int]:
    """How many others to measure with: powers of two, and around where the cores are all taken."""
    powers = {2**k for k in range(cores.bit_length()) if 2**k <= cores}
    return sorted({0, *powers, cores - 1, cores, cores + 1})


def _passes(bundle: Bundle) -> Callable[[], object]:
    """One pass through the whole network, stage by stage and head by head."""
    runtime = Runtime(bundle)
    spec, image = bundle.spec, np.full(bundle.spec.input_shape, 0.5, dtype=np.float32)
    exits = tuple(range(len(spec.exits)))
    return lambda: runtime.exits_from(image, 0, exits)


def _mean_s(work: Callable[[], object]) -> float:
    sleep(SETTLE_S)
    seconds = 0.0
    for _ in range(PASSES):
        sleep(GAP_S)
        start = perf_counter()
        work()
        seconds += perf_counter() - start
    return seconds / PASSES


@contextmanager
def _others(path: Path, count: int) -> Iterator[list[Connection]]:
    """So many processes that wait to be told; they end with the block, or with this process."""
    with ExitStack() as stack:
        others = [stack.enter_context(_other(path)) for _ in range(count)]
        for other in others:
            try:
                if not other.poll(START_S):
                    raise ProcessError(f"a second process for {path} did not start within {START_S:.0f} s")
                other.recv()
            except EOFError:
                raise ProcessError(f"a second process for {path} ended at once") from None
        yield others


@contextmanager
def _other(path: Path) -> Iterator[Connection]:
    context = multiprocessing.get_context("spawn")  # fork hangs where gRPC has been used
    ours, theirs = context.Pipe()
    process = context.Process(target=_compute, args=(path, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join(timeout=10.0)
        if process.is_alive():
            process.kill()


def _let_compute(others: Sequence[Connection], number: int) -> None:
    for place, other in enumerate(others):
        other.send(place < number)


def _compute(path: Path, pipe: Connection) -> None:
    """In another process: passes while told so, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end of the pipe closes then
    work, busy = _passes(Bundle.open(path)), False
    pipe.send(True)
    with one_thread():
        try:
            while True:
                if not busy or pipe.poll():
                    busy = pipe.recv()
                else:
                    work()
        except EOFError:
            return
