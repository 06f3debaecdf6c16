"""Which policies to consider for a scenario: what is there is searched, simulated, and the few best are named.

1. Fixed plans (exits, threshold, split, codec) that the device can hold are worked out on the calibration split
   (splitexit.outlook); those that another beats in latency, accuracy and bytes at once are left out.
2. The rest, and the policies that adapt, are simulated on samples of the calibration split.
3. Of those that may meet the service levels, the one with the highest utility is recommended, and the fastest,
   most accurate, least energy and fewest bytes are named beside it.
4. They alone are simulated on the test split, by which nothing was chosen, with intervals.
5. All bandwidths are made smaller and larger, to say where the recommendation changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from splitexit import backlog
from splitexit.capacity import FAILS, MEETS, Slo
from splitexit.check import contenders, misfit
from splitexit.compare import Comparison, compare, run_once
from splitexit.decision import Plan
from splitexit.errors import InputError, UsageError
from splitexit.experiment import Experiment
from splitexit.footprint import Footprint
from splitexit.recommend.search import Memory, Policies, Search, describe
from splitexit.scenario import dump, load
from splitexit.stats import Interval
from splitexit.summary import Summariser, Summary, busiest, metric, over_replications

Step = Callable[[str], None]

MOST_SIMULATED = 24
"""Fixed plans that are simulated."""

SCREENING = (1_000_001, 1_000_002, 1_000_003)
"""Seeds of the simulations that choose; those that report begin at 0."""

WAYS = ((0.25, 4), (4.0, 2))
"""How all bandwidths are changed to find where the answer does: by what factor at a time, and how often."""

HALVINGS = 5
"""Of a step in which the answer changes: to within 4 % of the bandwidth."""

REASONS: dict[str, tuple[str, float]] = {
    "recommended": ("utility", 1.0),
    "fastest": ("response_ms", -1.0),
    "most accurate": ("accuracy", 1.0),
    "least energy": ("device_energy_mj_mean", -1.0),
    "fewest bytes": ("uplink_bytes_mean", -1.0),
}
"""Why a policy is named: the metric in which it is the best, and the sign that makes more better."""

ADAPTIVE: Policies = {
    name: {"name": name} for name in ("neurosurgeon", "edgent_dynamic", "jalad", "queue_aware", "spinn", "ans")
}
"""Policies that adapt, with the arguments that suit any bundle; those that do not fit are left out."""

YARDSTICKS = ("oracle", "random")
"""Policies that nobody would choose."""

FOREVER_S = 1e6
"""Longer than any simulation here."""

SEARCHED = "searched.yaml"
"""The scenario with all that is simulated."""

FILE = "recommended.yaml"
"""The scenario with the choices."""


@dataclass(frozen=True)
class Choice:
    """One policy that is worth considering.

    reasons    of REASONS
    policy     as in a scenario
    intervals  by metric, on the test split
    states     service level -> meets, fails or undecided there
    """

    label: str
    reasons: tuple[str, ...]
    policy: Mapping[str, Any]
    intervals: Mapping[str, Interval]
    states: Mapping[str, str]
    busiest: str
    stable: bool

    @property
    def outcome(self) -> str:
        """All service levels together."""
        states = set(self.states.values())
        if not self.stable or FAILS in states:
            return FAILS
        return MEETS if states <= {MEETS} else "undecided"


@dataclass(frozen=True)
class Flip:
    """Where another answer begins.

    factor  of all bandwidths; from here on downwards where it is below 1, upwards above
    mbps    of the first group's uplink there
    best    the choice with the highest utility there; empty where none meets the levels
    meets   whether the recommended one still meets them
    """

    factor: float
    mbps: float
    best: str
    meets: bool


@dataclass(frozen=True)
class Advice:
    """What was found.

    searched   fixed plans looked at; too_large of them do not fit into the device's memory
    simulated  policies, with the adaptive ones
    met        whether any of them may meet the service levels; if not, the choices are the least bad
    flips      by bandwidth; those without one stay the best in the range of WAYS; or why it is not known
    """

    searched: int
    too_large: int
    simulated: int
    met: bool
    choices: tuple[Choice, ...]
    flips: tuple[Flip, ...] | str
    comparison: Comparison

    @property
    def recommended(self) -> Choice:
        """The first choice."""
        return self.choices[0]


def advise(
    base: Experiment,
    slos: Sequence[Slo],
    seeds: Sequence[int],
    folder: Path,
    memory_bytes: int | None = None,
    on_step: Step = lambda text: None,
) -> Advice:
    """Searches, simulates and names; writes recommended.yaml into `folder`.

    Args:
        base: the scenario; its policies are searched too.
        seeds: of the simulations that report.
        memory_bytes: what the device can hold (see splitexit.footprint), if that is limited.
        on_step: is told what comes next.

    Raises:
        InputError: nothing fits into the memory, or the scenario does not fit the bundle.
        UsageError: a service level is not known in this scenario.
    """
    on_step("working out fixed plans on the calibration split")
    memory = None if memory_bytes is None else Memory(memory_bytes, Footprint.of(base.bundle))
    found = Search(base.setting(), memory)
    fixed = found.front(MOST_SIMULATED)
    policies = fixed | _adaptive(base, found, folder)
    if not policies:
        raise InputError(f"none of {found.searched} plans fits into the device's {memory_bytes} bytes; give it more")
    everything = _with(base, policies, folder / SEARCHED)
    screened = _screen(everything.on_part("calibration"), list(policies), slos, on_step)
    named, met = _name(screened, slos)
    chosen = _with(base, {_label(reasons): policies[label] for label, reasons in named.items()}, folder / FILE)
    labels = list(chosen.scenario.policies)
    on_step(f"simulating {', '.join(labels)} on the test split")
    comparison = compare(chosen, labels, seeds, lambda run: on_step(f"{run.policy}, seed {run.seed}"))
    reasons = {_label(reasons): reasons for reasons in named.values()}
    choices = tuple(_choice(comparison, label, reasons[label], slos) for label in labels)
    flips = _flips(chosen, labels, slos, folder, on_step)
    return Advice(found.searched, found.too_large, len(policies), met, choices, flips, comparison)


def _adaptive(base: Experiment, search: Search, folder: Path) -> Policies:
    """ADAPTIVE and the scenario's own, where the device holds the whole network: their plans vary."""
    if not search.holds(Plan()):
        return {}
    scenario = base.scenario
    tried = _with(base, ADAPTIVE, folder / SEARCHED)
    fitting = {label: policy for label, policy in ADAPTIVE.items() if not misfit(tried, label)}
    own = {label: scenario.policies[label].plain() for label in contenders(base) if label in scenario.policies}
    return {label: policy for label, policy in {**fitting, **own}.items() if policy["name"] not in YARDSTICKS}


def _with(base: Experiment, policies: Policies, file: Path, more: Mapping[str, Any] | None = None) -> Experiment:
    """The scenario with these policies alone, written to a file; the devices follow the first."""
    content = base.scenario.resolved() | {"policies": policies} | dict(more or {})
    first = next(iter(policies))
    groups = {label: group | {"policy": first} for label, group in content.get("groups", {}).items()}
    content |= {"groups": groups} if groups else {"devices": content["devices"] | {"policy": first}}
    file.write_text(dump(content), encoding="utf-8")
    return replace(base, scenario=load(file))


def _screen(experiment: Experiment, labels: Sequence[str], slos: Sequence[Slo], on_step: Step) -> dict[str, _Screened]:
    """Every policy under the seeds of SCREENING."""
    summarise = Summariser(experiment)
    found = {}
    for number, label in enumerate(labels):
        shown = describe(experiment.scenario.policies[label].plain())
        on_step(f"simulating {number + 1} of {len(labels)}: {shown}")
        runs = [run_once(experiment, label, seed) for seed in SCREENING]
        found[label] = _Screened(
            over_replications([run.summary for run in runs]), summarise([run.table for run in runs])
        )
    for slo in slos:
        if all(slo.metric not in screened.intervals for screened in found.values()):
            raise UsageError(f"--slo {slo.text}: not known here: {'; '.join(summarise.energy_gaps) or 'no figures'}")
    return found


@dataclass(frozen=True)
class _Screened:
    """Intervals by metric over the screening seeds, and the summary of all rows."""

    intervals: Mapping[str, Interval]
    summary: Summary

    def short(self, slos: Sequence[Slo]) -> float:
        """By how much the worst service level is missed, relative to its bound; 0 where all estimates are good."""
        if self.summary["verdict"] == backlog.UNSTABLE:
            return math.inf
        return max((max(0.0, -slo.slack(self.intervals[slo.metric])) for slo in slos), default=0.0)

    def good(self, reason: str) -> float:
        """In the metric of a reason; more is better."""
        name, sign = REASONS[reason]
        return sign * metric(self.summary, name)


def _name(screened: Mapping[str, _Screened], slos: Sequence[Slo]) -> tuple[dict[str, tuple[str, ...]], bool]:
    """Label -> reasons, the recommended one first; and whether any may meet the levels. If not, only the least bad."""
    short = {label: found.short(slos) for label, found in screened.items()}
    meeting = [label for label, by in short.items() if by == 0]
    if not meeting:
        return {min(short, key=lambda label: (short[label], -screened[label].good("recommended"))): ("nearest",)}, False
    reasons: dict[str, tuple[str, ...]] = {}
    for reason in REASONS:
        known = [label for label in meeting if not math.isnan(screened[label].good(reason))]
        if known:
            best = max(known, key=lambda label: (screened[label].good(reason), screened[label].good("recommended")))
            reasons[best] = (*reasons.get(best, ()), reason)
    return reasons, True


def _label(reasons: Sequence[str]) -> str:
    return reasons[0].replace(" ", "-")


def _choice(comparison: Comparison, label: str, reasons: tuple[str, ...], slos: Sequence[Slo]) -> Choice:
    summary = comparison.summaries[label]
    intervals = {name: Interval(**interval) for name, interval in summary["intervals"].items()}
    states = {slo.text: slo.state(intervals[slo.metric]) for slo in slos if slo.metric in intervals}
    name = summary["bottleneck"]
    return Choice(
        label,
        reasons,
        comparison.experiment.scenario.policies[label].plain(),
        intervals,
        states,
        busiest(name, summary["utilisation"][name]),
        summary["verdict"] != backlog.UNSTABLE,
    )


def _flips(
    chosen: Experiment, labels: Sequence[str], slos: Sequence[Slo], folder: Path, on_step: Step
) -> tuple[Flip, ...] | str:
    """The nearest change of the answer in both directions."""

    @cache
    def answer(factor: float) -> tuple[str, bool]:
        on_step(f"bandwidth times {factor:.3g}")
        return _answer(_at_bandwidth(chosen, labels, factor, folder / "bandwidth.yaml"), labels, slos)

    (uplink, _), found = chosen.scenario.links(chosen.groups[0].config), []
    try:
        for by, times in WAYS:
            steps = [by**n for n in range(times + 1)]
            turn = next(((a, b) for a, b in pairwise(steps) if answer(b) != answer(1.0)), None)
            if turn is None:
                continue
            near, far = turn
            for _ in range(HALVINGS):
                middle = math.sqrt(near * far)
                near, far = (middle, far) if answer(middle) == answer(1.0) else (near, middle)
            best, meets = answer(far)
            found.append(Flip(far, far * uplink.create().mean_bps / 1e6, best, meets))
    except InputError as error:
        return f"what other bandwidths would change is not known: {error}"
    return tuple(found)


def _at_bandwidth(chosen: Experiment, labels: Sequence[str], factor: float, file: Path) -> Experiment:
    """The choices where all links are faster by a factor, on calibration samples; raises InputError."""
    event = {"kind": "bandwidth", "at_s": 0, "for_s": FOREVER_S, "factor": factor}
    events = {"events": [*chosen.scenario.resolved()["events"], event]}
    experiment = _with(chosen, {label: chosen.scenario.policies[label].plain() for label in labels}, file, events)
    file.unlink()
    if problem := next(experiment.misfits(), None):
        raise InputError(problem[1])
    return experiment.on_part("calibration")


def _answer(experiment: Experiment, labels: Sequence[str], slos: Sequence[Slo]) -> tuple[str, bool]:
    """The best of the choices, and whether the first meets the levels."""
    screened = _screen(experiment, labels, slos, lambda text: None)
    meeting = [label for label in labels if screened[label].short(slos) == 0]
    return max(meeting, key=lambda label: screened[label].good("recommended"), default=""), labels[0] in meeting
