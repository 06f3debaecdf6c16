"""splitexit's SimPy engine with full rows; the policy sends every sample at the same split."""

from __future__ import annotations

from benchmarks.scenario import experiment
from splitexit.results import Completion
from splitexit.sim import simulate


def run(arrivals: list[float]) -> list[Completion]:
    """Rows; it draws the same arrivals itself."""
    return simulate(experiment(len(arrivals)), "plain", 0)


def responses(rows: list[Completion], arrivals: list[float]) -> list[float]:
    """From the rows."""
    return [row.response_s for row in sorted(rows)]
