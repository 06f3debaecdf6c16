"""Policies driven through a recording, and what every arm of a bandit would have earned there.

The recording answers at once and no reply is lost: the decision loop is that of simulator and device, without time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from splitexit.decision import EdgeLoad, LinkEstimate, Observation, Plan, Reading, Setting
from splitexit.inference import Answer, Decider, infer
from splitexit.policies import Policy
from splitexit.policies._bandit import Arm
from splitexit.policies.splitee import SplitEE
from splitexit.recording import Part
from splitexit.results import DEVICE
from splitexit.steps import Encode, Observe, Payload, ReadExit, Reply, Reveal

Array = np.ndarray[Any, Any]

NO_LOAD, FREE_LINK = EdgeLoad(0, 0.0), LinkEstimate(math.inf, 0.0)


class Replay:
    """Answers the steps of requests from a part of a recording; no time passes (implements decision.Truth).

    Args:
        policy: prepared with `setting`.
    """

    def __init__(self, policy: Policy, setting: Setting, part: Part) -> None:
        self._decider, self._part, self._final = Decider(policy, setting), part, setting.spec.final_exit
        self._said = [part.readings(exit_) for exit_ in range(len(part.exits))]
        self._position = 0

    def request(self, position: int) -> Answer:
        """One request for the sample at this position, from the decision to what is learned of it."""
        self._position = position
        steps, value = infer(self._decider, math.inf), None
        try:
            while True:
                value = self._told(steps.send(value))
        except StopIteration as done:
            answer: Answer = done.value
        self._decider.learn(answer, 0.0)
        return answer

    def says(self, exit_: int) -> Reading:
        """What an exit says of the present sample."""
        return self._said[exit_][self._position]

    def utility(self, plan: Plan) -> float:
        """Raises NotImplementedError: without time no plan has a utility."""
        raise NotImplementedError("a replay takes no time")

    def _told(self, step: Any) -> Any:
        part, position, kind = self._part, self._position, type(step)
        if kind is ReadExit:
            return self._said[step.exit][position], 0.0
        if kind is Encode:
            return Payload(part.payload_sizes(step.split, step.codec)[position], 0.0, 0.0, 0.0)
        if kind is Observe:
            return Observation(link=FREE_LINK, edge_load=NO_LOAD, context=part.context_of(position))
        if kind is Reveal:
            return self
        return Reply(part.edge_readings(step.split, step.codec, self._final)[position], 0.0, 0.0, 0.0, NO_LOAD)


class Scores(NamedTuple):
    """What requests earned, cost, and whether they were answered rightly; arrays of one shape."""

    reward: Array
    cost: Array
    right: Array


@dataclass(frozen=True)
class Table:
    """What every arm says of every sample of a part, and costs.

    own, far               (n, arms) confidence of the arm's exit, and of the final one behind its split
    own_right, far_right   whether they are right
    costs                  (arms,) γ
    sent                   (n, arms) whether the arm sends the sample at its fixed α
    mu, offload            of SplitEE
    """

    own: Array
    far: Array
    own_right: Array
    far_right: Array
    costs: Array
    sent: Array
    mu: float
    offload: float

    @classmethod
    def of(cls, policy: SplitEE, part: Part, final: int) -> Table:
        """Of a prepared policy's arms."""
        columns = [_columns(arm, part, final) for arm in policy.known_arms]
        own, far, own_right, far_right = (np.stack(column, axis=1) for column in zip(*columns, strict=True))
        last = np.array([arm.exit == final for arm in policy.known_arms])
        costs = np.array([arm.cost for arm in policy.known_arms])
        sent = (own < policy.threshold) & ~last
        return cls(own, far, own_right, far_right, costs, sent, policy.mu, policy.offload)

    @cached_property
    def fixed(self) -> Scores:
        """Of every sample with every arm, (n, arms)."""
        return self._scores(slice(None), slice(None), self.sent)

    def of_played(self, order: Array, arms: Array, sent: Array) -> Scores:
        """Of requests for the samples at the positions `order`, with these arms, that were sent or not."""
        return self._scores(order, arms, sent)

    def _scores(self, samples: Any, arms: Any, sent: Array) -> Scores:
        own, far = self.own[samples, arms], self.far[samples, arms]
        cost = self.costs[arms] + self.offload * sent
        right = np.where(sent, self.far_right[samples, arms], self.own_right[samples, arms])
        return Scores(np.where(sent, far, own) - self.mu * cost, cost, right)

    @cached_property
    def ceiling(self) -> Array:
        """(n,) the most that any arm could have earned of each sample, sent or not: the per-request oracle."""
        stay, send = (self._scores(slice(None), slice(None), np.full(self.own.shape, sent)) for sent in (False, True))
        most: Array = np.maximum(stay.reward, send.reward).max(axis=1)
        return most

    @cached_property
    def best(self) -> int:
        """The fixed arm with the highest mean reward: the best in hindsight."""
        return int(self.fixed.reward.mean(axis=0).argmax())


def _columns(arm: Arm, part: Part, final: int) -> tuple[Array, Array, Array, Array]:
    own = part.exits[arm.exit]
    split, codec = arm.plan.split, arm.plan.codec
    pair = None if split is None or codec is None else part.pair(split, codec)
    far = part.exits[final] if pair is None or pair.lossless else pair.exits[final]
    right = (said.prediction == part.label for said in (own, far))
    return own.max_prob.astype(float), far.max_prob.astype(float), *right


class Played(NamedTuple):
    """What a policy did with every request: the number of the arm, and whether the sample was sent."""

    arms: Array
    sent: Array


def play(policy: Policy, setting: Setting, part: Part, order: Sequence[int], arm_of: Mapping[int, int]) -> Played:
    """Requests for the samples at these positions, one after another.

    Args:
        policy: prepared with `setting`.
        arm_of: exit -> the number of its arm.
    """
    replay, final = Replay(policy, setting, part), setting.spec.final_exit
    arms, sent = np.zeros(len(order), np.int64), np.zeros(len(order), bool)
    for number, position in enumerate(order):
        answer = replay.request(position)
        plan = answer.plan
        arms[number] = arm_of[final if plan.split is None else plan.exits[-1].exit]
        sent[number] = answer.answered_by != DEVICE
    return Played(arms, sent)
