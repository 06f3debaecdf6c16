"""Bandits over splits on a recording, in the papers' units: regret, cost and accuracy.

Regret is measured against the best fixed arm in hindsight, by expected reward on the split, and against the most that
could have been earned of every request. Each policy is held to the γ that it learns with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any, Literal, NamedTuple

import numpy as np

from splitexit.bench.bandit_replay import FREE_LINK, Array, Scores, Table, play
from splitexit.bundle import Bundle
from splitexit.calibration import Calibration
from splitexit.decision import Setting, Utility
from splitexit.policies import Policy
from splitexit.policies._bandit import Unit
from splitexit.policies.hi_lcb import HiLcb
from splitexit.policies.i_splitee import ISplitEE
from splitexit.policies.splitee import SplitEE
from splitexit.policies.splitee_s import SplitEES, SplitEESOracle
from splitexit.recording import Part, Recording
from splitexit.stats import Interval, student

SWEEP = tuple(round(0.10 + 0.05 * number, 2) for number in range(11))
"""Costs of sending that the papers try."""

POINTS = 100
"""At which a regret curve is kept."""

FAMILY: dict[str, type[SplitEE]] = {
    "splitee": SplitEE,
    "splitee_s": SplitEES,
    "splitee_s_oracle": SplitEESOracle,
    "i_splitee": ISplitEE,
}
"""Bandits over splits; the last only where the recording has contexts."""

Progress = Callable[[int, int], None]
Document = dict[str, Any]


@dataclass(frozen=True)
class Terms:
    """What the bandits of a comparison have in common; see SplitEE for each."""

    alpha: float | Literal["fitted"] = 0.7
    codec: str = "uint8"
    cost: Unit = "exits"
    lambda1: float = 0.08
    lambda2: float = 0.02
    offload: float = 0.5
    mu: float = 1.0
    c: float = 1.0


class Contender(NamedTuple):
    """A policy of the comparison: how to make a fresh one, and the arms that it is held to."""

    make: Callable[[], Policy]
    table: Table
    arm_of: Mapping[int, int]


class Bandits:
    """Bandits on one recording.

    Args:
        setting: what they may know beforehand.
        part: whose samples come.
        terms: what they have in common.
        shuffles: orders of the samples, the same for every policy.
        seed: of the orders.
        progress: called with the requests done, and all.
    """

    def __init__(
        self,
        setting: Setting,
        part: Part,
        terms: Terms,
        shuffles: int = 20,
        seed: int = 0,
        progress: Progress = lambda done, total: None,
    ) -> None:
        self.setting, self.part, self.terms, self.shuffles, self.seed = setting, part, terms, shuffles, seed
        self._progress, self._done, self._total = progress, 0, 0

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        terms: Terms,
        shuffles: int = 20,
        seed: int = 0,
        progress: Progress = lambda done, total: None,
    ) -> Bandits:
        """On a bundle's test split; raises ArtifactError where recording or calibration is missing."""
        says, takes = Recording.load(bundle.recording, bundle.spec), Calibration.load(bundle.calibration, bundle.spec)
        setting = Setting(bundle.spec, takes, takes, says.codecs(), says.calibration, FREE_LINK, Utility(), inf)
        return cls(setting, says.test, terms, shuffles, seed, progress)

    def run(self, horizon: int, sweep: Sequence[float] = SWEEP) -> Document:
        """Regret over `horizon` requests, and cost and accuracy of one pass for every cost of sending in `sweep`."""
        names = list(self.contenders(self.terms.offload))
        pass_ = len(self.part)
        self._done, self._total = 0, len(names) * self.shuffles * (horizon + pass_ * len(sweep))
        return {
            "samples": pass_,
            "exits": len(self.part.exits),
            "shuffles": self.shuffles,
            "seed": self.seed,
            "horizon": horizon,
            "terms": asdict(self.terms) | {"alpha": self.threshold},
            "regret": self.regret(horizon),
            "sweep": [self.point(offload) for offload in sweep],
        }

    @property
    def threshold(self) -> float:
        """Alpha as a number, at the comparison's cost of sending."""
        return self._prepared(SplitEE, self.terms.offload).threshold

    def contenders(self, offload: float) -> dict[str, Contender]:
        """By name; HI-LCB at the exit of SplitEE's best fixed arm, where that is an early one."""
        found = {name: self._contender(of, offload) for name, of in FAMILY.items() if self._fits(of)}
        first = found["splitee"]
        best = list(first.arm_of)[first.table.best]
        if best != self.setting.spec.final_exit:
            found["hi_lcb"] = Contender(lambda: self._hi_lcb(best, offload), first.table, first.arm_of)
        return found

    def _fits(self, of: type[SplitEE]) -> bool:
        return of is not ISplitEE or self.part.context is not None

    def _contender(self, of: type[SplitEE], offload: float) -> Contender:
        policy = self._prepared(of, offload)
        table = Table.of(policy, self.part, self.setting.spec.final_exit)
        arm_of = {arm.exit: number for number, arm in enumerate(policy.known_arms)}
        return Contender(lambda: self._prepared(of, offload), table, arm_of)

    def _prepared(self, of: type[SplitEE], offload: float) -> SplitEE:
        policy = of(**asdict(replace(self.terms, offload=offload)))
        policy.prepare(self.setting, np.random.default_rng(self.seed))
        return policy

    def _hi_lcb(self, exit_: int, offload: float) -> HiLcb:
        policy = HiLcb(exit=exit_, codec=self.terms.codec, cost=self.terms.mu * offload)
        policy.prepare(self.setting, np.random.default_rng(self.seed))
        return policy

    def order(self, shuffle: int, count: int) -> Array:
        """Positions of so many requests: all samples in a random order, again and again."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(shuffle,)))
        passes = [rng.permutation(len(self.part)) for _ in range(-(-count // len(self.part)))]
        return np.concatenate(passes)[:count]

    def _played(self, contender: Contender, count: int) -> list[tuple[Array, Scores]]:
        """For every shuffle, the order and what a fresh policy scored."""
        found = []
        for shuffle in range(self.shuffles):
            order = self.order(shuffle, count)
            played = play(contender.make(), self.setting, self.part, order.tolist(), contender.arm_of)
            found.append((order, contender.table.of_played(order, *played)))
            self._done += count
            self._progress(self._done, self._total)
        return found

    def regret(self, horizon: int) -> Document:
        """By policy: both regrets as curves with intervals over the shuffles, and how they grow."""
        at = np.unique(np.linspace(1, horizon, min(POINTS, horizon)).round().astype(int))
        found: Document = {"at": at.tolist(), "policies": {}}
        for name, contender in self.contenders(self.terms.offload).items():
            begun_s = time.process_time()  # of this process alone, whoever else computes
            played = self._played(contender, horizon)
            seconds = time.process_time() - begun_s
            table = contender.table
            fixed = table.fixed.reward.mean(axis=0)[table.best]
            to_fixed = np.array([np.cumsum(fixed - scores.reward) for _, scores in played])
            to_oracle = np.array([np.cumsum(table.ceiling[order] - scores.reward) for order, scores in played])
            found["policies"][name] = {
                "fixed": _curve(to_fixed, at),
                "oracle": _curve(to_oracle, at),
                "growth": _growth(to_fixed, horizon),
                "requests_per_cpu_s": len(played) * horizon / seconds,
            }
        found["baselines"] = self._steady(horizon)
        return found

    def _steady(self, horizon: int) -> Document:
        """Expected regret to the best fixed arm of what does not learn, with SplitEE's γ."""
        table = self.contenders(self.terms.offload)["splitee"].table
        means = table.fixed.reward.mean(axis=0)
        best = means[table.best]
        return {
            "always_final": float(horizon * (best - means[-1])),
            "random_arm": float(horizon * (best - means.mean())),
        }

    def point(self, offload: float) -> Document:
        """Cost and accuracy over one pass at this cost of sending; shares of always-final's cost, with intervals."""
        contenders, policies = self.contenders(offload), {}
        table, exits = contenders["splitee"].table, list(contenders["splitee"].arm_of)
        arms = [{"exit": exit_, **_of_arm(table, number)} for number, exit_ in enumerate(exits)]
        for name, contender in contenders.items():
            played = self._played(contender, len(self.part))
            policies[name] = _means([scores for _, scores in played], arms[-1])
        return {
            "offload": offload,
            "best": exits[table.best],
            "arms": arms,
            "always_final": arms[-1],
            "policies": policies,
        }


def _of_arm(table: Table, arm: int) -> Document:
    """A fixed arm's means over the split."""
    reward, cost, right = (float(values[:, arm].mean()) for values in table.fixed)
    return {"reward": reward, "cost": cost, "accuracy": right, "sent": float(table.sent[:, arm].mean())}


def _means(played: Sequence[Scores], final: Document) -> Document:
    """A policy's means with intervals over the shuffles, beside those of always-final, which reads no other head."""
    rewards, costs, rights = ([float(values.mean()) for values in of] for of in zip(*played, strict=True))
    return {
        "reward": _interval(student(rewards)),
        "cost": _interval(student(costs)),
        "accuracy": _interval(student(rights)),
        "saved": _interval(student([1.0 - cost / final["cost"] for cost in costs])),
        "lost_points": _interval(student([100.0 * (final["accuracy"] - right) for right in rights])),
    }


def _interval(found: Interval) -> Document:
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _curve(regrets: Array, at: Array) -> Document:
    """(shuffles, horizon) cumulative regret -> mean, low and high at these numbers of requests."""
    intervals = [student(regrets[:, number - 1]) for number in at]
    return {key: [getattr(interval, key) for interval in intervals] for key in ("mean", "low", "high")}


def _growth(regrets: Array, horizon: int) -> float:
    """Mean regret after all requests, relative to that after a tenth of them; 10 where it is linear."""
    return float(regrets[:, -1].mean() / regrets[:, max(horizon // 10, 1) - 1].mean())
