"""A set of configurations that is worked out beforehand, and a pick among them for every request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from annotated_types import Ge, Gt

from splitexit.decision import Consumption, ExitCheck, Observation, Plan, Setting
from splitexit.outlook import Outlook, undominated
from splitexit.policies import Policy, _arrivals, _options

Array = np.ndarray[Any, Any]

LEVELS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Thresholds of max_prob that are tried beside reading no exit at all: SPINN's grid, and two more [inferred]."""


class _Configuration(NamedTuple):
    """A plan and what a request takes with it on average.

    fixed_s, sent, size_bytes   seconds on device and edge, share sent, bytes sent
    asked                       for splitexit.decision.Consumption
    """

    plan: Plan
    fixed_s: float
    sent: float
    size_bytes: float
    asked: tuple[float, float, float, float]


class Dynasplit(Policy):
    """DynaSplit (2024): offline the configurations worth having, online the least energy that is fast enough.

    Offline: every split with every codec, and staying local, each with no exit and with all exits on the device at one
    threshold, and all of it in every mode of the device; of those within `lose` of the most accurate, all that are not
    worse than another in everything, whatever the link: seconds and energy of the device's computing, seconds on the
    edge, share sent, bytes sent. The paper searches its space with a genetic algorithm; this one is small enough to be
    searched whole.

    Online: among the configurations whose expected response time meets the limit under the present link and edge load,
    the one that takes the device the least energy (as in `neurosurgeon`); where none does, the fastest [inferred].

    Modes are the paper's hardware settings (CPU frequency, accelerators): those of `devices.modes`, beside the device
    as its `hardware` was measured, which is taken of equals. They are set for every request, at no cost [inferred].

    Args:
        qos_ms: the limit for the expected response time; by default the scenario's deadline.
        thresholds: of the exits on the device, by max_prob; by default 0.4 to 0.99; [] reads no exit.
        lose: share of right answers that a configuration may have less than the most accurate one.
        codecs: only these are considered; by default all that were recorded.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"link", "edge_load"}) | _arrivals.READS
    memory: ClassVar[tuple[str, ...]] = ("_arrivals",)

    def __init__(
        self,
        *,
        qos_ms: Annotated[float, Gt(0)] | None = None,
        thresholds: Sequence[float] | None = None,
        lose: Annotated[float, Ge(0)] = 0.01,
        codecs: list[str] | None = None,
    ) -> None:
        self.qos_ms, self.thresholds, self.lose, self.codecs = qos_ms, thresholds, lose, codecs
        self._arrivals = _arrivals.fresh()
        self._limit_s = 0.0
        self._kept: list[_Configuration] = []
        self._by_mode: list[tuple[Consumption, list[int]]] = []  # numbers in `_kept`

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Works the set out on the calibration split; raises InputError where the device's energy is not known."""
        energy = {mode: _options.known_energy(setting.in_mode(mode)) for mode in (None, *setting.modes)}
        self._limit_s = setting.deadline_s if self.qos_ms is None else self.qos_ms / 1e3
        every = Outlook.of([plan for mode in energy for plan in self._plans(setting, mode)], setting)
        accurate = np.flatnonzero(every.accuracy >= every.accuracy.max() - self.lose)
        costs = np.column_stack([_costs(every), _computing_j(every, energy)])
        kept = accurate[np.sort(undominated(costs[accurate]))]
        self._kept = [_configuration(every.plans[row], *costs[row, :-1].tolist()) for row in kept]
        numbered = list(enumerate(self._kept))
        self._by_mode = [(of, [k for k, one in numbered if one.plan.mode == mode]) for mode, of in energy.items()]

    def decide(self, observation: Observation) -> Plan:
        """The pick for the present link, edge load and rate of requests."""
        assert self._kept, "prepare() comes first"
        _arrivals.count(self._arrivals, observation)
        link, load = observation.link, observation.edge_load
        reply_s = link.rtt_s + (0.0 if load is None else load.wait_s)
        per_byte_s, kept = 8.0 / link.rate_bps, self._kept
        latencies_s = [fixed_s + sent * reply_s + size * per_byte_s for _, fixed_s, sent, size, _ in kept]
        limit_s, gap_s = max(self._limit_s, min(latencies_s)), _arrivals.gap_s(self._arrivals)
        least_j, least = inf, 0
        for of, numbers in self._by_mode:
            in_time = [k for k in numbers if latencies_s[k] <= limit_s]
            joules = of.requests_j([kept[k].asked for k in in_time], link.rate_bps, reply_s, gap_s)
            for k, joule in zip(in_time, joules, strict=True):
                if joule < least_j:
                    least_j, least = joule, k
        return kept[least].plan

    def _plans(self, setting: Setting, mode: str | None) -> list[Plan]:
        spec, plans = setting.spec, list[Plan]()
        for split, codec in [(None, None), *_options.pairs(setting.in_mode(mode), self.codecs)]:
            early = spec.early_exits(spec.num_stages if split is None else split)
            plans.append(Plan(split=split, codec=codec, mode=mode))
            plans += [
                Plan(exits=tuple(ExitCheck(e, "max_prob", level) for e in early), split=split, codec=codec, mode=mode)
                for level in (LEVELS if self.thresholds is None else self.thresholds)
                if early
            ]
        return plans


def _configuration(plan: Plan, device_s: float, edge_s: float, sent: float, size_bytes: float) -> _Configuration:
    of_sent = (size_bytes / sent, edge_s / sent) if sent else (0.0, 0.0)
    return _Configuration(plan, device_s + edge_s, sent, size_bytes, (device_s, sent, *of_sent))


def _costs(outlook: Outlook) -> Array:
    """(configurations, 4): what only ever adds to time and, in one mode, to energy."""
    return np.column_stack([outlook.device_s, outlook.edge_s, outlook.sent, outlook.size_bytes])


def _computing_j(outlook: Outlook, energy: Mapping[str | None, Consumption]) -> list[float]:
    """Joules of the device's computing with every plan."""
    found = list[float]()
    for plan, device_s in zip(outlook.plans, outlook.device_s.tolist(), strict=True):
        found += energy[plan.mode].requests_j([(device_s, 0.0, 0.0, 0.0)], 1.0, 0.0, 0.0)
    return found
