"""Requests per second of the simulator beside other simulators on the same arrivals; response times must agree.

What is simulated is in workload.py, how it is timed in race.py, and who takes part in contestants/. `--devices`
measures instead what many devices on shared links cost.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import devices, scenario
from benchmarks.contestants import CONTESTANTS, REFERENCE, Contestant
from benchmarks.race import TOLERANCE_S, Disagreement, Found, race


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "simpy": version("simpy"),
        "numpy": version("numpy"),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def table(found: Found) -> str:
    """For people."""
    titles = {contestant.name: contestant.title for contestant in CONTESTANTS}
    lines = [f"{found.requests:,} requests, best of {found.rounds}; response times agree to {TOLERANCE_S:g} s", ""]
    lines.append(f"{'':50s} {'requests/s':>12s} {'ratio':>8s} {'peak MB':>8s}")
    for name, per_s in sorted(found.requests_per_s.items(), key=lambda item: -item[1]):
        lines.append(f"{titles[name]:50s} {per_s:12,.0f} {found.ratios[name]:8.2f} {found.peak_mb[name]:8.0f}")
    lines += [f"{titles[name]:50s} left out: {why}" for name, why in found.left_out.items()]
    return "\n".join(lines)


def options(arguments: list[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20,000 requests and 3 rounds instead of 100,000 and 5")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--requests", type=int, help="how many requests")
    parser.add_argument("--rounds", type=int, help="how often everyone is timed")
    parser.add_argument("--no-peers", action="store_true", help="only splitexit and plain SimPy; installs nothing")
    parser.add_argument("--only", metavar="NAME,NAME", help="only these, and plain SimPy to compare with")
    parser.add_argument(
        "--devices", type=int, nargs="?", const=10_000, metavar="N", help="what N devices on N/100 cells cost instead"
    )
    parser.add_argument("--yafs", type=Path, metavar="FOLDER", help="a checkout of github.com/acsicuib/YAFS")
    given = parser.parse_args(arguments)
    requests, rounds = (20_000, 3) if given.quick else (100_000, 5)
    if given.devices is not None:
        requests, rounds = 10 * requests, 2
        if given.devices < 1 or given.devices % devices.PER_CELL:
            parser.error(f"--devices {given.devices}: expected a multiple of {devices.PER_CELL}")
    given.requests = requests if given.requests is None else given.requests
    given.rounds = rounds if given.rounds is None else given.rounds
    if given.requests < 1 or given.rounds < 1:
        parser.error("--requests and --rounds: expected 1 or more")
    names = [c.name for c in CONTESTANTS]
    given.only = names if given.only is None else given.only.split(",")
    if unknown := set(given.only) - set(names):
        parser.error(f"--only {','.join(sorted(unknown))}: expected some of {', '.join(names)}")
    return given


def taking_part(given: argparse.Namespace) -> list[Contestant]:
    """Who is asked to; the reference always."""
    asked = {REFERENCE, *given.only}
    return [c for c in CONTESTANTS if c.name in asked and not (c.package and given.no_peers)]


def main(arguments: list[str] | None = None) -> int:
    """Prints a table, or one JSON document; 1 where a contestant simulated something else."""
    given = options(arguments)
    if given.devices is not None:
        cost = devices.measure(given.devices, given.requests, given.rounds)
        show(given, "devices", cost, devices.table(cost))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = race(taking_part(given), scenario.arrivals, given.requests, given.rounds, Path(folder), given.yafs)
        except Disagreement as error:
            print(f"benchmarks: {error}", file=sys.stderr)
            return 1
    show(given, "simulator", vars(found), table(found))
    return 0


def show(given: argparse.Namespace, benchmark: str, found: dict[str, Any], text: str) -> None:
    """As the command line asked."""
    document = {"benchmark": benchmark, "machine": machine(), **found}
    print(json.dumps(document, indent=2) if given.json else text)


if __name__ == "__main__":
    sys.exit(main())
