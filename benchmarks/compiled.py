"""What the compiled engine costs per request, from ten thousand requests to a hundred million.

    python -m benchmarks.compiled --picture docs/compiled-scaling.png     # the whole picture, about a minute
    python -m benchmarks.compiled --quick                                 # up to a million

The workload is that of benchmarks/simulator.py: Poisson arrivals at 120/s; device 5 ms; 8,192 bytes at 20 Mbit/s and
5 ms of propagation; an edge of two workers at 2 ms; 100 bytes back. Every size runs in a process of its own, which has
run a thousand requests before, so that the code is compiled and the policy asked; the best of some rounds counts.
Seconds are CPU seconds of that process, all threads together; its memory is the largest it ever had.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.scenario import experiment
from splitexit.sim import compiled

FULL, QUICK = (10**4, 10**5, 10**6, 10**7, 10**8), (10**4, 10**5, 10**6)
ROWS = {FULL: 10**7, QUICK: 10**6}
POLICY = "plain"


def best(work: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Wall and CPU seconds, each the least of some rounds."""
    wall_s, cpu_s = [], []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        wall_s.append(time.perf_counter() - wall)
        cpu_s.append(time.process_time() - cpu)
    return min(wall_s), min(cpu_s)


def measure(what: str, requests: int) -> dict[str, Any]:
    """In this process: a summary, or all rows in a Parquet file."""
    scenario = experiment(1000)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.parquet"

        def run(count: int) -> object:
            if what == "summary":
                return compiled.summarise_run(scenario, POLICY, 0, count)
            return compiled.to_parquet(scenario, POLICY, 0, file, count)

        run(1000)
        wall_s, cpu_s = best(lambda: run(requests), max(1, min(20, 10**7 // requests)))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"what": what, "requests": requests, "wall_s": wall_s, "cpu_s": cpu_s, "peak_mb": peak_mb}


def apart(what: str, requests: int) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.compiled", "--measure", what, str(requests)]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def show(found: dict[str, Any]) -> None:
    """One line."""
    requests, wall_s, cpu_s = found["requests"], found["wall_s"], found["cpu_s"]
    print(
        f"{found['what']:8s} {requests:12,d} requests  {wall_s:7.3f} s  {1e9 * cpu_s / requests:6.0f} ns each  "
        f"{requests / cpu_s / 1e6:6.2f} million/s of CPU  {found['peak_mb']:5.0f} MB",
        flush=True,
    )


def draw(summaries: list[dict[str, Any]], path: Path) -> None:
    """Cost per request and memory over the number of requests."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    requests = [found["requests"] for found in summaries]
    figure, (cost, memory) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    each_ns = [1e9 * found["cpu_s"] / found["requests"] for found in summaries]
    cost.plot(requests, each_ns, "o-")
    cost.set(xscale="log", ylim=(0, 1.2 * max(each_ns)), xlabel="requests", ylabel="CPU time per request (ns)")
    cost.set_title("Cost of a request", fontsize=10)
    memory.plot(requests, [found["peak_mb"] for found in summaries], "o-", color="tab:orange")
    memory.axhline(1024, color="grey", linewidth=0.8, linestyle="--")
    memory.text(requests[0], 1034, "1 GB", va="bottom", color="grey", fontsize=8)
    memory.set(xscale="log", ylim=(0, 1200), xlabel="requests", ylabel="peak memory (MB)")
    memory.set_title("Memory of the process", fontsize=10)
    for axis in (cost, memory):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Compiled engine: summary of a run", fontsize=11)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Prints the table, draws the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="up to a million requests")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--picture", type=Path, help="draw cost and memory over the number of requests")
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "REQUESTS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure[0], int(options.measure[1]))))
        return
    sizes = QUICK if options.quick else FULL
    measured = []
    for what, requests in [*(("summary", size) for size in sizes), ("rows", ROWS[sizes])]:
        measured.append(apart(what, requests))
        if not options.json:
            show(measured[-1])
    if options.json:
        print(json.dumps(measured, indent=2))
    if options.picture:
        draw([found for found in measured if found["what"] == "summary"], options.picture)


if __name__ == "__main__":
    main()
