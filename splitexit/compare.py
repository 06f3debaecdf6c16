"""Policy beside policy on the same arrivals, samples and service times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import pyarrow as pa

from splitexit.errors import UsageError
from splitexit.experiment import Experiment
from splitexit.results import marked, to_table
from splitexit.sim import compiled, simulate
from splitexit.sim.regret import judged
from splitexit.stats import CONFIDENCE, Interval, paired, precise
from splitexit.summary import Summariser, Summary, metric, over_batches, over_replications

PAIRED = ("accuracy", "response_ms", "utility")
MOST_SEEDS = 100
"""Where sequential stopping gives up unless told otherwise."""


@dataclass(frozen=True)
class Run:
    """One policy under one seed: its rows and what they say in short."""

    policy: str
    seed: int
    table: pa.Table
    summary: Summary


@dataclass(frozen=True)
class Comparison:
    """All runs of a comparison, policies in the order asked for, each under every seed.

    `precision` is what was asked for (relative, 0.01 for 1 %), None for a fixed number of seeds.
    """

    experiment: Experiment
    policies: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: tuple[Run, ...]
    precision: float | None = None
    confidence: float = field(default=CONFIDENCE)

    def of(self, policy: str) -> list[Run]:
        """The runs of one policy, in the order of the seeds."""
        return [run for run in self.runs if run.policy == policy]

    @cached_property
    def summaries(self) -> dict[str, Summary]:
        """Per policy, the metrics over the rows of all seeds together."""
        return {policy: self._summary(policy) for policy in self.policies}

    def _summary(self, policy: str) -> Summary:
        runs, summarise = self.of(policy), Summariser(self.experiment)
        summary = summarise([run.table for run in runs])
        if len(runs) > 1:
            found = over_replications([run.summary for run in runs], self.confidence)
            summary["intervals"] = {name: interval._asdict() for name, interval in found.items()}
        else:
            summary["intervals"] = self._batches(summarise, runs[0])
        return summary

    def _batches(self, summarise: Summariser, run: Run) -> dict[str, dict[str, Any]]:
        """Intervals of a single run, from batch means; limits are NaN where it is too short for them."""
        batched = over_batches(summarise.counted(run.table), self.experiment.scenario.utility, self.confidence)
        found: dict[str, dict[str, Any]] = {
            name: interval._asdict() for name, interval in over_replications([run.summary]).items()
        }
        for name, b in batched.items():
            found[name] = b.interval._asdict() | {
                "batches": b.batches,
                "batch_size": b.size,
                "lag1": b.lag1,
                "independent": b.independent,
            }
        return found

    def differences(self, baseline: str) -> dict[str, dict[str, dict[str, float]]]:
        """Per policy and metric, the mean difference to `baseline` and its interval over paired seeds."""
        return {
            policy: {name: self._difference(policy, baseline, name)._asdict() for name in PAIRED}
            for policy in self.policies
            if policy != baseline
        }

    def _difference(self, policy: str, baseline: str, name: str) -> Interval:
        mine, base = ([metric(run.summary, name) for run in self.of(label)] for label in (policy, baseline))
        return paired(mine, base, self.confidence)

    @cached_property
    def rows(self) -> pa.Table:
        """One tidy table: every row of every run, with its policy and seed in front."""
        return pa.concat_tables([marked(run.table, policy=run.policy, seed=run.seed) for run in self.runs])

    def document(self) -> dict[str, Any]:
        """The content of summary.json and of `--json`."""
        baseline = self.policies[0]
        document = {
            "scenario": self.experiment.scenario.name,
            "seeds": list(self.seeds),
            "confidence": self.confidence,
            "intervals_from": "replications" if len(self.seeds) > 1 else "batch means",
            "policies": self.summaries,
            "baseline": baseline,
            "differences": self.differences(baseline),
        }
        return document if self.precision is None else document | {"precision": self.reached()}

    def reached(self) -> dict[str, Any]:
        """What sequential stopping came to: half widths of mean responses (relative) and of paired differences (ms)."""
        assert self.precision is not None, "without a precision nothing was asked for"
        means = {policy: _response([run.summary for run in self.of(policy)]) for policy in self.policies}
        n, base = len(self.seeds), self.policies[0]
        return {
            "asked": self.precision,
            "reached": all(precise(mean, self.precision, n) for mean in means.values()),
            "relative_half_widths": {policy: mean.relative for policy, mean in means.items()},
            "differences_half_ms": {
                policy: self._difference(policy, base, "response_ms").half for policy in self.policies[1:]
            },
        }


def compare(
    experiment: Experiment,
    policies: Sequence[str],
    seeds: Sequence[int],
    on_run: Callable[[Run], None] = lambda run: None,
    precision: float | None = None,
    max_seeds: int = MOST_SEEDS,
    regret: bool = False,
) -> Comparison:
    """Simulates every policy under every seed; seeds are common to all policies.

    With a precision, further seeds follow the last one until every policy's mean response is known to within it
    (`stats.precise`), or there are `max_seeds`. With `regret`, every decision is judged (`sim.regret`).

    Raises:
        InputError: a policy does not fit the scenario; found before the first run.
        UsageError: regret is asked for of the compiled engine.
    """
    run = partial(run_once, experiment, regret=regret)
    for policy in policies:
        for group in experiment.groups:
            experiment.decider(policy, seeds[0], group.first)
    numbers = list(seeds)
    runs: dict[str, list[Run]] = {policy: [] for policy in policies}
    for policy in policies:
        _add(runs[policy], run, policy, numbers, on_run)
    while precision is not None and len(numbers) < max_seeds and not _precise(runs, precision):
        numbers.append(max(numbers) + 1)
        for policy in policies:
            _add(runs[policy], run, policy, numbers[-1:], on_run)
    ordered = tuple(done for policy in policies for done in runs[policy])
    return Comparison(experiment, tuple(policies), tuple(numbers), ordered, precision)


def _add(
    to: list[Run], run: Callable[[str, int], Run], policy: str, seeds: Sequence[int], on_run: Callable[[Run], None]
) -> None:
    for seed in seeds:
        to.append(run(policy, seed))
        on_run(to[-1])


def _precise(runs: dict[str, list[Run]], precision: float) -> bool:
    means = (_response([run.summary for run in of]) for of in runs.values())
    return all(precise(mean, precision, len(of)) for mean, of in zip(means, runs.values(), strict=True))


def _response(summaries: Sequence[Summary]) -> Interval:
    return over_replications(summaries)["response_ms"]


def run_once(
    experiment: Experiment, policy: str, seed: int, requests: int | None = None, *, regret: bool = False
) -> Run:
    """One simulated run, by the scenario's engine, with its summary; with `regret`, every decision is judged.

    Raises UsageError for regret of the compiled engine, which looks at no alternatives.
    """
    if regret and experiment.scenario.engine == "compiled":
        raise UsageError("--regret: the compiled engine looks at no alternatives; take --engine simpy")
    if regret:
        return as_run(experiment, policy, seed, judged(experiment, policy, seed, requests).table)
    if experiment.scenario.engine == "compiled":
        table = compiled.simulate(experiment, policy, seed, requests)
    else:
        table = to_table(simulate(experiment, policy, seed, requests), experiment.schema)
    return as_run(experiment, policy, seed, table)


def as_run(experiment: Experiment, policy: str, seed: int, table: pa.Table) -> Run:
    """Rows of either world, charged with their energy and summarised."""
    summarise = Summariser(experiment)
    charged = summarise.charged(table)
    return Run(policy, seed, charged, summarise([charged]))
