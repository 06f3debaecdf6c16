"""How often a change of the bandwidth is declared where there is none, and how soon where there is one.

    python benchmarks/changes.py                  # 100 runs of 1,000 transfers each
    python benchmarks/changes.py --runs 400 --json

A device uploads 2,000 to 8,000 bytes over a link of 5 Mbit/s with a round trip of 20 ms; what a payload takes on the
link varies by 10 % (standard deviation), independently. A run without a change has 1,000 transfers. For the delays, the
rate is multiplied by a factor after 100 transfers; what is declared in the 100 after that counts.

Detectors: that of edgent_dynamic and spinn (`declared`, splitexit.changes); the same with the rule of a probability
above a half that the run is shorter than five (`half`); an average that moves by a fifth of the way and, where it is
5 % off the last plan's, is planned for anew (`5 %`). What they look at: the rate of every single transfer (`transfer`),
or what the device's own estimator believes after it (`estimate`, splitexit.estimate).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from math import exp, log
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from rich.console import Console
from rich.table import Table

from splitexit.changes import ChangeDetector
from splitexit.decision import LinkEstimate
from splitexit.estimate import LinkEstimator

LINK = LinkEstimate(rate_bps=5e6, rtt_s=0.020)
NOISE, LENGTH, BEFORE, AFTER = 0.1, 1000, 100, 100
FACTORS = (0.1, 0.5, 0.8, 1.25, 2.0, 10.0)


def samples(rng: np.random.Generator, factors: list[float], kind: str) -> Iterator[float]:
    """Logarithms of rates, one after each transfer; `factors` of the link's rate."""
    estimator = LinkEstimator(LINK)
    for factor in factors:
        size = float(rng.integers(2000, 8000))
        transit_s = 8.0 * size / (factor * LINK.rate_bps) * max(rng.normal(1.0, NOISE), 0.1)
        if kind == "transfer":
            yield log(8.0 * size / transit_s)
        else:
            estimator.observe(size, LINK.rtt_s + transit_s)
            yield log(estimator.estimate.rate_bps)


def by_detector(**settings: float) -> Callable[[Iterator[float]], list[int]]:
    """After which transfers a ChangeDetector declares a change."""

    def declared(values: Iterator[float]) -> list[int]:
        detector = ChangeDetector(**settings)
        state = detector.begin(log(LINK.rate_bps))
        return [number for number, value in enumerate(values) if detector.observe(state, value)]

    return declared


def by_average(values: Iterator[float]) -> list[int]:
    """After which transfers a moving average is 5 % off what was planned for last."""
    average = planned = LINK.rate_bps
    fired = []
    for number, value in enumerate(values):
        average += 0.2 * (exp(value) - average)
        if abs(average / planned - 1.0) > 0.05:
            planned = average
            fired.append(number)
    return fired


DETECTORS = {
    "declared": by_detector(),
    "half": by_detector(recent=5, sure=0.5, confirm=1, apart=0.0),
    "5 %": by_average,
}


def measure(detector: str, kind: str, runs: int) -> dict[str, object]:
    """False alarms per run; by factor, how many runs had exactly one declaration, and its mean delay in transfers."""

    def found(seed: int, factors: list[float]) -> list[int]:
        return DETECTORS[detector](samples(np.random.default_rng(seed), factors, kind))

    alarms = [len(found(seed, [1.0] * LENGTH)) for seed in range(runs)]
    steps = {}
    for factor in FACTORS:
        late = [
            [n - BEFORE + 1 for n in found(seed, [1.0] * BEFORE + [factor] * AFTER) if n >= BEFORE]
            for seed in range(runs)
        ]
        delays = [times[0] for times in late if times]
        steps[factor] = {
            "once": sum(len(times) == 1 for times in late) / runs,
            "missed": sum(not times for times in late) / runs,
            "delay": float(np.mean(delays)) if delays else None,
            "longest": max(delays, default=None),
        }
    return {
        "detector": detector,
        "samples": kind,
        "alarms_per_1000": float(np.mean(alarms)),
        "runs_with_alarms": sum(count > 0 for count in alarms) / runs,
        "steps": steps,
    }


def table(rows: list[dict[str, object]]) -> Table:
    """For reading."""
    shown = Table("detector", "looks at", "false alarms", *(f"x {factor:g}" for factor in FACTORS))
    for row in rows:
        steps = [
            f"{step['once']:.0%}" + (f", {step['delay']:.1f}" if step["delay"] else "")
            for step in row["steps"].values()
        ]
        shown.add_row(row["detector"], row["samples"], f"{row['alarms_per_1000']:.3f}", *steps)
    return shown


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="default 100")
    parser.add_argument("--json", action="store_true", help="print one document")
    options = parser.parse_args(arguments)
    rows = [measure(name, kind, options.runs) for name in DETECTORS for kind in ("transfer", "estimate")]
    if options.json:
        print(json.dumps({"runs": options.runs, "rows": rows}, indent=1))
    else:
        Console(width=120).print(table(rows))
        print(
            "False alarms per 1,000 transfers; of the steps, how many were declared exactly once, and the mean delay."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
