"""What a network learned to do, by reinforcement, about exit, split and bits at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from splitexit.actor import READS, Actor, Menu, View
from splitexit.decision import Observation, Outcome, Plan, Setting
from splitexit.policies import Policy

if TYPE_CHECKING:
    import numpy as np


class SacD(Policy):
    """Discrete soft actor-critic (SAC-d: Niu, Teng, Han & Zou, arXiv 2201.02968), trained by `splitexit train-policy`.

    Before every request its network picks one triple of exit, split and codec, from what the device measures of link,
    CPU and edge, the time left, and the last response. The exit is chosen beforehand: no confidence is looked at.

    Args:
        weights: the file that `splitexit train-policy` wrote; needs safetensors, but not torch.
        stochastic: draw the action by its probability, as in training, rather than take the likeliest.
    """

    reads: ClassVar[frozenset[str]] = READS
    memory: ClassVar[tuple[str, ...]] = ("_last_s", "_rng")

    def __init__(self, *, weights: Path, stochastic: bool = False) -> None:
        self.weights, self.stochastic = weights, stochastic
        self._last_s = 0.0
        self._rng: np.random.Generator | None = None
        self._actor: Actor | None = None

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Reads the weights; raises InputError where they are missing, broken, or of another model or codecs."""
        actor = Actor.load(Path(self.weights))
        actor.check(setting, Path(self.weights))
        self._actor, self._rng = actor, rng
        self._menu, self._view = Menu(setting, actor.actions), View(setting.deadline_s, actor.features)

    def decide(self, observation: Observation) -> Plan:
        """The plan of the likeliest action, or of one that is drawn; never of a masked one (see Menu)."""
        actor = self._actor
        assert actor is not None, "prepare() comes first"
        assert self._rng is not None
        observed, mask = self._view(observation, self._last_s), self._menu.mask(observation.deadline_left_s)
        chosen = actor.draw(observed, mask, self._rng) if self.stochastic else actor.best(observed, mask)
        return self._menu.plans[chosen]

    def learn(self, outcome: Outcome) -> None:
        """Remembers how long the last answer took; the weights stay as they are."""
        self._last_s = outcome.response_s
