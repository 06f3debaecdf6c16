"""What plans may be expected to do, from the calibration split: how often they are right, and what they cost.

Every sample of the split is led through a plan by what the exits said of it, as splitexit.inference would lead it. What
a request costs on average is then a few numbers for each plan, and its expected response time is linear in what a
device estimates while it runs, so that asking again for another link is a product with a small table:

    T = device + edge + sent · (rtt + wait) + bytes · 8 / rate          (policies.md §0, with exits)

Requests that wait for one another and patience that ends (deadline, timeout) are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from splitexit.bundle import ModelSpec
from splitexit.calibration import Calibration
from splitexit.confidence import NARROWING, NO_LOGITS, RULES
from splitexit.decision import ExitCheck, LinkEstimate, Plan, Setting
from splitexit.errors import ArtifactError, InputError, UnknownNameError
from splitexit.recording import ExitReadings
from splitexit.steps import prior_bytes

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Stop:
    """Where a request may end under a plan.

    exit              which exit answers here
    said              what it said of every sample
    check             when it answers; None: whatever comes so far ends here
    sent              whether this is on the edge
    device_s, edge_s  mean seconds that either side needs up to here, encoding and decoding included
    """

    exit: int
    said: ExitReadings
    check: ExitCheck | None
    sent: bool
    device_s: float
    edge_s: float


@dataclass(frozen=True)
class Outlook:
    """What `plans` do on average, one element of every array for each of them.

    accuracy   share of right answers
    sent       share of the requests that the edge is asked about
    size_bytes what a request sends, with framing; those that send nothing count as 0
    device_s   what a request takes of the device; edge_s  of the edge
    shares     (plans, exits): answers of each exit, on either side
    spare_s    for so long before the deadline nobody waits for the edge any more, because a device that has read no
               exit must then answer alone (see Setting.fallback_s); 0 where it has, or sends nothing
    """

    plans: tuple[Plan, ...]
    accuracy: Array
    sent: Array
    size_bytes: Array
    device_s: Array
    edge_s: Array
    shares: Array
    spare_s: Array

    @classmethod
    def of(cls, plans: Sequence[Plan], setting: Setting) -> Outlook:
        """Leads the calibration split through every plan.

        Raises:
            PolicyError: a plan is impossible for this model.
            ArtifactError: the recording lacks a pair, or what an exit on the edge said behind it; or nobody timed it.
            InputError: a rule needs what was not recorded, or excludes classes.
        """
        known = setting.known.setdefault(cls, {})
        for plan in plans:
            if plan not in known:
                known[plan] = _row(plan, setting)
        columns = zip(*(known[plan] for plan in plans), strict=True)
        return cls(tuple(plans), *map(np.array, columns))

    def __len__(self) -> int:
        return len(self.plans)

    @cached_property
    def _terms(self) -> Array:
        return np.column_stack([self.device_s, self.edge_s, self.sent, 8.0 * self.size_bytes])

    def latency_s(self, link: LinkEstimate, wait_s: float = 0.0, *, device: float = 1.0, edge: float = 1.0) -> Array:
        """Expected response time of every plan, (plans,): T above.

        Args:
            link: the uplink's rate, and the time of an empty round trip with what a call costs.
            wait_s: how long a request waits at the edge.
            device, edge: how much slower either side is than calibrated.
        """
        found: Array = self._terms @ (device, edge, link.rtt_s + wait_s, 1.0 / link.rate_bps)
        return found


def undominated(costs: Array) -> Array:
    """Numbers of the rows of costs (n, k) that no other equals or betters in everything; of equal ones the first.

    They come in the order of the first cost, then the second, and so on.
    """
    kept: list[int] = []
    for row in np.lexsort(costs.T[::-1]):
        if not (costs[kept] <= costs[row]).all(axis=1).any():
            kept.append(int(row))
    return np.array(kept, np.int64)


def _row(plan: Plan, setting: Setting) -> tuple[Any, ...]:
    """An element of every array of an Outlook."""
    setting = setting.in_mode(plan.mode)
    stops, at = follow(plan, setting)
    part, shares = setting.calibration, np.bincount(at, minlength=len(stops)) / len(at)
    predictions = np.array([stop.said.prediction for stop in stops])[at, np.arange(len(at))]
    sent = np.array([stop.sent for stop in stops])
    size_bytes = 0.0
    if plan.split is not None and plan.codec is not None:
        framing = setting.edge.rpc.uplink_overhead_bytes + _prior_bytes(plan, setting.spec)
        size_bytes = float((part.pair(plan.split, plan.codec).payload_bytes + framing) @ sent[at]) / len(at)
    return (
        float((predictions == part.label).mean()),
        float(shares @ sent),
        size_bytes,
        float(shares @ [stop.device_s for stop in stops]),
        float(shares @ [stop.edge_s for stop in stops]),
        np.bincount([stop.exit for stop in stops], weights=shares, minlength=len(part.exits)),
        0.0 if plan.split is None or plan.exits else setting.fallback_s[plan.split],
    )


def follow(plan: Plan, setting: Setting) -> tuple[list[Stop], Array]:
    """Leads every sample of the calibration split through one plan; raises as `Outlook.of`.

    Returns:
        Where requests may end, and the number of the one where each sample ends, (n,).
    """
    plan.check(setting.spec)
    stops = [*_on_device(plan, setting)]
    count = len(setting.calibration)
    at, inside = np.zeros(count, np.int64), np.ones(count, bool)
    before: list[Array] = []
    for number, stop in enumerate(stops):
        if number and stop.sent != stops[number - 1].sent:
            before = []  # either side knows its own readings only
        before.append(stop.said.prediction)
        here = inside if stop.check is None else inside & fired(stop.check, stop.said, before)
        at[here] = number
        inside = inside & ~here
    return stops, at


def _on_device(plan: Plan, setting: Setting) -> Iterator[Stop]:
    part, times, split, codec = setting.calibration, setting.device, plan.split, plan.codec
    until = setting.spec.num_stages if split is None else split
    seconds, stage = 0.0, 0
    for exit_, check in _ends(plan.exits, setting.spec if split is None else None):
        seconds += _run_s(times, stage, setting.exit_stages[exit_]) + times.exits[exit_].mean
        stage = setting.exit_stages[exit_]
        yield Stop(exit_, part.exits[exit_], check, False, seconds, 0.0)
    if split is not None and codec is not None:
        part.pair(split, codec)  # says what is missing
        if (split, codec) not in times.encode or (split, codec) not in setting.edge.decode:
            raise ArtifactError(f"codec {codec!r} at split {split} is not calibrated; run `splitexit calibrate`")
        encoded_s = seconds + _run_s(times, stage, until) + times.encode[split, codec].mean
        yield from _on_edge(plan, split, codec, encoded_s, setting)


def _on_edge(plan: Plan, split: int, codec: str, device_s: float, setting: Setting) -> Iterator[Stop]:
    part, times = setting.calibration, setting.edge
    seconds, stage = times.decode[split, codec].mean, split
    for exit_, check in _ends(plan.edge_exits, setting.spec):
        seconds += _run_s(times, stage, setting.exit_stages[exit_]) + times.exits[exit_].mean
        stage = setting.exit_stages[exit_]
        yield Stop(exit_, part.edge_exit(split, codec, exit_), check, True, device_s, seconds)


def _ends(checks: Sequence[ExitCheck], spec: ModelSpec | None) -> list[tuple[int, ExitCheck | None]]:
    """Exits with their checks; with the model's, the final exit comes last, where all ends."""
    early = [(check.exit, check) for check in checks if spec is None or check.exit != spec.final_exit]
    return [*early] if spec is None else [*early, (spec.final_exit, None)]


def _run_s(times: Calibration, first: int, last: int) -> float:
    return sum(stage.mean for stage in times.stages[first:last])


def fired(check: ExitCheck, said: ExitReadings, predictions: Sequence[Array]) -> Array:
    """splitexit.confidence.fires for n samples at once, (n,).

    Args:
        said: what this exit said.
        predictions: of the exits read on this side up to this one, (n,) each; only `patience` looks at them.

    Raises UnknownNameError, and InputError for a rule that excludes classes or lacks what it looks at.
    """
    if check.rule not in RULES:
        raise UnknownNameError("exit rule", check.rule, RULES)
    if check.rule in NARROWING:
        raise InputError(f"rule {check.rule}: what it will do is not worked out beforehand; simulate it")
    if check.rule == "patience":
        return _patient(predictions, check.threshold)
    sure = _measure(check.rule, said).astype(np.float64)  # as a Reading has it
    found: Array = sure <= check.threshold if check.rule == "entropy" else sure >= check.threshold
    return found


def _measure(rule: str, said: ExitReadings) -> Array:
    if rule == "max_logit":
        if said.logits is None:
            raise InputError(f"rule max_logit: {NO_LOGITS}")
        return np.asarray(said.logits.max(axis=1))
    found: Array | None = getattr(said, rule)
    return np.full(len(said.prediction), np.nan) if found is None else found


def _patient(predictions: Sequence[Array], threshold: float) -> Array:
    last, needed = predictions[-1], 1 + int(max(threshold, 0.0))
    if len(predictions) <= threshold:
        return np.zeros(len(last), bool)
    return np.asarray(np.logical_and.reduce([earlier == last for earlier in predictions[-needed:]]))


def _prior_bytes(plan: Plan, spec: ModelSpec) -> int:
    """What travels with the features where an exit on the edge adds to what the device has read."""
    adds = bool(plan.edge_exits) and bool(plan.exits) and spec.exits[plan.edge_exits[0].exit].additive
    return prior_bytes(0, spec.num_classes) if adds else 0
