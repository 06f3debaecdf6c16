"""splitexit's SimPy engine with full rows; the policy is asked again after each of six exits."""

from __future__ import annotations

from benchmarks.contestants.splitexit_simpy import responses as responses
from benchmarks.scenario import EXITS, experiment
from splitexit.results import Completion
from splitexit.sim import simulate


def run(arrivals: list[float]) -> list[Completion]:
    """Rows; it draws the same arrivals itself."""
    return simulate(experiment(len(arrivals), EXITS), "asked-again", 0)
