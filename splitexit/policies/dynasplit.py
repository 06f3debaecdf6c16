"""A set of configurations that is worked out beforehand, and a pick among them for every request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Gt

from splitexit.codecs import canonical
from splitexit.decision import Consumption, ExitCheck, Observation, Plan, Setting
from splitexit.outlook import Outlook
from splitexit.policies import Policy, _arrivals
from splitexit.policies._options import known_energy

Array = np.ndarray[Any, Any]

LEVELS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Thresholds of max_prob that are tried beside reading no exit at all: SPINN's grid, and two more [inferred]."""


class Dynasplit(Policy):
    """DynaSplit (2024): offline the configurations worth having, online the least energy that is fast enough.

    Offline: every split with every codec, and staying local, each with no exit and with all exits on the device at one
    threshold; of those within `lose` of the most accurate, all that are not worse than another in everything, whatever
    the link: seconds on the device and on the edge, share sent, bytes sent. The paper searches its space with a
    genetic algorithm; this one is small enough to be searched whole.

    Online: among the configurations whose expected response time meets the limit under the present link and edge load,
    the one that takes the device the least energy (as in `neurosurgeon`); where none does, the fastest [inferred].

    The paper's hardware settings (CPU frequency, accelerators) are not among the configurations: a scenario's device
    runs as it was measured.

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
        self._energy: Consumption | None = None
        self._outlook: Outlook | None = None
        self._sent: tuple[Array, Array, Array] = (np.zeros(0),) * 3

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Works the set out on the calibration split; raises InputError where the device's energy is not known."""
        self._energy = known_energy(setting)
        self._limit_s = setting.deadline_s if self.qos_ms is None else self.qos_ms / 1e3
        every = Outlook.of(self._plans(setting), setting)
        accurate = np.flatnonzero(every.accuracy >= every.accuracy.max() - self.lose)
        kept = accurate[not_worse(_costs(every)[accurate])]
        self._outlook = found = Outlook.of([every.plans[row] for row in kept], setting)
        share = np.maximum(found.sent, 1.0 / len(setting.calibration))
        self._sent = found.sent, found.size_bytes / share, found.edge_s / share

    def decide(self, observation: Observation) -> Plan:
        """The pick for the present link, edge load and rate of requests."""
        assert self._outlook is not None, "prepare() comes first"
        assert self._energy is not None
        _arrivals.count(self._arrivals, observation)
        link, load, (sent, size_bytes, edge_s) = observation.link, observation.edge_load, self._sent
        wait_s = 0.0 if load is None else load.wait_s
        latency_s = self._outlook.latency_s(link, wait_s)
        in_time = latency_s <= self._limit_s
        if not in_time.any():
            return self._outlook.plans[int(np.argmin(latency_s))]
        airtime_s, reply_s = 8.0 * size_bytes / link.rate_bps, link.rtt_s + wait_s + edge_s
        gap_s = _arrivals.gap_s(self._arrivals)
        joules = self._energy.request_j(self._outlook.device_s, sent, size_bytes, airtime_s, reply_s, gap_s)
        return self._outlook.plans[int(np.argmin(np.where(in_time, joules, np.inf)))]

    def _plans(self, setting: Setting) -> list[Plan]:
        spec, chosen = setting.spec, None if self.codecs is None else {canonical(codec) for codec in self.codecs}
        pairs: list[tuple[int | None, str | None]] = [(None, None)]
        pairs += [(s, c) for s, codecs in setting.codecs.items() for c in codecs if chosen is None or c in chosen]
        plans = []
        for split, codec in pairs:
            last = spec.num_stages if split is None else split
            early = [e for e in range(spec.final_exit) if spec.exit_stages[e] <= last]
            plans.append(Plan(split=split, codec=codec))
            plans += [
                Plan(exits=tuple(ExitCheck(e, "max_prob", level) for e in early), split=split, codec=codec)
                for level in (LEVELS if self.thresholds is None else self.thresholds)
                if early
            ]
        return plans


def _costs(outlook: Outlook) -> Array:
    """(configurations, 4): what only ever adds to time and energy."""
    return np.column_stack([outlook.device_s, outlook.edge_s, outlook.sent, outlook.size_bytes])


def not_worse(costs: Array) -> Array:
    """Which rows of costs (n, k) no other beats: (n,) bool; of equal rows the first."""
    no_more = (costs[None] <= costs[:, None]).all(axis=2)  # [i, j]: j costs no more than i in anything
    beats = no_more & ~no_more.T
    first = no_more & no_more.T & (np.arange(len(costs))[None] < np.arange(len(costs))[:, None])
    return np.asarray(~(beats | first).any(axis=1))
