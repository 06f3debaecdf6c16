"""How much of something a scenario holds: the largest value of a key that meets its service levels with confidence.

At every value replications are added until each service level's interval lies on one side of its bound, or the seeds
run out. The looks in between (3, 5, 10, 20, … seeds) share the error probability (Bonferroni), so that looking early
costs no confidence; all levels must hold, which needs no further correction (Berger, Technometrics 24, 1982, 295). An
unstable queue fails whatever its figures say, because they would grow with the run. Values double until one fails,
then the gap is halved; that takes figures to get worse as the key grows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from splitexit import backlog
from splitexit.compare import Run, run_once
from splitexit.errors import UsageError
from splitexit.experiment import Experiment
from splitexit.stats import CONFIDENCE, Interval
from splitexit.summary import Summariser, busiest, over_replications

MEETS, FAILS, UNDECIDED = "meets", "fails", "undecided"

MILLISECONDS = {"ms": 1.0, "s": 1e3}
PORTION = {"%": 0.01, "": 1.0}
MILLIJOULES = {"mJ": 1.0, "J": 1e3}
LEVELS: dict[str, tuple[str, dict[str, float], str]] = {
    **{name: (f"{name}_ms", MILLISECONDS, "<") for name in ("p50", "p95", "p99")},
    "mean": ("response_ms", MILLISECONDS, "<"),
    "miss": ("deadline_miss_rate", PORTION, "<"),
    "shed": ("shed_rate", PORTION, "<"),
    "accuracy": ("accuracy", PORTION, ">"),
    "energy": ("device_energy_mj_mean", MILLIJOULES, "<"),
}
"""Name in a service level -> metric of `summary.METRICS`, its units, and the side that is good."""

EXAMPLES = "p95<100ms, miss<1%, accuracy>=0.8 or energy<5mJ"


@dataclass(frozen=True)
class Slo:
    """A service level: a metric that must stay below (or above) a bound, in the metric's unit."""

    text: str
    metric: str
    below: bool
    bound: float

    @classmethod
    def parse(cls, text: str) -> Slo:
        """Reads name, relation, number and unit, e.g. p95<100ms; raises UsageError."""
        found = re.fullmatch(r"\s*([a-z0-9]+)\s*([<>]=?)\s*([0-9.]+(?:e-?[0-9]+)?)\s*([a-zA-Z%]*)\s*", text)
        name, relation, number, unit = found.groups() if found else ("", "", "", "")
        if name not in LEVELS:
            raise UsageError(f"--slo {text!r}: expected one of {', '.join(LEVELS)} with a bound, e.g. {EXAMPLES}")
        metric, units, side = LEVELS[name]
        if unit not in units:
            expected = " or ".join(unit or "a plain number" for unit in units)
            raise UsageError(f"--slo {text!r}: expected a bound in {expected}, e.g. {EXAMPLES}")
        if relation[0] != side:
            raise UsageError(f"--slo {text!r}: more is {'worse' if side == '<' else 'better'} there; expected {side}")
        try:
            return cls("".join(text.split()), metric, side == "<", float(number) * units[unit])
        except ValueError:
            raise UsageError(f"--slo {text!r}: {number!r} is not a number; expected e.g. {EXAMPLES}") from None

    @property
    def name(self) -> str:
        """Its name in a service level."""
        return re.split("[<>]", self.text)[0]

    def show(self, value: float) -> str:
        """A value of its metric as people write it."""
        units = LEVELS[self.name][1]
        if units is PORTION:
            return f"{value:.2%}"
        return f"{value:.1f} ms" if units is MILLISECONDS else f"{value:.3g} mJ"

    def state(self, interval: Interval) -> str:
        """MEETS or FAILS where the interval lies on one side of the bound."""
        good, bad = (interval.high, interval.low) if self.below else (interval.low, interval.high)
        if good < self.bound if self.below else good > self.bound:
            return MEETS
        return FAILS if (bad > self.bound if self.below else bad < self.bound) else UNDECIDED

    def slack(self, interval: Interval) -> float:
        """How far the estimate is on the good side, relative to the bound."""
        gap = self.bound - interval.mean if self.below else interval.mean - self.bound
        return gap / abs(self.bound) if self.bound else gap


@dataclass(frozen=True)
class Point:
    """What was found at one value of the key.

    intervals     of every service level's metric, in their order, at the confidence of one look
    states        MEETS, FAILS or UNDECIDED of every level
    """

    policy: str
    value: int
    seeds: int
    intervals: tuple[Interval, ...]
    states: tuple[str, ...]
    verdict: str
    bottleneck: str
    utilisation: float

    @property
    def busiest(self) -> str:
        """The bottleneck with its load."""
        return busiest(self.bottleneck, self.utilisation)

    @property
    def outcome(self) -> str:
        """MEETS, FAILS or UNDECIDED, all levels together."""
        if self.verdict == backlog.UNSTABLE or FAILS in self.states:
            return FAILS
        return UNDECIDED if UNDECIDED in self.states else MEETS

    def binding(self, slos: Sequence[Slo]) -> str:
        """The service level with the least slack, or the queue that grows."""
        if self.verdict == backlog.UNSTABLE:
            return "unstable queue"
        return min(zip(slos, self.intervals, strict=True), key=lambda pair: pair[0].slack(pair[1]))[0].text


@dataclass(frozen=True)
class Capacity:
    """The points tried for one policy in the order of trying, and the largest value that meets all levels (0: none)."""

    policy: str
    slos: tuple[Slo, ...]
    maximum: int
    points: tuple[Point, ...]

    @property
    def value(self) -> int:
        """The answer; 0 where even 1 does not meet the levels."""
        return max((p.value for p in self.points if p.outcome == MEETS), default=0)

    @property
    def best(self) -> Point | None:
        """The point of the answer."""
        return next((p for p in self.points if p.value == self.value), None)

    @property
    def limit(self) -> Point | None:
        """The point right above the answer, which did not meet the levels; None at the maximum."""
        return next((p for p in self.points if p.value == self.value + 1), None)


def capacity(
    at: Callable[[int], Experiment],
    policy: str,
    slos: Sequence[Slo],
    seeds: Sequence[int],
    maximum: int,
    confidence: float = CONFIDENCE,
    on_run: Callable[[int, Run], None] = lambda value, run: None,
) -> Capacity:
    """Searches the values 1 to `maximum`; `at` makes the experiment of a value.

    Raises:
        InputError: the scenario does not take a value, or a level's metric is not known in it.
    """

    def measure(value: int) -> Point:
        return evaluate(at(value), policy, value, slos, seeds, confidence, lambda run: on_run(value, run))

    return Capacity(policy, tuple(slos), maximum, tuple(_search(measure, maximum)))


def _search(measure: Callable[[int], Point], maximum: int) -> Iterator[Point]:
    """Doubling until a value does not meet the levels, then halving the gap."""
    holds, value = 0, 1
    while True:
        yield (point := measure(value))
        if point.outcome != MEETS:
            break
        holds = value
        if value == maximum:
            return
        value = min(2 * value, maximum)
    while value - holds > 1:
        middle = (holds + value) // 2
        yield (point := measure(middle))
        holds, value = (middle, value) if point.outcome == MEETS else (holds, middle)


def looks(seeds: int) -> list[int]:
    """After how many replications there is a look: 3, 5, then twice as many each time, and at the end."""
    found = [n for n in (3, 5, *(10 * 2**k for k in range(20))) if n < seeds]
    return [*found, seeds]


def evaluate(
    experiment: Experiment,
    policy: str,
    value: int,
    slos: Sequence[Slo],
    seeds: Sequence[int],
    confidence: float,
    on_run: Callable[[Run], None],
) -> Point:
    """One value: as many replications as it takes to tell on which side it lies."""
    runs: list[Run] = []
    times = looks(len(seeds))
    for count in times:
        for seed in seeds[len(runs) : count]:
            runs.append(run_once(experiment, policy, seed))
            on_run(runs[-1])
        point = _point(experiment, policy, value, slos, runs, 1 - (1 - confidence) / len(times))
        if point.outcome != UNDECIDED:
            break
    return point


def _point(
    experiment: Experiment, policy: str, value: int, slos: Sequence[Slo], runs: Sequence[Run], confidence: float
) -> Point:
    summarise = Summariser(experiment)
    found, whole = over_replications([run.summary for run in runs], confidence), summarise([r.table for r in runs])
    for slo in slos:
        if slo.metric not in found:
            raise UsageError(f"--slo {slo.text}: not known here: {'; '.join(summarise.energy_gaps) or 'no figures'}")
    intervals = tuple(found[slo.metric] for slo in slos)
    states = tuple(slo.state(interval) for slo, interval in zip(slos, intervals, strict=True))
    name = whole["bottleneck"]
    return Point(policy, value, len(runs), intervals, states, whole["verdict"], name, whole["utilisation"][name])


def row(point: Point, key: str, slos: Sequence[Slo]) -> dict[str, Any]:
    """A point as one line of a tidy table."""
    line: dict[str, Any] = {"policy": point.policy, key: point.value, "outcome": point.outcome, "seeds": point.seeds}
    for slo, interval, state in zip(slos, point.intervals, point.states, strict=True):
        line |= {slo.text: state, **{f"{slo.metric}_{end}": v for end, v in interval._asdict().items()}}
    return line | {"verdict": point.verdict, "bottleneck": point.bottleneck, "utilisation": point.utilisation}


def points(found: Sequence[Capacity], key: str) -> pa.Table:
    """All points of all policies as one tidy table."""
    return pa.Table.from_pylist([row(point, key, each.slos) for each in found for point in each.points])
