"""A network for the policy sac_d that nobody trained: any weights, so that its choices vary with what is observed.

`python -m tests.tiny_actor` writes the one that the contract tests give to the policy.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from splitexit.actor import FEATURES, Action, Actor, actions_of, actor_for
from splitexit.decision import Setting
from tests import synthetic

FILE = Path(__file__).parent / "data" / "sac_d.safetensors"
USUAL = np.array([5, 3, 2, 0, 0, 8, 0], np.float32) / 8
"""An observation about which the hidden units turn on and off."""


def actor(setting: Setting, actions: tuple[Action, ...] | None = None, seed: int = 0) -> Actor:
    """Of this setting's model, over all actions unless some are given; halves of halves, so the same everywhere."""
    actions = actions_of(setting) if actions is None else actions
    rng = np.random.default_rng(seed)
    first = (rng.integers(-32, 33, (16, len(FEATURES))) / 8).astype(np.float32)
    last = (rng.integers(-32, 33, (len(actions), 16)) / 64).astype(np.float32)
    layers = ((first, -(first @ USUAL)), (last, np.zeros(len(actions), np.float32)))
    return actor_for(setting, actions, layers, {"command": "tests"})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        actor(synthetic.experiment(Path(folder)).setting()).save(FILE)
