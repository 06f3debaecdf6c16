"""A stock reinforcement learning library in the environment: PPO of Stable-Baselines3 decides where requests run.

    pip install 'splitexit[rl]' stable-baselines3
    python docs/rl_example.py scenarios/quickstart.yaml --steps 20000

It trains on the calibration split, and prints the mean reward of a request on the test split beside that of always
taking one action. Stable-Baselines3 knows no masks; an offload that could not leave in time falls back to the device.
(MaskablePPO of sb3-contrib finds `action_masks()` by itself.)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from stable_baselines3 import PPO

from splitexit.rl.env import OffloadEnv

Decide = Callable[[np.ndarray[Any, Any]], int]


def mean_reward(env: OffloadEnv, decide: Decide, seeds: range) -> float:
    """Of a request, over the runs with these seeds."""
    total, requests = 0.0, 0
    for seed in seeds:
        state, _ = env.reset(options={"seed": seed})
        terminated = False
        while not terminated:
            state, reward, terminated, _, _ = env.step(decide(state))
            total, requests = total + reward, requests + 1
    return total / requests


def main() -> None:
    """Trains, then compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario")
    parser.add_argument("--steps", type=int, default=20_000, help="decisions to learn from")
    parser.add_argument("--requests", type=int, default=200, help="of every device in a run")
    arguments = parser.parse_args()

    model = PPO("MlpPolicy", OffloadEnv(arguments.scenario, requests=arguments.requests), n_steps=256, seed=0)
    model.learn(arguments.steps)

    test = OffloadEnv(arguments.scenario, part="test", accuracy="realised", requests=arguments.requests)
    seeds = range(3)
    learned = mean_reward(test, lambda state: int(model.predict(state, deterministic=True)[0]), seeds)
    print(f"PPO                        {learned:.3f}")
    for name, action in (("all on the device", len(test.experiment.spec.exits) - 1), ("the last offload", -1)):
        print(f"always {name:20}{mean_reward(test, lambda state, a=action: a % len(test.actions), seeds):.3f}")


if __name__ == "__main__":
    main()
