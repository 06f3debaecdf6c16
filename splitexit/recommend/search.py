"""The fixed plans of a setting: all that the device can hold, and the few that are worth simulating."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations
from typing import Any, NamedTuple

import numpy as np

from splitexit.decision import ExitCheck, Plan, Setting
from splitexit.footprint import Footprint
from splitexit.outlook import Outlook, undominated

Policies = dict[str, dict[str, Any]]

THRESHOLDS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.995)
"""Of the highest probability: SPINN's grid (MobiCom 2020) from 0.4, finer where exits differ in accuracy."""

MOST_PLANS = 20_000
"""Above, not every subset of exits is looked at."""

REFINED = 3
"""Places (split, codec) with the highest utility, whose exits get thresholds of their own."""


class Memory(NamedTuple):
    """What a device can hold, and what plans take of it."""

    limit_bytes: int
    footprint: Footprint


class Search:
    """The fixed plans of a setting.

    searched, too_large   counts, known after `front`
    """

    def __init__(self, setting: Setting, memory: Memory | None = None) -> None:
        self.setting, self.memory = setting, memory
        self.searched = self.too_large = 0
        self._additive = any(exit_.additive for exit_ in setting.spec.exits)

    def holds(self, plan: Plan) -> bool:
        """Whether the device can."""
        return self.memory is None or self.memory.footprint.device_bytes(plan) <= self.memory.limit_bytes

    def front(self, most: int) -> Policies:
        """At most so many plans that no other beats in expected latency, accuracy and bytes, as policies."""
        plans = list(self._plans())
        self.searched = len(plans)
        plans = [plan for plan in plans if self.holds(plan)]
        self.too_large = self.searched - len(plans)
        if not plans:
            return {}
        outlook = Outlook.of(plans, self.setting)
        costs = np.column_stack([outlook.latency_s(self.setting.link), -outlook.accuracy, outlook.size_bytes])
        worth = self._worth(outlook)
        kept = [plans[row] for row in _thinned(costs, worth, undominated(costs), most)]
        places = dict.fromkeys((p.split, p.codec) for p in (plans[row] for row in np.argsort(-worth)))
        kept += [self._refined(split, codec) for split, codec in list(places)[:REFINED]]
        policies = [_policy_of(plan) for plan in dict.fromkeys(kept) if self.holds(plan)]
        return {f"plan-{n}": policy for n, policy in enumerate(policies)}

    def _refined(self, split: int | None, codec: str | None) -> Plan:
        """A threshold of its own for every exit, by differential evolution (Storn and Price, 1997) of the utility."""
        early = self._early(split)

        def plan(thresholds: Sequence[float]) -> Plan:
            given = zip(early, map(float, thresholds), strict=True)
            checks = (ExitCheck(exit_, "max_prob", round(at, 3)) for exit_, at in given if at < 1 or self._additive)
            return Plan(exits=tuple(checks), split=split, codec=codec)

        def loss(thresholds: np.ndarray[Any, Any]) -> float:
            return -float(self._worth(Outlook.of([plan(list(thresholds))], self.setting))[0])

        if not early:
            return plan([])
        from scipy.optimize import differential_evolution

        found = differential_evolution(
            loss, [(0.3, 1.1)] * len(early), maxiter=20, popsize=6, seed=0, polish=False, tol=1e-6
        )
        return plan(list(found.x))

    def _worth(self, outlook: Outlook) -> np.ndarray[Any, Any]:
        """Expected utility of every plan, deadlines left out."""
        utility, latency_s = self.setting.utility, outlook.latency_s(self.setting.link)
        return utility.accuracy * outlook.accuracy - utility.latency_per_s * latency_s

    def _early(self, split: int | None) -> tuple[int, ...]:
        """Early exits of the device's part."""
        return self.setting.spec.early_exits(self.setting.spec.num_stages if split is None else split)

    def _plans(self) -> Iterator[Plan]:
        places = [(None, None), *((s, c) for s, codecs in self.setting.codecs.items() for c in codecs)]
        for split, codec in places:
            yield Plan(split=split, codec=codec)
            for exits in self._subsets(split):
                for threshold in THRESHOLDS:
                    checks = tuple(ExitCheck(exit_, "max_prob", threshold) for exit_ in exits)
                    yield Plan(exits=checks, split=split, codec=codec)

    def _subsets(self, split: int | None) -> Iterator[tuple[int, ...]]:
        """Early exits of the device's part to read; where there are too many subsets, at most two of them, and all."""
        early = self._early(split)
        if self._additive:  # one adds to those before it: all of them are read
            yield from (tuple(early[:n]) for n in range(1, len(early) + 1))
            return
        places = 1 + sum(map(len, self.setting.codecs.values()))
        few = places * len(THRESHOLDS) * 2 ** len(early) <= MOST_PLANS
        sizes = range(1, len(early) + 1) if few else {1, 2, len(early)} - {0}
        yield from chain.from_iterable(combinations(early, size) for size in sizes if size <= len(early))


def _thinned(
    costs: np.ndarray[Any, Any], worth: np.ndarray[Any, Any], front: np.ndarray[Any, Any], most: int
) -> list[int]:
    """Of the front the end points, the most worth, and those that spread the rest evenly over the latency's order."""
    ends = [int(front[np.argmin(column)]) for column in costs[front].T]
    best = front[np.argsort(-worth[front])][: most // 2]
    along = front[np.argsort(costs[front, 0])]
    spread = along[np.linspace(0, len(along) - 1, most // 2).round().astype(int)]
    return list(dict.fromkeys([*ends, *map(int, best), *map(int, spread)]))[:most]


def describe(policy: Mapping[str, Any]) -> str:
    """A policy in a few words."""
    name = policy["name"]
    codec, split = policy.get("codec"), policy.get("split")
    place = "" if split is None else f" {codec}@{split}"
    if name not in ("local", "offload", "threshold"):
        given = ", ".join(f"{key} {value}" for key, value in policy.items() if key != "name" and value is not None)
        return f"{name} ({given})" if given else name
    if name != "threshold":
        return f"{name}{place}"
    levels = policy.get("thresholds") or [policy["threshold"]]
    exits = "all exits" if policy.get("exits") is None else f"exits {' '.join(map(str, policy['exits']))}"
    return f"{exits} at {' '.join(f'{level:g}' for level in levels)}, then{place or ' local'}"


def _policy_of(plan: Plan) -> dict[str, Any]:
    place = {} if plan.split is None else {"split": plan.split, "codec": plan.codec}
    if not plan.exits:
        return {"name": "local"} if plan.split is None else {"name": "offload", **place}
    exits, levels = [check.exit for check in plan.exits], [check.threshold for check in plan.exits]
    given = {"threshold": levels[0]} if len(set(levels)) == 1 else {"thresholds": levels}
    return {"name": "threshold", "exits": exits, **given, **place}
