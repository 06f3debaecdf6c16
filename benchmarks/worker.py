"""One contestant in a process of its own: `python -m benchmarks.worker MODULE ARRIVALS.npy RESPONSES.npy`.

It runs once untimed and writes its response times; then, for every line on standard input, it runs again and prints
the CPU seconds of that run. The last line is the largest memory that the process ever held.
"""

from __future__ import annotations

import gc
import importlib
import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

# Contestants of other packages run without splitexit installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np


def main(name: str, given: str, out: str) -> None:
    """Answers until standard input ends; what the contestant itself prints goes to standard error."""
    answers = sys.stdout
    with redirect_stdout(sys.stderr):
        for answer in _runs(name, given, out):
            print(json.dumps(answer), file=answers, flush=True)


def _runs(name: str, given: str, out: str) -> Iterator[dict[str, float]]:
    module = importlib.import_module(f"benchmarks.contestants.{name}")
    arrivals: list[float] = np.load(given).tolist()
    result = module.run(arrivals)
    responses = getattr(module, "responses", lambda result, arrivals: result)
    np.save(out, np.asarray(responses(result, arrivals)))
    del result
    yield {}
    for _ in sys.stdin:
        gc.collect()
        start = time.process_time()
        module.run(arrivals)
        yield {"seconds": time.process_time() - start}
    yield {"peak_mb": peak_kb() / 1024}


def peak_kb() -> float:
    """The largest memory so far; on Linux not from getrusage, which also counts the parent's before exec."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    of_linux = (float(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return next(of_linux, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    main(*sys.argv[1:])
