"""Policy beside policy on the same arrivals, samples and service times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from splitexit.experiment import Experiment
from splitexit.results import summarise, to_table, utilities
from splitexit.sim import simulate

CONFIDENCE = 0.95
PAIRED = ("accuracy", "response_ms", "utility")


@dataclass(frozen=True)
class Run:
    """One policy under one seed: its rows and what they say in short."""

    policy: str
    seed: int
    table: pa.Table
    summary: dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """All runs of a comparison, policies in the order asked for, each under every seed."""

    experiment: Experiment
    policies: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: tuple[Run, ...]

    def of(self, policy: str) -> list[Run]:
        """The runs of one policy, in the order of the seeds."""
        return [run for run in self.runs if run.policy == policy]

    @cached_property
    def summaries(self) -> dict[str, dict[str, Any]]:
        """Per policy, the metrics over the rows of all seeds together."""
        return {policy: self._summary(policy) for policy in self.policies}

    def _summary(self, policy: str) -> dict[str, Any]:
        runs = self.of(policy)
        table = pa.concat_tables([run.table for run in runs])
        summary = summarise(table, len(self.experiment.spec.exits))
        summary["utility"] = float(utilities(table, self.experiment.scenario.utility).mean())
        summary["intervals"] = {
            "accuracy": interval([run.summary["accuracy"] for run in runs]),
            "response_ms": interval([run.summary["response_ms"]["mean"] for run in runs]),
        }
        return summary

    def differences(self, baseline: str) -> dict[str, dict[str, dict[str, float]]]:
        """Per policy and metric, the mean difference to `baseline` and its interval over paired seeds."""
        base = [self._means(run) for run in self.of(baseline)]
        return {
            policy: {
                metric: interval([self._means(run)[metric] - b[metric] for run, b in zip(runs, base, strict=True)])
                for metric in PAIRED
            }
            for policy in self.policies
            if policy != baseline and (runs := self.of(policy))
        }

    def _means(self, run: Run) -> dict[str, float]:
        return {
            "accuracy": run.summary["accuracy"],
            "response_ms": run.summary["response_ms"]["mean"],
            "utility": run.summary["utility"],
        }

    @cached_property
    def rows(self) -> pa.Table:
        """One tidy table: every row of every run, with its policy and seed in front."""
        tables = []
        for run in self.runs:
            named = run.table.add_column(0, "seed", pa.array([run.seed] * len(run.table), pa.int64()))
            tables.append(named.add_column(0, "policy", pa.array([run.policy] * len(run.table))))
        return pa.concat_tables(tables)

    def document(self) -> dict[str, Any]:
        """The content of summary.json and of `--json`."""
        baseline = self.policies[0]
        return {
            "scenario": self.experiment.scenario.name,
            "seeds": list(self.seeds),
            "confidence": CONFIDENCE,
            "policies": self.summaries,
            "baseline": baseline,
            "differences": self.differences(baseline),
        }


def compare(
    experiment: Experiment,
    policies: Sequence[str],
    seeds: Sequence[int],
    on_run: Callable[[Run], None] = lambda run: None,
) -> Comparison:
    """Simulates every policy under every seed; seeds are common to all policies.

    Raises:
        InputError: a policy does not fit the scenario; found before the first run.
    """
    for policy in policies:
        experiment.decider(policy, seeds[0], 0)
    runs = []
    for policy in policies:
        for seed in seeds:
            run = run_once(experiment, policy, seed)
            runs.append(run)
            on_run(run)
    return Comparison(experiment, tuple(policies), tuple(seeds), tuple(runs))


def run_once(experiment: Experiment, policy: str, seed: int, requests: int | None = None) -> Run:
    """One simulated run with its summary."""
    return as_run(experiment, policy, seed, to_table(simulate(experiment, policy, seed, requests)))


def as_run(experiment: Experiment, policy: str, seed: int, table: pa.Table) -> Run:
    """Rows of either world, summarised."""
    summary = summarise(table, len(experiment.spec.exits))
    summary["utility"] = float(utilities(table, experiment.scenario.utility).mean())
    return Run(policy, seed, table, summary)


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean and Student's t interval (CONFIDENCE) of independent values; low and high are NaN for a single one."""
    from scipy.special import stdtrit

    array = np.asarray(values, dtype=float)
    mean, n = float(array.mean()), len(array)
    if n < 2:
        return {"mean": mean, "low": float("nan"), "high": float("nan")}
    half = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2) * array.std(ddof=1) / np.sqrt(n))
    return {"mean": mean, "low": mean - half, "high": mean + half}
