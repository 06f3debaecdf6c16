"""What another policy would have done: a run is simulated again from its log.

Every device's arrivals, samples and links are those of the log. In an open process requests come when they came; in a
closed loop each comes a pause after the answer to the one before, as in the scenario, so that only the order of the
samples is the log's. Service times are drawn with the run's seed and calibration, as they were in a simulated or paced
run. The links are `measured` (splitexit.replay.links), or those of the `scenario` with the run's seed.

The logged policy is simulated as well: how far that is from what was measured is the check that the replay brings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from splitexit.check import contenders
from splitexit.compare import Comparison, Run, as_run
from splitexit.errors import UsageError
from splitexit.experiment import Experiment
from splitexit.replay.links import Measured
from splitexit.replay.logged import Logged, logged, with_links
from splitexit.report.stored import LIVE, StoredRun
from splitexit.results import column, to_table
from splitexit.sim import simulate
from splitexit.stats import CONFIDENCE, batch_means
from splitexit.summary import Summary, metric
from splitexit.validate import over

Links = Literal["measured", "scenario"]

ENOUGH = 20
"""Uploads with which links are taken as measured where nobody says."""

PAIRED: Mapping[str, Callable[[pa.Table], Any]] = {
    "response_ms": lambda table: 1e3 * column(table, "response_s"),
    "accuracy": lambda table: (column(table, "prediction") == column(table, "label")).astype(float),
}
"""What is compared request by request: name -> values of a table."""

ERRORS = ("response_ms", "p50_ms", "p95_ms", "p99_ms")


@dataclass(frozen=True)
class Replay:
    """What was logged, and what every policy would have done instead.

    policy, seed  of the log
    links         what they were taken from
    left_out      rows of the log that could not be used: those behind a request that was never answered
    runs          the rows of the log first, then the logged policy simulated again, then the others
    """

    experiment: Logged
    policy: str
    seed: int
    links: Links
    left_out: int
    runs: tuple[Run, ...]

    @cached_property
    def summaries(self) -> dict[str, Summary]:
        """By label, the log's own under `logged`, every metric with its interval from batch means."""
        labels = tuple(run.policy for run in self.runs)
        return Comparison(self.experiment, labels, (self.seed,), self.runs).summaries

    @property
    def logged(self) -> str:
        """The label of the rows of the log."""
        return self.runs[0].policy

    def differences(self) -> dict[str, dict[str, dict[str, float]]]:
        """Per policy, the mean difference to the log with its interval, from batch means over requests."""
        base = self.runs[0].table
        return {
            run.policy: {name: _difference(values(run.table) - values(base)) for name, values in PAIRED.items()}
            for run in self.runs[1:]
        }

    def errors_percent(self) -> dict[str, float]:
        """How far the replay of the logged policy itself is from the log."""
        real, again = (run.summary for run in self.runs[:2])
        return {name: 100.0 * (metric(again, name) / metric(real, name) - 1.0) for name in ERRORS}

    @property
    def found(self) -> dict[str, Measured]:
        """What was measured of which link."""
        own = {f"device {number}": path.measured for number, path in self.experiment.own.items()}
        cells = {f"{c.label} {c.number}": c.index for c in self.experiment.cells if c.index in self.experiment.shared}
        return own | {name: self.experiment.shared[index].measured for name, index in cells.items()}

    @property
    def measured_share(self) -> float:
        """Of the time of all links that devices used, how much was measured; the scenario's links fill in the rest."""
        experiment = self.experiment
        cells = [experiment.cell(device) for device in experiment.log]
        used = len({cell.index for cell in cells if cell}) + cells.count(None)
        return sum(measured.measured_share for measured in self.found.values()) / used

    @property
    def table(self) -> pa.Table:
        """All simulated rows, with their policy and seed."""
        return Comparison(self.experiment, (), (self.seed,), self.runs[1:]).rows

    def document(self) -> dict[str, Any]:
        """The content of summary.json and of `--json`."""
        return {
            "scenario": self.experiment.scenario.name,
            "policy": self.policy,
            "seed": self.seed,
            "requests": len(self.runs[0].table),
            "left_out": self.left_out,
            "links": {
                "from": self.links,
                "measured_share": self.measured_share,
                "found": {name: measured.document() for name, measured in self.found.items()},
            },
            "confidence": CONFIDENCE,
            "logged": self.summaries[self.logged],
            "policies": {run.policy: self.summaries[run.policy] for run in self.runs[1:]},
            "differences": self.differences(),
            "self_check": {"error_percent": self.errors_percent()},
        }


def _difference(values: Any) -> dict[str, float]:
    """Mean and interval; NaN limits where there are too few."""
    batches = batch_means(values)
    found: dict[str, float] = {"mean": float(values.mean()), "low": float("nan"), "high": float("nan")}
    return found if batches is None else dict(batches.interval._asdict())


def replay(
    run: StoredRun,
    policies: Sequence[str] | None = None,
    links: Links | None = None,
    from_policy: str | None = None,
    seed: int | None = None,
    on_run: Callable[[str], None] = lambda label: None,
) -> Replay:
    """Simulates what other policies would have done in a run.

    Args:
        run: the log.
        policies: labels of its scenario (default: all). The logged one is always among them.
        links: default: measured where there are ENOUGH uploads, else those of the scenario.
        from_policy, seed: whose rows; needed where the run has several.
        on_run: told of every policy that is done.

    Raises:
        UsageError: the rows are ambiguous, or cannot tell of the links.
        InputError: a policy is unknown or does not fit.
    """
    policy = _one("policy", "--from-policy", run.policies, from_policy)
    number = _one("seed", "--seed", run.seeds, seed)
    rows, left_out = _without_gaps(run.table(policy, number))
    experiment, source = _with_links(logged(_as_carried(run), rows), number, links)
    labels = list(dict.fromkeys([policy, *(contenders(experiment) if policies is None else policies)]))
    for label in labels:
        for group in experiment.groups:
            experiment.decider(label, number, group.first)
    runs = [as_run(experiment, f"{policy} (logged)", number, rows)]
    for label in labels:
        runs.append(as_run(experiment, label, number, to_table(simulate(experiment, label, number), experiment.schema)))
        on_run(label)
    return Replay(experiment, policy, number, source, left_out, tuple(runs))


def _as_carried(run: StoredRun) -> Experiment:
    """The experiment of a log, with TCP on its links where real TCP was."""
    scenario = run.experiment.scenario
    network = str(run.manifest.get("network", "proxy")) if run.world == LIVE else "proxy"
    return run.experiment if network == "proxy" else replace(run.experiment, scenario=over(network, scenario))


def _one(what: str, option: str, known: Sequence[Any], wanted: Any) -> Any:
    """The one that is meant, known or not."""
    if wanted is None and len(known) > 1:
        listed = ", ".join(map(str, known[:8])) + (", ..." if len(known) > 8 else "")
        raise UsageError(f"the run has rows of more than one {what} ({listed}); say which to replay with {option}")
    return known[0] if wanted is None else wanted


def _without_gaps(rows: pa.Table) -> tuple[pa.Table, int]:
    """The rows up to each device's first request that has none, and how many that leaves out.

    Of requests that were measured several times the first rows are taken.
    """
    device, request = column(rows, "device"), column(rows, "request")
    again = np.concatenate([[False], (device[1:] == device[:-1]) & (request[1:] == request[:-1])])
    rows, device, request = rows.filter(pa.array(~again)), device[~again], request[~again]
    starts = np.concatenate([[True], device[1:] != device[:-1]])
    position = np.arange(len(rows)) - np.maximum.accumulate(np.where(starts, np.arange(len(rows)), 0))
    kept = rows.filter(pa.array(request == position))
    if not len(kept):
        raise UsageError("no device's first request is in the log, so nothing can be replayed in order")
    return kept, len(rows) - len(kept)


def _with_links(plain: Logged, seed: int, links: Links | None) -> tuple[Logged, Links]:
    """The experiment with the links that are asked for, or that the log is enough for; and which these are."""
    if links == "scenario":
        return plain, "scenario"
    found = with_links(plain, seed)
    count = sum(path.measured.uploads for path in (*found.own.values(), *found.shared.values()))
    if links == "measured" and not count:
        raise UsageError(
            "no request of this run was answered by the edge, so it says nothing of the links; try --links scenario"
        )
    return (found, "measured") if count >= ENOUGH or links == "measured" else (plain, "scenario")
