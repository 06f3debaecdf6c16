"""Every policy in every scenario, on the same requests: what each answers, takes, misses, costs and regrets.

Arrivals, samples, service times and links are common to all policies of a scenario (random numbers by seed), so that
differences are paired by seed. Every decision is judged against the oracle's in the same state (`sim.regret`), and
timed where it is made: on this machine, in this process.

A run folder keeps one file for each scenario that is finished, named by a digest of everything that decides its
figures. The same command goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import fmean
from time import perf_counter_ns
from typing import Any

from splitexit.bench.policy_plan import Field, Settings, open_field
from splitexit.bundle import file_sha256
from splitexit.compare import Comparison, Run, as_run
from splitexit.errors import InputError, PolicyError
from splitexit.experiment import Experiment
from splitexit.hardware import cpu_model
from splitexit.policies import OmniscientPolicy
from splitexit.report.folder import to_json, versions
from splitexit.results import decisions
from splitexit.sim.regret import judged
from splitexit.stats import CONFIDENCE, Interval, paired
from splitexit.summary import metric

Document = dict[str, Any]
Say = Callable[[str], None]
Progress = Callable[[int, int], None]

FORMAT = 3
"""Of a scenario's document; to be raised with every change of what is in it, so that those kept are made again."""

BEST = {
    "accuracy": 1,
    "response_ms": -1,
    "p50_ms": -1,
    "p95_ms": -1,
    "p99_ms": -1,
    "deadline_miss_rate": -1,
    "device_energy_mj_mean": -1,
    "utility": 1,
    "regret": -1,
}
"""Metrics that have a winner, and which way is better."""

KEPT = (
    "requests",
    "accuracy",
    "response_ms",
    "deadline_miss_rate",
    "offload_rate",
    "fallback_rate",
    "uplink_bytes_mean",
    "device_energy_mj_mean",
    "utility",
    "regret",
    "switch_rate",
    "verdict",
    "intervals",
)
"""Of a policy's summary."""


@dataclass(frozen=True)
class PolicyBench:
    """Policies on one bundle.

    bundle, settings  what runs, and how
    seeds             common to all policies
    share             of each scenario's requests
    folder            keeps the scenarios that are finished
    say               told, in a line each, what is being done
    progress          called with the runs that are done, and all
    """

    bundle: Path
    settings: Settings
    seeds: Sequence[int]
    folder: Path
    share: float = 1.0
    say: Say = lambda line: None
    progress: Progress = lambda done, total: None

    def run(self, scenarios: Sequence[Path]) -> Iterator[Document]:
        """The documents of all scenarios, one after another; one that does not fit the bundle says why, and no more."""
        for number, path in enumerate(scenarios):
            yield self._scenario(path, partial(self._tell, len(scenarios), number))
            self._tell(len(scenarios), number + 1, 0)

    def _tell(self, scenarios: int, behind: int, done: int) -> None:
        each = len(self.settings.entries) * len(self.seeds)
        self.progress(behind * each + done, scenarios * each)

    def document(self, scenarios: Sequence[Document], command: str) -> Document:
        """Everything for tables and pictures, as plain data; `scenarios` are those of `run`."""
        return {
            "command": command,
            "bundle": str(self.bundle),
            "seeds": list(self.seeds),
            "share": self.share,
            "confidence": CONFIDENCE,
            "machine": machine(),
            "versions": versions(),
            "scenarios": list(scenarios),
            "run": str(self.folder),
        }

    def _scenario(self, path: Path, progress: Callable[[int], None]) -> Document:
        """As it is kept, or run now."""
        try:
            field = open_field(path, self.bundle, self.settings)
        except InputError as error:
            self.say(f"{path.stem}: left out: {error}")
            return {"scenario": path.stem, "about": about(path), "why_not": str(error)}
        what = self._decisive(field)
        name = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
        file = self.folder / "scenarios" / f"{path.stem}-{name}.json"
        if not file.exists():
            self.say(f"{path.stem}: {len(field.labels)} policies, {len(self.seeds)} seeds")
            found = self._measured(path, field, progress)
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(".partial")
            partial.write_text(to_json({"decided_by": what, "found": found}) + "\n", encoding="utf-8")
            partial.replace(file)
        return dict(json.loads(file.read_text(encoding="utf-8"))["found"])

    def _decisive(self, field: Field) -> Document:
        """Everything that decides a scenario's figures."""
        bundle = field.experiment.bundle
        return {
            "format": FORMAT,
            "versions": versions(),
            "scenario": field.experiment.scenario.digest(),
            "left_out": dict(field.left_out),
            "code": {label: _source(field.experiment, label) for label in field.labels},
            "bundle": [file_sha256(file) for file in (bundle.recording, bundle.calibration)],
            "seeds": list(self.seeds),
            "share": self.share,
            "machine": machine(),
        }

    def _measured(self, path: Path, field: Field, progress: Callable[[int], None]) -> Document:
        experiment, left_out, done = field.experiment, dict(field.left_out), len(field.left_out) * len(self.seeds)
        runs: dict[str, list[Run]] = {}
        took: dict[str, list[int]] = {}
        for label in field.labels:
            try:
                runs[label], took[label] = self._runs(experiment, label)
            except (InputError, PolicyError) as error:  # what shows only in the course of a run
                runs.pop(label, None)
                left_out[label] = " ".join(str(error).split())
            done += len(self.seeds)
            progress(done)
        if not runs:
            return {"scenario": path.stem, "about": about(path), "why_not": "no policy fits", "left_out": left_out}
        every = tuple(run for label in runs for run in runs[label])
        comparison = Comparison(experiment, tuple(runs), tuple(self.seeds), every)
        rows = {label: _row(comparison, label, took[label]) for label in runs}
        for label, above in above_least(rows).items():
            rows[label]["above_least"] = above._asdict()
        return {
            "scenario": path.stem,
            "about": about(path),
            "devices": experiment.total_devices,
            "hardware": list(dict.fromkeys(group.config.hardware for group in experiment.groups)),
            "requests": next(iter(rows.values()))["requests"],
            "deadline_ms": experiment.scenario.devices.deadline_ms,
            "policies": rows,
            "left_out": left_out,
            "winners": winners(rows),
        }

    def _runs(self, experiment: Experiment, label: str) -> tuple[list[Run], list[int]]:
        """Of every seed, and what all decisions took in nanoseconds."""
        requests = max(1, round(self.share * experiment.scenario.requests))
        runs, took = list[Run](), list[int]()
        for seed in self.seeds:
            found = judged(experiment, label, seed, requests, perf_counter_ns)
            runs.append(as_run(experiment, label, seed, found.table))
            took += found.decide_ns.tolist()
        return runs, took


def _row(comparison: Comparison, label: str, took: Sequence[int]) -> Document:
    """What is said of one policy; `by_seed` is what differences are made of."""
    summary, of = comparison.summaries[label], comparison.of(label)
    spec = comparison.experiment.scenario.policies[label]
    row = {name: summary[name] for name in KEPT if name in summary}
    return row | {
        "policy": spec.plain(),
        "knowing": isinstance(spec.create(), OmniscientPolicy),
        "decision_us": decisions(took),
        "by_seed": {name: [metric(run.summary, name) for run in of] for name in BEST},
    }


def above_least(rows: Mapping[str, Document], confidence: float = CONFIDENCE) -> dict[str, Interval]:
    """By policy that a device could follow: its regret less the least of theirs, with the paired interval.

    Samples that are hard for everybody widen the interval of a regret, but not that of a difference.
    """
    able = {label: row["by_seed"]["regret"] for label, row in rows.items() if not row["knowing"]}
    if not able:
        return {}
    least = min(able.values(), key=fmean)
    return {label: paired(values, least, confidence) for label, values in able.items()}


def winners(rows: Mapping[str, Document], confidence: float = CONFIDENCE) -> dict[str, Document]:
    """By metric: the best of the policies that a device could follow, the second, and their paired difference.

    `sure` says whether its interval excludes 0; only then is the first one a winner. It is the interval of these two
    alone, as if nobody had chosen them among many. What is not known of all of them has no winner.
    """
    found = {}
    for name, sign in BEST.items():
        able = {label: row["by_seed"][name] for label, row in rows.items() if not row["knowing"]}
        if len(able) < 2 or not all(map(math.isfinite, chain.from_iterable(able.values()))):
            continue
        first, second, *_ = sorted(able, key=lambda label: -sign * fmean(able[label]))
        apart = paired(able[first], able[second], confidence)
        found[name] = {"first": first, "second": second, "difference": apart._asdict(), "sure": _apart(apart)}
    return found


def _apart(interval: Interval) -> bool:
    """Whether it excludes 0; one that is unknown does not."""
    return interval.low > 0 or interval.high < 0


def about(path: Path) -> str:
    """What the comment at the top of a scenario says."""
    lines = path.read_text(encoding="utf-8").splitlines()
    top = [line.removeprefix("#").strip() for line in lines[: next(n for n, of in enumerate(lines) if of[:1] != "#")]]
    return " ".join(top)


def _source(experiment: Experiment, label: str) -> str:
    """Digest of the file that the policy is written in."""
    file = sys.modules[type(experiment.scenario.policies[label].create()).__module__].__file__
    return "" if file is None else file_sha256(Path(file))


def machine() -> Document:
    """Where decisions are timed."""
    return {"cpu": cpu_model(), "cores": os.cpu_count(), "os": f"{platform.system()} {platform.release()}"}
