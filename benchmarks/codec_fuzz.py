"""Broken payloads against every codec: a tensor of the declared shape or a PayloadError, and bounded memory.

    python benchmarks/codec_fuzz.py                 # 1,000,000 payloads over all codecs of the table
    python benchmarks/codec_fuzz.py --count 50000 --seed 7 --json

Every case of tests/golden/codecs.py gets as many payloads, each an honest one with one to three things wrong
(tests/mutations.py), most of them behind the header. A payload that still decodes is no fault: a flipped bit of a value
is another value. A case runs in a process of its own, which reports by how much its peak memory (VmHWM) rose while it
decoded; that must stay below `--memory-mb`, the bound being loose because the interpreter's own memory grows as well.
Exit code 1 if any payload led to anything else: another exception, another shape, a value that is not finite, a dead
process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from splitexit.codecs import Codec
from splitexit.errors import PayloadError
from tests.golden.codecs import CASES, create, example
from tests.mutations import mutations

WARM_UP = 200
SHOWN = 5


@dataclass(frozen=True)
class Outcome:
    """What came of the broken payloads of one case.

    faults   what should not be: the first few, in words
    rise_mb  of the peak memory of the process, while it decoded
    """

    codec: str
    refused: int
    decoded: int
    faults: tuple[str, ...]
    rise_mb: float
    seconds: float


def outcome(codec: Codec, payload: bytes) -> str:
    """`decoded`, `refused`, or what else happened."""
    try:
        tensor = codec.decode(payload)
    except PayloadError:
        return "refused"
    except BaseException as error:  # a panic of a Rust library is no Exception
        return f"{type(error).__name__}: {error}"
    if tensor.shape != codec.shape or tensor.dtype != np.float32:
        return f"a tensor {tensor.dtype} {tensor.shape}"
    return "decoded" if np.isfinite(tensor).all() else "values that are not finite"


def peak_mb() -> float:
    """The most memory that this process held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fuzz(codec_id: str, count: int, seed: int) -> Outcome:
    """Runs one case; honest payloads first, so that libraries are loaded before memory is measured."""
    codec = create(codec_id, CASES[codec_id])
    payload = codec.encode(example(codec))
    for broken in mutations(payload, random.Random(seed), WARM_UP):
        outcome(codec, broken)
    before, begun = peak_mb(), time.perf_counter()
    seen: Counter[str] = Counter()
    for broken in mutations(payload, random.Random(f"{seed} {codec_id}"), count):
        seen[outcome(codec, broken)] += 1
    faults = tuple(f"{times} x {what}" for what, times in seen.items() if what not in ("refused", "decoded"))
    rise = peak_mb() - before
    return Outcome(codec_id, seen["refused"], seen["decoded"], faults[:SHOWN], rise, time.perf_counter() - begun)


def run(codec_id: str, count: int, seed: int) -> Outcome:
    """`fuzz` in a fresh process, whose death is an outcome too."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(fuzz, codec_id, count, seed).result()
        except BrokenProcessPool:
            return Outcome(codec_id, 0, 0, ("the process died",), 0.0, 0.0)


def table(outcomes: list[Outcome]) -> Table:
    """For reading."""
    shown = Table("codec", "refused", "decoded", "memory +MB", "payloads/s", "faults")
    for one in outcomes:
        rate = (one.refused + one.decoded) / max(one.seconds, 1e-9)
        numbers = (f"{one.refused:,}", f"{one.decoded:,}", f"{one.rise_mb:.1f}", f"{rate:,.0f}")
        shown.add_row(one.codec, *numbers, "; ".join(one.faults) or "none")
    return shown


def main() -> int:
    """Runs the cases one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000, help="payloads over all codecs (default 1,000,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory-mb", type=float, default=16.0, help="most that peak memory may rise (default 16)")
    parser.add_argument("--json", action="store_true", help="print one document")
    options = parser.parse_args()
    each, console = -(-options.count // len(CASES)), Console(stderr=True)
    outcomes = [run(case, each, options.seed) for case in track(CASES, "codecs", console=console)]
    bad = [one.codec for one in outcomes if one.faults or one.rise_mb > options.memory_mb]
    total = sum(one.refused + one.decoded for one in outcomes)
    if options.json:
        cases = [asdict(one) for one in outcomes]
        print(json.dumps({"payloads": total, "seed": options.seed, "bad": bad, "cases": cases}, indent=1))
    else:
        Console().print(table(outcomes), f"{total:,} payloads, seed {options.seed}: {len(bad)} codecs with faults")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
