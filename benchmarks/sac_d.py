"""Whether SAC-d learns to adapt: its reward beside that of the best fixed action, under a channel of two states.

A Raspberry Pi 3 B+ looks at one image after the other and sends it as it is (PNG) or coarsely (JPEG of quality 50), or
leaves early; the uplink is good or bad, for 5 s on average. Nothing fixed is best in both states: PNG takes long in the
bad one, the coarse JPEG costs 8 points of accuracy. (Offer JPEG of quality 75 too, with --codecs, and one action suits
both: it is small and loses next to nothing.) Decisions come one after the other, so that what was sent is heard of:
where too much is sent in the bad state, no reply comes in time, and the device learns nothing of its link.

Training draws its samples from the calibration split. What is reported comes from the test split under fresh seeds,
with the answers that were really right, for the likeliest action; fixed actions meet the same seeds, and the best of
them is chosen in hindsight. One training may be lucky, so there are several, and every one is reported.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.simulator import machine
from splitexit.rl.env import OffloadEnv
from splitexit.rl.sac_d import Recipe
from splitexit.rl.train import Training
from splitexit.stats import Interval, paired, student

ROOT = Path(__file__).resolve().parents[1]
CODECS = ("png", "jpeg:headers=false,quality=50")
SCENARIO = f"""\
name: two-states
bundle: {ROOT}/scenarios/data/resnet32-cifar10
requests: 500
devices:
  hardware: raspberry-pi-3b-plus
  arrivals: {{name: closed, think_ms: 50}}
  deadline_ms: 80
uplink: {{name: markov, mbps: [0.4, 20], dwell_ms: 5000, delay_ms: 2}}
downlink: {{name: constant, mbps: 20, delay_ms: 2}}
edge: {{hardware: host, workers: 1}}
"""

Choose = Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], int]


def reward(env: OffloadEnv, choose: Choose, seed: int) -> float:
    """Mean reward of a request in the run with this seed."""
    state, _ = env.reset(options={"seed": seed})
    total, steps, terminated = 0.0, 0, False
    while not terminated:
        state, gained, terminated, _, _ = env.step(choose(state, env.action_masks()))
        total, steps = total + gained, steps + 1
    return total / steps


def rewards(env: OffloadEnv, choose: Choose, seeds: Sequence[int]) -> list[float]:
    """Of every seed."""
    return [reward(env, choose, seed) for seed in seeds]


def fixed(env: OffloadEnv, seeds: Sequence[int]) -> dict[str, list[float]]:
    """Rewards of every action, taken always."""
    found = {}
    for k, (exit_, split, codec) in enumerate(env.actions):
        name = f"exit {exit_}" + ("" if split is None else f", {codec}@{split}")
        found[name] = rewards(env, _always(k), seeds)
        print(f"{name:45} {np.mean(found[name]):.4f}", file=sys.stderr, flush=True)
    return found


def _always(action: int) -> Choose:
    return lambda state, mask: action


def trained(path: Path, codecs: Sequence[str] | None, recipe: Recipe) -> tuple[Training, dict[str, float]]:
    """A training, and the seconds that it took: on the clock and of one core."""
    began, began_cpu = time.perf_counter(), time.process_time()
    training = Training(OffloadEnv(path, codecs=codecs), recipe)

    def show(now: Any) -> None:
        if now.done % 2500 == 0:
            print(f"{now.done:6d} of {recipe.steps}  reward {now.reward:.3f}", file=sys.stderr, flush=True)

    training.run(show)
    seconds = {"train_s": time.perf_counter() - began, "train_cpu_s": time.process_time() - began_cpu}
    return training, seconds


def document(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that is reported."""
    codecs, first = arguments.codecs.split(";"), arguments.first_seed
    seeds = range(first, first + arguments.seeds)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "two-states.yaml"
        path.write_text(SCENARIO)
        env = OffloadEnv(path, part="test", accuracy="realised", codecs=codecs)
        others = fixed(env, seeds)
        best = max(others, key=lambda name: float(np.mean(others[name])))
        trainings, all_of = [], []
        for seed in range(arguments.trainings):
            training, seconds = trained(path, codecs, Recipe(steps=arguments.steps, seed=seed))
            all_of.append(rewards(env, training.learner.best, seeds))
            found = {"mean": float(np.mean(all_of[-1])), "difference": _interval(paired(all_of[-1], others[best]))}
            trainings.append({"seed": seed, **found, **seconds})
            print(json.dumps(trainings[-1]), file=sys.stderr, flush=True)
    mean = np.mean(all_of, axis=0)
    return {
        "machine": machine(),
        "steps": arguments.steps,
        "seeds": [seeds[0], seeds[-1]],
        "requests_per_seed": env.experiment.scenario.requests,
        "sac_d": _interval(student(mean)),
        "best_fixed": {"action": best, **_interval(student(others[best]))},
        "difference": _interval(paired(mean, others[best])),
        "trainings": trainings,
        "fixed": {name: float(np.mean(values)) for name, values in others.items()},
    }


def _interval(found: Interval) -> dict[str, float]:
    return dict(found._asdict())


def main() -> None:
    """Prints the document; fails where the interval of any training's difference does not lie above zero."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50_000, help="decisions to train for")
    parser.add_argument("--trainings", type=int, default=3, help="networks to train, from seeds 0, 1, …")
    parser.add_argument("--seeds", type=int, default=30, help="fresh seeds to compare on")
    parser.add_argument("--first-seed", type=int, default=20_000, help="the first of them")
    parser.add_argument("--codecs", default=";".join(CODECS), help="on offer, separated by semicolons")
    found = document(parser.parse_args())
    print(json.dumps(found, indent=2))
    sys.exit(min(training["difference"]["low"] for training in found["trainings"]) <= 0)


if __name__ == "__main__":
    main()
