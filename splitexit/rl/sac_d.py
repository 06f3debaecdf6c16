"""SAC-d: soft actor-critic with discrete, masked actions.

Niu, Teng, Han & Zou, arXiv 2201.02968, choose exit, split and bits by a discrete soft actor-critic; the learner itself
follows Christodoulou, arXiv 1910.07207, as CleanRL's sac_atari has it:

    y = r + γ·Σ_a π(a|s')·[min(Q̄1, Q̄2)(s', a) − α·log π(a|s')]      critics: mean squared error on the action taken
    J(π) = Σ_a π(a|s)·[α·log π(a|s) − min(Q1, Q2)(s, a)]             actor: an expectation, so nothing is sampled
    J(log α) = −α·(Σ_a π·log π + target)                             target entropy: a share of ln |valid actions|
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from splitexit.actor import Layers, drawn, likeliest, logits

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters. What says "inferred" was chosen for this small task; the rest is CleanRL's sac_atari.

    steps        decisions to train for (inferred)
    gamma        discount; 0 where states are independent of actions (inferred)
    tau          share of the critics that their targets take over at every update (inferred; CleanRL copies them whole
                 every 8,000 steps)
    hidden       width of both hidden layers (inferred)
    warm_up      decisions drawn evenly from the valid actions before learning starts (inferred)
    every        decisions from one update to the next (inferred; with CleanRL's 4 the temperature does not come down to
                 its target in so few decisions, and what is learned depends on the seed)
    lr, eps      of Adam, for actor, critics and temperature
    batch        transitions of an update
    entropy      target entropy, as a share of the largest that the valid actions allow
    alpha        a fixed temperature instead of a tuned one
    seed         of weights, actions and replay
    """

    steps: Annotated[int, Gt(0)] = 50_000
    gamma: Annotated[float, Ge(0), Le(1)] = 0.9
    tau: Annotated[float, Gt(0), Le(1)] = 0.005
    hidden: Annotated[int, Gt(0)] = 128
    warm_up: Annotated[int, Ge(0)] = 1_000
    every: Annotated[int, Gt(0)] = 1
    lr: Annotated[float, Gt(0)] = 3e-4
    eps: Annotated[float, Gt(0)] = 1e-4
    batch: Annotated[int, Gt(0)] = 64
    entropy: Annotated[float, Ge(0), Le(1)] = 0.89
    alpha: float | None = None
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """As a plain mapping."""
        return asdict(self)


class Replay:
    """The transitions so far: state, mask and action, reward, next state and its mask, and whether there is a next."""

    def __init__(self, capacity: int, features: int, actions: int) -> None:
        self.size = 0
        self.columns: dict[str, Array] = {
            "state": np.zeros((capacity, features), np.float32),
            "mask": np.zeros((capacity, actions), bool),
            "action": np.zeros(capacity, np.int64),
            "reward": np.zeros(capacity, np.float32),
            "next_state": np.zeros((capacity, features), np.float32),
            "next_mask": np.ones((capacity, actions), bool),
            "last": np.zeros(capacity, bool),
        }

    def add(self, transition: Mapping[str, Any]) -> None:
        """One more; a column that it lacks stays as it began. The capacity is that of a whole training."""
        for name, value in transition.items():
            self.columns[name][self.size] = value
        self.size += 1

    def draw(self, count: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """So many, with replacement."""
        rows = rng.integers(self.size, size=count)
        return {name: torch.from_numpy(column[rows]) for name, column in self.columns.items()}


class SacD:
    """Actor, twin critics with targets, and temperature.

    Args:
        features, actions: sizes of observation and action.
        recipe: hyper-parameters.
    """

    def __init__(self, features: int, actions: int, recipe: Recipe) -> None:
        self.recipe = recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.actor = _mlp(features, recipe.hidden, actions)
            self.critics = Twins(features, recipe.hidden, actions)
        self.targets = Twins(features, recipe.hidden, actions)
        self.targets.load_state_dict(self.critics.state_dict())
        self.targets.requires_grad_(False)
        self.log_alpha = torch.tensor(math.log(recipe.alpha or 1.0), requires_grad=recipe.alpha is None)
        adam: dict[str, Any] = {"lr": recipe.lr, "eps": recipe.eps, "fused": True}
        # Views of the weights: one decision at a time is made sooner in numpy.
        linear = [module for module in self.actor if isinstance(module, nn.Linear)]
        self._live: Layers = tuple((m.weight.detach().numpy(), m.bias.detach().numpy()) for m in linear)
        self.optimisers = {
            "actor": torch.optim.Adam(self.actor.parameters(), **adam),
            "critics": torch.optim.Adam(self.critics.parameters(), **adam),
            "alpha": torch.optim.Adam([self.log_alpha], **adam),
        }

    @property
    def alpha(self) -> float:
        """The present temperature."""
        return float(self.log_alpha.detach().exp())

    def draw(self, state: Array, mask: Array, rng: np.random.Generator) -> int:
        """An action by its probability; a masked one never."""
        return drawn(logits(self._live, state), mask, rng)

    def best(self, state: Array, mask: Array) -> int:
        """The likeliest action that is not masked."""
        return likeliest(logits(self._live, state), mask)

    def update(self, batch: Mapping[str, Tensor]) -> None:
        """One step of critics, actor and temperature."""
        self._update_critics(batch)
        share, log_share = masked_policy(self.actor(batch["state"]), batch["mask"])
        with torch.no_grad():
            worth = self.critics(batch["state"]).amin(0)
        self._step("actor", (share * (self.alpha * log_share - worth)).sum(1).mean())
        if self.recipe.alpha is None:
            missing = self._missing_entropy(share.detach(), log_share.detach(), batch["mask"])
            self._step("alpha", -self.log_alpha.exp() * missing)

    def _update_critics(self, batch: Mapping[str, Tensor]) -> None:
        goal = self._goal(batch)
        taken = batch["action"].expand(2, -1).unsqueeze(2)
        found = self.critics(batch["state"]).gather(2, taken).squeeze(2)
        self._step("critics", (found - goal).square().mean(1).sum())
        with torch.no_grad():
            for target, of in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
                target.lerp_(of, self.recipe.tau)

    @torch.no_grad()
    def _goal(self, batch: Mapping[str, Tensor]) -> Tensor:
        if not self.recipe.gamma:
            return batch["reward"]
        share, log_share = masked_policy(self.actor(batch["next_state"]), batch["next_mask"])
        worth = (share * (self.targets(batch["next_state"]).amin(0) - self.alpha * log_share)).sum(1)
        return batch["reward"] + self.recipe.gamma * torch.where(batch["last"], 0.0, worth)

    def _missing_entropy(self, share: Tensor, log_share: Tensor, mask: Tensor) -> Tensor:
        """By how much the entropy misses its target, on average; positive where there is too little."""
        target = self.recipe.entropy * mask.sum(1).log()
        return ((share * log_share).sum(1) + target).mean()

    def _step(self, name: str, loss: Tensor) -> None:
        optimiser = self.optimisers[name]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stubs lack it
        optimiser.step()

    def layers(self) -> Layers:
        """The actor's weights and biases, copied."""
        return tuple((weight.copy(), bias.copy()) for weight, bias in self._live)

    def state_dict(self) -> dict[str, Any]:
        """All that learning changes."""
        return {
            "actor": self.actor.state_dict(),
            "critics": self.critics.state_dict(),
            "targets": self.targets.state_dict(),
            "log_alpha": self.log_alpha.detach(),
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for name in ("actor", "critics", "targets"):
            getattr(self, name).load_state_dict(state[name])
        with torch.no_grad():
            self.log_alpha.copy_(state["log_alpha"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])


def masked_policy(logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """π and log π (batch, actions); of a masked action π is exactly 0, and log π is put at 0 so that π·log π is."""
    logs = logits.masked_fill(~mask, -math.inf).log_softmax(1)
    return logs.exp(), logs.masked_fill(~mask, 0.0)


class Twins(nn.Module):
    """Two critics of the shape of the actor, computed together: (batch, features) to (2, batch, actions)."""

    def __init__(self, features: int, hidden: int, actions: int) -> None:
        super().__init__()
        nets = [_mlp(features, hidden, actions) for _ in range(2)]
        linear = [[m for m in net if isinstance(m, nn.Linear)] for net in nets]
        pairs = list(zip(*linear, strict=True))
        self.weights = nn.ParameterList(torch.stack([m.weight.detach().T for m in pair]) for pair in pairs)
        self.biases = nn.ParameterList(torch.stack([m.bias.detach()[None] for m in pair]) for pair in pairs)

    def forward(self, state: Tensor) -> Tensor:
        """Q of every action, of both."""
        found = state.expand(2, -1, -1)
        *hidden, last = zip(self.weights, self.biases, strict=True)
        for weight, bias in hidden:
            found = torch.baddbmm(bias, found, weight).relu()
        return torch.baddbmm(last[1], found, last[0])


def _mlp(features: int, hidden: int, actions: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, actions)
    )
