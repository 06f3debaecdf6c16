"""How far the simulator is from real processes: every scenario of scenarios/validation, live and simulated.

Each is one `splitexit validate`, in a process of its own, which measures this machine, runs the scenario's processes
some times and simulates the same. What is finished is kept in the results folder: after Ctrl-C the same command goes
on. A fixed computation is timed before each, so that the table says how quiet the machine was.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.simulator import machine
from splitexit.corun import is_native
from splitexit.experiment import Experiment
from splitexit.scenario import Scenario, load

SCENARIOS = Path(__file__).resolve().parents[1] / "scenarios" / "validation"
HIGH_LOAD = 0.7
QUICK_REQUESTS = 3
"""With --quick a scenario has so many times fewer requests."""

MEAN_MEDIAN, P95_MEDIAN, MEAN_WORST, NATIVE_MEDIAN, SHARE_WORST = 2.0, 5.0, 6.0, 5.0, 0.2
"""Targets, in percent; of shares in points."""

Document = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """One scenario's result: what validate said, and how much the fixed computation varied just before."""

    name: str
    native: bool
    document: Document
    noise: dict[str, float]

    def metric(self, name: str) -> Document:
        """What validate said of a metric."""
        found: Document = self.document["metrics"][name]
        return found

    def error(self, name: str) -> float:
        """In percent, of shares in points; infinite where nothing was measured to compare with."""
        entry = self.metric(name)
        found = entry.get("error_percent", entry.get("error_points"))
        return math.inf if found is None else float(found)

    @property
    def load(self) -> float:
        """Of the busiest resource; NaN where an edge that batches is."""
        found = self.document["load"]["utilisation"]
        return math.nan if found is None else float(found)

    @property
    def kind(self) -> str:
        """Which targets hold."""
        if self.native:
            return "native"
        return "high" if self.load > HIGH_LOAD else "paced"


@dataclass(frozen=True)
class Target:
    """What was to be reached, and what was: a worst or median absolute error, or a share of scenarios."""

    text: str
    found: float
    limit: float

    @property
    def met(self) -> bool:
        """Whether it was; no if it is unknown."""
        return self.found <= self.limit

    def __str__(self) -> str:
        return f"{self.text}: {self.found:.2f} (at most {self.limit:g}): {'met' if self.met else 'MISSED'}"


@dataclass(frozen=True)
class Table:
    """All results."""

    lines: Sequence[Line]
    network: str

    def of(self, kind: str) -> list[Line]:
        """Those of a kind."""
        return [line for line in self.lines if line.kind == kind]

    @cached_property
    def targets(self) -> list[Target]:
        """Every target of which there are scenarios."""
        paced, high, native = map(self.of, ("paced", "high", "native"))
        found = []
        if paced:
            found += [
                Target("paced, load up to 70 %: median error of the mean, %", _median(paced, "mean"), MEAN_MEDIAN),
                Target("paced, load up to 70 %: median error of p95, %", _median(paced, "p95"), P95_MEDIAN),
                Target("paced, load up to 70 %: worst error of the mean, %", _worst(paced, ["mean"]), MEAN_WORST),
            ]
        if high:
            outside = sum(not line.metric("mean")["in_band"] for line in high)
            found.append(Target("paced, load above 70 %: scenarios whose mean is outside the band", outside, 0))
        if native:
            found.append(Target("native: median error of the mean, %", _median(native, "mean"), NATIVE_MEDIAN))
        shares = [line for line in self.lines if "neurosurgeon" not in line.document["policy"]]
        if shares:
            worst = _worst(shares, ["accuracy", "offload_rate"])
            found.append(Target("accuracy and share sent, worst difference, points", worst, SHARE_WORST))
        return found

    def document(self) -> Document:
        """For --json."""
        return {
            "machine": machine(),
            "network": self.network,
            "noise_percent": self.noise,
            "scenarios": {line.name: {**line.document, "kind": line.kind, "noise": line.noise} for line in self.lines},
            "targets": [{"target": t.text, "found": t.found, "limit": t.limit, "met": t.met} for t in self.targets],
        }

    @property
    def noise(self) -> float:
        """The median over the scenarios of how much the fixed computation varied, in percent."""
        return median(line.noise["spread_percent"] for line in self.lines)


def _median(lines: Sequence[Line], name: str) -> float:
    return median(abs(line.error(name)) for line in lines)


def _worst(lines: Sequence[Line], names: Sequence[str]) -> float:
    return max(abs(line.error(name)) for line in lines for name in names)


HEADS = (
    *("scenario", "devices", "load", "policy", "measured ms", "simulated ms"),
    *("mean", "p50", "p95", "p99", "accuracy", "sent", "in band", ""),
)


def cells(line: Line) -> list[str]:
    """One scenario, under HEADS."""
    mean, load = line.metric("mean"), line.load
    return [
        line.name,
        str(line.document["devices"]),
        line.document["load"]["bottleneck"] + ("" if math.isnan(load) else f" {load:.0%}"),
        line.document["policy"],
        f"{mean['measured_ms']:.1f} [{mean['spread_percent']:.1f} %]",
        f"{mean['simulated_ms']:.1f}",
        *(f"{line.error(name):+.1f} %" for name in ("mean", "p50", "p95", "p99")),
        *(f"{line.error(name):+.2f}" for name in ("accuracy", "offload_rate")),
        "yes" if mean["in_band"] else "no",
        "noisy" if mean["noisy"] else "",
    ]


def plain(rows: Sequence[Sequence[str]]) -> str:
    """Columns that stand below each other."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    left = {0, 2, 3}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k in left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table for a README."""
    head, *body = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def shown(table: Table, as_markdown: bool) -> str:
    """The table, the targets, and what it was measured on."""
    on = machine()
    rows = [list(HEADS), *map(cells, table.lines)]
    repetitions = sorted({line.document["repetitions"] for line in table.lines})
    about = (
        f"network {table.network}; medians of {', '.join(map(str, repetitions))} repetitions [their spread]; errors "
        "are simulated against measured; noisy: repetitions differ by more than the error. "
        f"{on['cpu']}, {on['cores']} cores, {on['os']}; a fixed computation of about {PROBE_MS} ms varied by "
        f"{table.noise:.1f} % (5th to 95th percentile, median over the scenarios)"
    )
    bullet = "- " if as_markdown else ""
    targets = "\n".join(f"{bullet}{target}" for target in table.targets)
    return "\n\n".join([(markdown if as_markdown else plain)(rows), targets, about])


PROBE_MS, PROBES = 5, 100


def noise() -> dict[str, float]:
    """How much the time of a fixed computation varies on this machine now, without anything of splitexit's running."""
    matrix = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    rounds, seconds = 1, 0.0
    while seconds < PROBE_MS / 1e3:
        rounds *= 2
        seconds = _timed_s(matrix, rounds)
    times_s = [_timed_s(matrix, rounds) for _ in range(PROBES)]
    low, middle, high = (float(q) for q in np.percentile(times_s, (5, 50, 95)))
    return {
        "median_ms": 1e3 * middle,
        "spread_percent": 100.0 * (high - low) / middle,
        "load_average": os.getloadavg()[0],
    }


def _timed_s(matrix: np.ndarray[Any, Any], rounds: int) -> float:
    start_s = time.perf_counter()
    for _ in range(rounds):
        np.einsum("ij,jk->ik", matrix, matrix)  # one thread, unlike a product by BLAS
    return time.perf_counter() - start_s


class Failed(Exception):
    """A validation did not come to its end; the message says why."""


def validate(file: Path, folder: Path, arguments: Sequence[str]) -> Document:
    """One `splitexit validate` in a process of its own; what it says on stderr goes through.

    Raises:
        Failed: it did not come to its end.
    """
    command = [sys.executable, "-m", "splitexit", "validate", str(file), "--out", str(folder), "--json", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Failed(f"{file.stem}: exit code {done.returncode}")
    document: Document = json.loads(done.stdout)
    return document


def result(file: Path, results: Path, options: argparse.Namespace) -> Line:
    """Of one scenario: as it is kept, else measured now."""
    scenario = load(file)
    fewer = [f"requests={max(10, scenario.requests // QUICK_REQUESTS)}"] if options.quick else []
    scenario, folder = load(file, fewer), results / file.stem
    kept = folder / "fidelity.json"
    found = json.loads(kept.read_text()) if kept.exists() else None
    if found is None or not _is_of(found["document"], scenario, options):
        before = noise()
        arguments = ["--network", options.network, "--repeat", str(options.repeat)]
        arguments += [text for key in fewer for text in ("--set", key)]
        found = {"document": validate(file, folder, arguments), "noise": before}
        kept.write_text(json.dumps(found))
    return Line(file.stem, is_native(Experiment.open(scenario)), found["document"], found["noise"])


def _is_of(document: Document, scenario: Scenario, options: argparse.Namespace) -> bool:
    """Whether a result is of the scenario as it is now, measured as often and over the network that is wanted."""
    said = (document["scenario_sha256"], document["network"], document["repetitions"])
    return said == (scenario.digest(), options.network, options.repeat) and not document["interrupted"]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a third of the requests, once each")
    parser.add_argument("--network", choices=("proxy", "tun", "tbf"), default="proxy")
    parser.add_argument("--repeat", type=int, help="how often each is measured [default: 3, with --quick 1]")
    parser.add_argument("--only", help="names of scenarios, with commas between them")
    parser.add_argument("--results", type=Path, help="where results are kept [default: runs/fidelity-NETWORK]")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    parser.add_argument("--markdown", action="store_true", help="the table for a README")
    options = parser.parse_args(arguments)
    options.repeat = options.repeat or (1 if options.quick else 3)
    quick = "-quick" if options.quick else ""
    options.results = options.results or Path("runs") / f"fidelity-{options.network}{quick}"
    return options


def chosen(only: str | None) -> list[Path]:
    """The scenario files, in order of their names; ends the command where one is unknown."""
    files = {file.stem: file for file in sorted(SCENARIOS.glob("*.yaml"))}
    names = list(files) if only is None else [name.strip() for name in only.split(",")]
    for name in names:
        if name not in files:
            sys.exit(f"--only {name}: no such scenario; there are {', '.join(files)}")
    return [files[name] for name in names]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is not there yet, prints the table; 1 if a target is missed or a scenario failed."""
    options = parse(arguments)
    files, lines, failed = chosen(options.only), list[Line](), list[str]()
    for number, file in enumerate(files, 1):
        print(f"[{number}/{len(files)}] {file.stem}", file=sys.stderr, flush=True)
        try:
            lines.append(result(file, options.results, options))
        except Failed as failure:
            failed.append(str(failure))
    table = Table(lines, options.network)
    if options.json:
        print(json.dumps(table.document() | {"failed": failed} if lines else {"failed": failed}, indent=2))
    elif lines:
        print(shown(table, options.markdown))
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    return int(bool(failed) or not all(target.met for target in table.targets))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; what is finished is kept, the same command goes on")
