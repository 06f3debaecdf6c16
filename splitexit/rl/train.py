"""The loop that trains SAC-d in an environment, with a checkpoint after some of the episodes.

A run that goes on from a checkpoint ends, on a CPU, in the same weights as one that was never stopped: checkpoints are
taken between episodes, where the environment's state is that of its generator.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from splitexit.errors import ArtifactError
from splitexit.rl.sac_d import Recipe, Replay, SacD

Array = np.ndarray[Any, Any]
Key = tuple[int, int]
"""Device and request."""

SAVES = 20
"""Checkpoints of a whole training, about."""

RECENT = 1000
"""Rewards that the progress line averages."""


@dataclass(frozen=True)
class Progress:
    """How a training goes: decisions made, mean of the recent rewards, temperature."""

    done: int
    reward: float
    alpha: float


class Ledger:
    """Joins every decision with its reward, which may come later, and with the same device's next decision."""

    def __init__(self) -> None:
        self._open: dict[Key, dict[str, Any]] = {}
        self._latest: dict[int, Key] = {}

    def decided(self, key: Key, state: Array, mask: Array, action: int) -> Iterator[dict[str, Any]]:
        """A decision; yields the transition that it completes, if any."""
        before = self._latest.get(key[0])
        self._latest[key[0]] = key
        self._open[key] = {"state": state, "mask": mask, "action": action}
        if before is not None:
            yield from self._add(before, next_state=state, next_mask=mask)

    def rewarded(self, key: Key, reward: float) -> Iterator[dict[str, Any]]:
        """The reward of a decision; likewise."""
        yield from self._add(key, reward=reward)

    def ended(self) -> Iterator[dict[str, Any]]:
        """Nothing follows: what has its reward is complete."""
        for transition in self._open.values():
            if "reward" in transition:
                yield transition | {"last": True}
        self._open.clear()
        self._latest.clear()

    def _add(self, key: Key, **what: Any) -> Iterator[dict[str, Any]]:
        transition = self._open[key]
        transition |= what
        if "reward" in transition and "next_state" in transition:
            yield self._open.pop(key)


class Training:
    """One training.

    Args:
        env: with discrete actions; info may have `action_mask`, `device`, `request` and `rewards` as OffloadEnv's has.
        recipe: hyper-parameters.
        checkpoint: file that is written every now and then and gone on from; None for none.
        about: what the environment is; a checkpoint of another one is refused.
    """

    def __init__(
        self,
        env: gymnasium.Env[Array, Any],
        recipe: Recipe,
        checkpoint: Path | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        assert isinstance(env.action_space, spaces.Discrete)
        assert isinstance(env.observation_space, spaces.Box)
        self.env, self.recipe, self.checkpoint, self._about = env, recipe, checkpoint, dict(about or {})
        features, self._actions = int(env.observation_space.shape[0]), int(env.action_space.n)
        self.learner = SacD(features, self._actions, recipe)
        self.replay = Replay(recipe.steps, features, self._actions)
        self.done = self.updates = self._saved = 0
        self._rng = np.random.default_rng(recipe.seed)
        self._recent: deque[float] = deque(maxlen=RECENT)

    def run(self, progress: Callable[[Progress], None] = lambda now: None) -> None:
        """Trains to the end, from the checkpoint if there is one; raises ArtifactError where that is of another run."""
        if not self._resume():
            self.env.unwrapped.np_random = np.random.default_rng(self.recipe.seed)
        while self.done < self.recipe.steps:
            self._episode(progress)
            if self.done - self._saved >= self.recipe.steps // SAVES:
                self._save()

    def _episode(self, progress: Callable[[Progress], None]) -> None:
        ledger, terminated, truncated = Ledger(), False, False
        state, info = self.env.reset()
        while self.done < self.recipe.steps and not (terminated or truncated):
            mask = np.asarray(info.get("action_mask", np.ones(self._actions)), bool)
            key = (info.get("device", 0), info.get("request", self.done))
            action = self._choose(state, mask)
            self._keep(ledger.decided(key, state, mask, action))
            state, reward, terminated, truncated, info = self.env.step(action)
            for device, request, own in info.get("rewards", [(*key, float(reward))]):
                self._recent.append(own)
                self._keep(ledger.rewarded((device, request), own))
            self.done += 1
            self._learn()
            if self.done % 100 == 0 or self.done == self.recipe.steps:
                progress(Progress(self.done, float(np.mean(self._recent or [np.nan])), self.learner.alpha))
        self._keep(ledger.ended())

    def _choose(self, state: Array, mask: Array) -> int:
        if self.done < self.recipe.warm_up:
            return int(self._rng.choice(np.flatnonzero(mask)))
        return self.learner.draw(state, mask, self._rng)

    def _keep(self, transitions: Iterator[dict[str, Any]]) -> None:
        for transition in transitions:
            self.replay.add(transition)

    def _learn(self) -> None:
        if self.done >= self.recipe.warm_up and self.done % self.recipe.every == 0 and self.replay.size:
            self.learner.update(self.replay.draw(self.recipe.batch, self._rng))
            self.updates += 1

    def _save(self) -> None:
        """Through a temporary name, so that an interruption leaves the checkpoint before it."""
        self._saved = self.done
        if self.checkpoint is None:
            return
        kept = {name: torch.from_numpy(column[: self.replay.size]) for name, column in self.replay.columns.items()}
        state = {
            "about": json.dumps(self._whose(), sort_keys=True),
            "learner": self.learner.state_dict(),
            "replay": kept,
            "done": self.done,
            "updates": self.updates,
            "recent": list(self._recent),
            "rng": json.dumps([self._rng.bit_generator.state, self.env.unwrapped.np_random.bit_generator.state]),
        }
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint.with_name(self.checkpoint.name + ".part")
        torch.save(state, partial)
        os.replace(partial, self.checkpoint)

    def _whose(self) -> dict[str, Any]:
        recipe = self.recipe.to_json()
        return {"recipe": {key: value for key, value in recipe.items() if key != "steps"}, "environment": self._about}

    def _resume(self) -> bool:
        if self.checkpoint is None or not self.checkpoint.exists():
            return False
        state = self._read(self.checkpoint)
        self.learner.load_state_dict(state["learner"])
        size = len(state["replay"]["reward"])
        for name, column in self.replay.columns.items():
            column[:size] = state["replay"][name].numpy()
        self.replay.size, self.done, self.updates = size, int(state["done"]), int(state["updates"])
        self._saved = self.done
        self._recent.extend(state["recent"])
        mine, theirs = json.loads(state["rng"])
        self._rng = _generator(mine)
        self.env.unwrapped.np_random = _generator(theirs)
        return True

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            about, done = json.loads(state["about"]), int(state["done"])
        except Exception as error:  # torch raises many kinds for a file that is cut short
            raise ArtifactError(f"{path}: not a readable checkpoint; delete it to begin again") from error
        if about != json.loads(json.dumps(self._whose())) or done > self.recipe.steps:
            raise ArtifactError(
                f"{path}: begun with other options or another scenario, or with more steps; give the same, or another "
                "--out, or delete it"
            )
        return state


def _generator(state: dict[str, Any]) -> np.random.Generator:
    rng = np.random.default_rng(0)
    rng.bit_generator.state = state
    return rng
