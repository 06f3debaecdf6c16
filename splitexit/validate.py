"""How far the simulator is from real processes: the same requests in both worlds, metric by metric.

Both worlds get the same scenario, arrivals, samples, policy objects and seed, and the calibration of this machine that
was measured a moment before. The measured value is the median over repetitions. The simulated one comes from one run of
the same seed; in a band around it lie `CONFIDENCE` of the runs of that length over other seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from splitexit.compare import Run, as_run, run_once
from splitexit.corun import SharedCores, sharing_cores
from splitexit.errors import ProcessError, UsageError
from splitexit.experiment import Experiment
from splitexit.fleet import require_live
from splitexit.report.stored import LIVE, StoredRun
from splitexit.results import LOCAL, column, marked, to_table
from splitexit.scenario import Scenario, Spec
from splitexit.stats import CONFIDENCE
from splitexit.summary import Summariser

if TYPE_CHECKING:
    from splitexit.live.deployment import LiveRun

Say = Callable[[str], None]
Array = np.ndarray[Any, Any]

MS, SHARE, PER_S = "ms", "", "per_s"
METRICS = {
    "mean": MS,
    "p50": MS,
    "p95": MS,
    "p99": MS,
    "device_wait": MS,
    "edge_wait": MS,
    "network": MS,
    "accuracy": SHARE,
    "offload_rate": SHARE,
    "shed_rate": SHARE,
    "lost_rate": SHARE,
    "throughput": PER_S,
}
"""Metric -> its unit. The first four are of the response time; waits and network (both ways) are means, the latter two
over the requests that the edge answered."""

BAND_SEEDS = 39
"""Other seeds that a band is made of: the smallest and the largest of so many values enclose the next one with a
probability of 38/40 = 95 %, whatever the distribution."""


TAILS = (round((1.0 - CONFIDENCE) / 2.0, 9), round((1.0 + CONFIDENCE) / 2.0, 9))
"""Probabilities at both ends of a band; rounded, so that ranks among BAND_SEEDS are whole numbers."""


def figures(summariser: Summariser, run: Run) -> dict[str, float]:
    """The METRICS of one run behind the warm-up; NaN where nothing of the kind happened."""
    rows, summary = summariser.counted(run.table), run.summary
    lost, shed = column(rows, "lost_reply"), column(rows, "shed")
    answered = (column(rows, "split") != LOCAL) & ~lost & ~shed
    return {
        **summary["response_ms"],
        "device_wait": 1e3 * float((column(rows, "start_s") - column(rows, "arrival_s")).mean()),
        "edge_wait": 1e3 * _mean(column(rows, "edge_wait_s")[answered]),
        "network": 1e3 * _mean(column(rows, "network_s")[answered]),
        "accuracy": summary["accuracy"],
        "offload_rate": summary["offload_rate"],
        "shed_rate": summary["shed_rate"],
        "lost_rate": float(lost.mean()),
        "throughput": summary["throughput_per_s"],
    }


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else math.nan


@dataclass(frozen=True)
class Judgement:
    """One metric, measured beside simulated; in its unit, and NaN where it is unknown.

    measured  of every repetition
    band      values of the other seeds
    """

    unit: str
    measured: tuple[float, ...]
    simulated: float
    others: tuple[float, ...]

    @property
    def middle(self) -> float:
        """The measured value: the median over the repetitions."""
        return median(self.measured)

    @property
    def error(self) -> float:
        """Simulated against measured: in percent, of shares in percentage points."""
        return self._relative(self.simulated - self.middle)

    @property
    def spread(self) -> float:
        """Largest minus smallest measured value, likewise."""
        return self._relative(max(self.measured) - min(self.measured))

    def _relative(self, difference: float) -> float:
        if self.unit == SHARE or difference == 0.0:
            return 100.0 * difference
        return 100.0 * difference / self.middle if self.middle else math.inf

    @property
    def noisy(self) -> bool:
        """Whether repetitions differ among themselves by more than the error."""
        return self.spread > abs(self.error)

    @cached_property
    def band(self) -> tuple[float, float]:
        """What encloses the next run with a probability of CONFIDENCE: quantiles at ranks of n + 1, so no narrower."""
        low, high = np.quantile(self.others, TAILS, method="weibull")
        return float(low), float(high)

    @property
    def in_band(self) -> bool:
        """Whether the measured value could be that of a simulated run."""
        return self.band[0] <= self.middle <= self.band[1]

    def document(self) -> dict[str, Any]:
        """For `--json`; units stand in the names."""
        unit, relative = (f"_{self.unit}" if self.unit else ""), "points" if self.unit == SHARE else "percent"
        return {
            f"measured{unit}": self.middle,
            f"simulated{unit}": self.simulated,
            f"error_{relative}": self.error,
            f"difference{unit}": self.simulated - self.middle,
            f"repetitions{unit}": list(self.measured),
            f"spread_{relative}": self.spread,
            f"band{unit}": list(self.band),
            "in_band": self.in_band,
            "noisy": self.noisy,
        }


@dataclass(frozen=True)
class Measured:
    """Repetitions of one policy with one seed by real processes, and with what they are simulated.

    experiment  on the images that there were, with the calibration of the machine
    network     between the processes: proxy, tun or tbf
    late, links  of every repetition: replies that came too late, how exact the links were
    """

    experiment: Experiment
    network: str
    runs: tuple[Run, ...]
    late: tuple[int, ...] = ()
    links: tuple[Mapping[str, Any], ...] = ()
    interrupted: bool = False

    @property
    def requests(self) -> int:
        """Per device."""
        return 1 + max(int(column(run.table, "request").max()) for run in self.runs)


class Deployment(Protocol):
    """What is asked of splitexit.live.deployment.Deployment."""

    experiment: Experiment
    network: str

    def run(
        self, policy: str, seed: int, requests: int | None = None, progress: Callable[[int], None] = ...
    ) -> LiveRun: ...


def measure(deployment: Deployment, policy: str, seed: int, repeat: int, say: Say) -> Measured:
    """Runs the same requests `repeat` times; Ctrl-C keeps the repetitions that are complete.

    Raises:
        ProcessError: a process ended before its time.
        KeyboardInterrupt: no repetition is complete.
    """
    runs, late, links, interrupted = list[Run](), list[int](), list[Mapping[str, Any]](), False
    while len(runs) < repeat and not interrupted:
        say(f"live: {policy}, repetition {len(runs) + 1} of {repeat}")
        live = deployment.run(policy, seed)
        if live.failed:
            raise ProcessError("; ".join(live.failed.values()))
        interrupted = live.interrupted
        if not interrupted:
            table = to_table(live.rows, deployment.experiment.schema)
            runs.append(as_run(deployment.experiment, policy, seed, table))
            late.append(live.late)
            links.append(live.links)
    if not runs:
        raise KeyboardInterrupt
    return Measured(deployment.experiment, deployment.network, tuple(runs), tuple(late), tuple(links), interrupted)


def measure_here(scenario: Scenario, policy: str, seed: int, network: str, repeat: int, say: Say) -> Measured:
    """Calibrates this machine, starts the scenario's processes, and runs them.

    Raises:
        InputError: the scenario, its bundle or the network do not fit.
        ProcessError: a process did not start, or ended before its time.
    """
    from splitexit.live.deployment import Deployment, check_policy
    from splitexit.live.network import NETWORKS
    from splitexit.rehearsal import calibrate_for

    require_live(scenario)
    check_policy(scenario, policy)
    NETWORKS.load(network).require()
    host = calibrate_for(scenario, policy, network, say)
    with Deployment.open(scenario, host=host, network=network, say=say) as deployment:
        return measure(deployment, policy, seed, repeat, say)


def measured_before(stored: StoredRun, policy: str | None = None, seed: int | None = None) -> Measured:
    """What a live run's folder holds of a policy and a seed (the first of each by default).

    Raises:
        UsageError, UnknownNameError: it is no live run, or holds no such rows.
    """
    if stored.world != LIVE:
        raise UsageError(f"{stored.folder}: its rows were simulated; name the folder of a live run")
    label = stored.policies[0] if policy is None else policy
    number = stored.seeds[0] if seed is None else seed
    tables = _repetitions(stored.table(label, number))
    runs = tuple(as_run(stored.experiment, label, number, table) for table in tables)
    return Measured(stored.experiment, str(stored.manifest.get("network", "proxy")), runs)


def _repetitions(table: pa.Table) -> Iterator[pa.Table]:
    """One table for each time that the requests were run: rows of the same request follow one another."""
    device, request = column(table, "device"), column(table, "request")
    first = np.append(True, (np.diff(device) != 0) | (np.diff(request) != 0))
    starts = np.flatnonzero(first)
    nth = np.arange(len(first)) - starts[np.cumsum(first) - 1]
    for number in range(int(nth.max()) + 1):
        yield table.filter(pa.array(nth == number))


def over(network: str, scenario: Scenario) -> Scenario:
    """The scenario as such a network carries it: real TCP runs on tun and tbf, so `transport: tcp` on its links."""
    return scenario if network == "proxy" else scenario.relinked(_under_tcp)


def _under_tcp(up: Spec, down: Spec) -> tuple[Spec, Spec]:
    """Both links under TCP, with the round trip that their delays make together, unless they say otherwise."""
    rtt_ms = sum(1e3 * link.create().delay_s for link in (up, down))

    def under(link: Spec) -> Spec:
        known = link.parameters
        tcp = {"transport": "tcp", "rtt_ms": rtt_ms if known.get("rtt_ms") is None else known["rtt_ms"]}
        return replace(link, parameters={**known, **tcp}) if "transport" in known else link

    return under(up), under(down)


@dataclass(frozen=True)
class Validation:
    """Measured and simulated runs of one policy and seed.

    experiment  what was simulated; SharedCores where native parts slow each other
    band        simulated runs of other seeds
    """

    measured: Measured
    experiment: Experiment
    simulated: Run
    band: tuple[Run, ...] = field(repr=False)

    @cached_property
    def judgements(self) -> dict[str, Judgement]:
        """Every metric that any of the runs has."""
        real, model = Summariser(self.measured.experiment), Summariser(self.experiment)
        measured = [figures(real, run) for run in self.measured.runs]
        simulated, others = figures(model, self.simulated), [figures(model, run) for run in self.band]
        return {
            name: Judgement(unit, tuple(of[name] for of in measured), simulated[name], tuple(of[name] for of in others))
            for name, unit in METRICS.items()
            if math.isfinite(simulated[name]) or any(math.isfinite(of[name]) for of in measured)
        }

    @property
    def overrun_rate(self) -> float:
        """Share of requests of paced parts for which this host was too slow, over all repetitions."""
        return float(np.mean([run.summary["overrun_rate"] for run in self.measured.runs]))

    @property
    def load(self) -> tuple[str, float]:
        """The busiest resource and its utilisation, as simulated; NaN where that cannot be known."""
        summary = self.simulated.summary
        return summary["bottleneck"], summary["utilisation"][summary["bottleneck"]]

    def exceeds(self, percent: float) -> list[str]:
        """Those of mean and p95 whose error is larger, or unknown."""
        return [name for name in ("mean", "p95") if not abs(self.judgements[name].error) <= percent]

    def document(self) -> dict[str, Any]:
        """The content of summary.json and of `--json`."""
        measured, scenario, run = self.measured, self.experiment.scenario, self.simulated
        bottleneck, load = self.load
        shared = self.experiment if isinstance(self.experiment, SharedCores) else None
        return {
            "scenario": scenario.name,
            "scenario_sha256": measured.experiment.scenario.digest(),
            "policy": run.policy,
            "seed": run.seed,
            "network": measured.network,
            "devices": self.experiment.total_devices,
            "requests": len(run.table),
            "repetitions": len(measured.runs),
            "machine": dict(self.experiment.host.machine),
            "load": {"bottleneck": bottleneck, "utilisation": load, "verdict": run.summary["verdict"]},
            "metrics": {name: judgement.document() for name, judgement in self.judgements.items()},
            "band": {"confidence": CONFIDENCE, "seeds": [other.seed for other in self.band]},
            "overrun_rate": self.overrun_rate,
            "late_replies": list(measured.late),
            "links": list(measured.links),
            "corun": None if shared is None else {"devices": list(shared.devices), "edge": shared.edge},
            "interrupted": measured.interrupted,
        }

    def rows(self) -> pa.Table:
        """All rows, measured repetitions first, with policy, seed, world and repetition (from 0) in front."""
        runs = [(LIVE, number, run) for number, run in enumerate(self.measured.runs)]
        return pa.concat_tables([_marked(*of) for of in [*runs, ("simulated", 0, self.simulated)]])


def _marked(world: str, repetition: int, run: Run) -> pa.Table:
    return marked(
        run.table, policy=run.policy, seed=run.seed, world=world, repetition=pa.scalar(repetition, pa.int32())
    )


def judge(measured: Measured, band_seeds: int = BAND_SEEDS, on_run: Callable[[], None] = lambda: None) -> Validation:
    """Simulates what was measured, and the seeds that follow.

    Args:
        measured: by real processes.
        band_seeds: how many other seeds; `on_run` is called after each.
    """
    policy, seed = measured.runs[0].policy, measured.runs[0].seed
    experiment = replace(measured.experiment, scenario=over(measured.network, measured.experiment.scenario))
    experiment, requests = sharing_cores(experiment, policy, seed, measured.requests), measured.requests
    runs = []
    for number in range(seed, seed + 1 + band_seeds):
        runs.append(run_once(experiment, policy, number, requests))
        on_run()
    return Validation(measured, experiment, runs[0], tuple(runs[1:]))
