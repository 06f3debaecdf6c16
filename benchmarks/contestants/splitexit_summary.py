"""splitexit's compiled engine with a summary and no rows."""

from __future__ import annotations

import math
from typing import Any

from benchmarks.scenario import experiment
from splitexit.results import column
from splitexit.sim import compiled


def run(arrivals: list[float]) -> dict[str, Any]:
    """The summary; it draws the same arrivals itself."""
    summary: dict[str, Any] = compiled.summarise_run(experiment(len(arrivals)), "plain", 0)
    return summary


def responses(summary: dict[str, Any], arrivals: list[float]) -> list[float]:
    """Those of the same engine's rows, of which the summary must have the mean."""
    found = column(compiled.simulate(experiment(len(arrivals)), "plain", 0), "response_s")
    mean_ms, expected_ms = summary["response_ms"]["mean"], 1e3 * found.mean()
    if not math.isclose(mean_ms, expected_ms, abs_tol=1e-6):
        raise ValueError(f"the summary's mean is {mean_ms} ms, that of the rows is {expected_ms} ms")
    responses_s: list[float] = found.tolist()
    return responses_s
