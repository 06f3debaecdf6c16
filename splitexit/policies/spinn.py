"""Split and exit threshold by an agreement on service levels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import exp, expm1, log
from typing import TYPE_CHECKING, Annotated, ClassVar, get_args

import numpy as np
from annotated_types import Gt

from splitexit.decision import ExitCheck, LinkEstimate, Outcome, Plan, Setting
from splitexit.errors import InputError
from splitexit.outlook import Outlook
from splitexit.policies import _options
from splitexit.policies._adaptive import Adaptive, uplink_bps
from splitexit.policies._sla import Limit, Metric, choose
from splitexit.results import DEVICE

if TYPE_CHECKING:
    from splitexit.changes import Array

RATE, WAIT, EDGE_FACTOR, DEVICE_FACTOR = range(4)
"""What is measured: the uplink's rate, 1 + wait / edge time, and how much slower edge and device are."""

SEVERAL = 10
"""So many times of computing or waiting are averaged before a change is looked for [inferred]."""

MOVED = log(1.05)
"""SPINN plans anew when an estimate has moved by more than 5 % [inferred]; here it must have changed as well."""


class Spinn(Adaptive):
    """SPINN's scheduler (Laskaridis, Venieris, Almeida, Leontiadis and Lane, MobiCom 2020).

    A configuration is a split with its codec, or all on the device, and one threshold on max_prob for all exits before
    the split. Accuracy, exit rates, times and bytes of every configuration come from the calibration split; the
    calibrated times are scaled by measured / expected, for either side. The limits drop configurations, and where none
    is left, the last limit is given up, then the one before it. Among the rest the first objective decides, those
    within 1 % of its best by the second, and so on [inferred].

    It plans anew when change-point detection finds that the link's rate, the wait at the edge, or the speed of either
    side (averages of ten requests) has changed, and by more than 5 %. Of the requests that stay on the device by plan
    every 50th is sent, to see whether that pays again. Where the edge does not reply in time, the most confident exit
    that the device has read answers; if it has read none, it computes on to the next one.

    Metrics are expected values for one request: `latency_ms`, `device_ms` and `server_ms` (computing on either side),
    `bytes` (sent, with framing), `throughput_rps` (one over the longest of device, link and server time [inferred]),
    `accuracy`, and `loss`, the accuracy lost against the whole network on the device.

    Args:
        limits: hard limits, the most important first, as in `[accuracy >= 0.9, latency_ms <= 80]`; by default SPINN's
            tolerance of one point of accuracy [inferred].
        objectives: what is wanted beyond them, the most important first.
        thresholds: of the exits; the grid [inferred].
        exits: which exits to read on the device; default: all but the final one that lie before the split. Without any
            (`[]`) and with latency alone it is Neurosurgeon.
        codecs: only these are considered; by default all that were recorded.
        edge_exits: whether the edge may leave early too, by the same threshold; needs its exits in the recording.
        timeout_ms: give up waiting for the edge after so long, if that is before the deadline's own limit.
    """

    several: ClassVar[tuple[int, ...]] = (1, SEVERAL, SEVERAL, SEVERAL)

    def __init__(
        self,
        *,
        limits: Sequence[str] = ("loss <= 0.01",),
        objectives: Sequence[Metric] = ("latency_ms",),
        thresholds: Sequence[float] = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        exits: Sequence[int] | None = None,
        codecs: list[str] | None = None,
        edge_exits: bool = False,
        timeout_ms: Annotated[float, Gt(0)] | None = None,
    ) -> None:
        super().__init__()
        self.limits, self.objectives, self.thresholds, self.exits = limits, objectives, thresholds, exits
        self.codecs, self.edge_exits, self.timeout_ms = codecs, edge_exits, timeout_ms
        metrics = get_args(Metric)
        self._limits = [Limit.read(text, metrics) for text in limits]
        if not objectives or not thresholds:
            raise InputError(f"objectives and thresholds: expected at least one; objectives are {', '.join(metrics)}")

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Tabulates every configuration; raises InputError where exits, thresholds or the recording do not fit."""
        self._setting = setting
        self._outlook = Outlook.of(list(dict.fromkeys(self._configurations(setting))), setting)
        part, final = setting.calibration, setting.spec.final_exit
        self._whole = float((part.exits[final].prediction == part.label).mean())
        self._edge_s = setting.edge_s(0)
        self._begin(np.array([log(setting.link.rate_bps), 0.0, 0.0, 0.0]))

    def _configurations(self, setting: Setting) -> Iterator[Plan]:
        pairs = _options.pairs(setting, self.codecs)
        timeout_s = None if self.timeout_ms is None else self.timeout_ms / 1000.0
        early = [e for e in range(setting.spec.final_exit) if self.exits is None or e in self.exits]
        if self.exits is not None and len(early) < len(set(self.exits)):
            raise InputError(f"exits {list(self.exits)}: the model has early exits 0..{setting.spec.final_exit - 1}")
        for threshold in self.thresholds:
            checks = [ExitCheck(e, "max_prob", threshold) for e in range(setting.spec.final_exit)]
            yield Plan(exits=tuple(checks[e] for e in early))
            for split, codec in pairs:
                here = tuple(checks[e] for e in early if setting.exit_stages[e] <= split)
                behind = tuple(check for check in checks if self.edge_exits and setting.exit_stages[check.exit] > split)
                yield Plan(here, split, codec, behind, timeout_s)

    def figures(self, levels: Array) -> dict[str, Array]:
        """Metric -> its value for every configuration, where these are the levels."""
        outlook, link, wait_s, edge, device = self._outlook, *self._believed(levels)
        busy_s = (device * outlook.device_s, 8.0 * outlook.size_bytes / link.rate_bps, edge * outlook.edge_s)
        return {
            "latency_ms": 1e3 * outlook.latency_s(link, wait_s, device=device, edge=edge),
            "throughput_rps": 1.0 / np.maximum.reduce([*busy_s, np.full(len(outlook), 1e-12)]),
            "server_ms": 1e3 * busy_s[2],
            "device_ms": 1e3 * busy_s[0],
            "bytes": outlook.size_bytes,
            "accuracy": outlook.accuracy,
            "loss": self._whole - outlook.accuracy,
        }

    def _believed(self, levels: Array) -> tuple[LinkEstimate, float, float, float]:
        """Link, wait at the edge, and the factors of edge and device."""
        link = LinkEstimate(exp(levels[RATE]), self._setting.link.rtt_s)
        return link, max(0.0, expm1(levels[WAIT]) * self._edge_s), exp(levels[EDGE_FACTOR]), exp(levels[DEVICE_FACTOR])

    def _choose(self, levels: Array) -> tuple[Plan, Plan]:
        figures, outlook = self.figures(levels), self._outlook
        chosen = outlook.plans[choose(figures, self._limits, self.objectives)]
        fastest = outlook.plans[int(np.where(outlook.sent > 0.0, figures["latency_ms"], np.inf).argmin())]
        return chosen, replace(fastest, exits=(), edge_exits=())  # so that it is sent whatever an exit says

    def _differ(self, levels: Array, others: Array) -> bool:
        return bool(np.abs(levels - others).max() > MOVED)

    def _measured(self, outcome: Outcome) -> Iterator[tuple[int, float]]:
        yield from ((RATE, rate_bps) for rate_bps in uplink_bps(outcome, self._setting, exp(self._levels[RATE])))
        expected_s = device_s(outcome, self._setting)
        if outcome.device_s > 0.0 and expected_s > 0.0:
            yield DEVICE_FACTOR, outcome.device_s / expected_s
        if outcome.edge_reading is not None and self._edge_s > 0.0:
            yield WAIT, 1.0 + max(0.0, outcome.edge_wait_s) / self._edge_s
            expected_s = edge_s(outcome.plan, outcome.edge_reading.exit, self._setting)
            if outcome.edge_compute_s > 0.0 and expected_s > 0.0:
                yield EDGE_FACTOR, outcome.edge_compute_s / expected_s


def device_s(outcome: Outcome, setting: Setting) -> float:
    """Mean seconds that the device needs for what it did for this request."""
    times, plan = setting.device, outcome.plan
    sent = outcome.answered_by != DEVICE and plan.split is not None and plan.codec is not None
    read = [said.exit for said in outcome.readings]
    stage = max([setting.exit_stages[e] for e in read] + ([plan.split or 0] if sent else []), default=0)
    encode_s = times.encode[plan.split or 0, plan.codec or ""].mean if sent else 0.0
    return setting.device_s(stage) + sum(times.exits[e].mean for e in read) + encode_s


def edge_s(plan: Plan, answered: int, setting: Setting) -> float:
    """Mean seconds that the edge needs for a request whose answer exit `answered` gave there."""
    times, split = setting.edge, plan.split or 0
    read = {check.exit for check in plan.edge_exits if check.exit <= answered} | {answered}
    run_s = sum(stage.mean for stage in times.stages[split : setting.exit_stages[answered]])
    return times.decode[split, plan.codec or ""].mean + run_s + sum(times.exits[e].mean for e in read)
