"""Per-pixel exits: a segmentation network that may stop early, trained jointly and with block-dependent losses.

Block-dependent losses (Han et al., IEEE TNNLS 2023, doi 10.1109/TNNLS.2023.3282249) were tried on segmentation too;
no public table or code of that was found, so what is reported is a comparison with joint training and with the
exit-free twin, on the same scenes and for the same epochs. Every exit is a 1×1 convolution to the classes, scaled up to
the image; a scene leaves at the first exit whose mean confidence over its pixels is high enough.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitexit.bench.scenes import SIZE, Scenes
from splitexit.bundle import Exit, ModelSpec, Stage
from splitexit.models.backbones import BACKBONES
from splitexit.models.macs import Cost, measure
from splitexit.models.multi_exit import MultiExitNet, Normalise
from splitexit.models.objectives import OBJECTIVES, Objective, Progress
from splitexit.models.placement import place
from splitexit.models.spec import Spec, create
from splitexit.report.curve import exit_costs

Array = np.ndarray[Any, Any]
Say = Callable[[str], None]

CLASSES = 11
MEAN, STD = (0.48,) * 3, (0.25,) * 3
"""Near those of CIFAR-10, which the photographs may come from; the network's own batch norm does the rest."""

LEVELS = 41
"""Thresholds that are tried: quantiles of the mean confidence on the validation scenes."""

HELD = 1.0
"""Points of mIoU that may be lost against the final exit by leaving early."""


@dataclass(frozen=True)
class DenseRecipe:
    """How one network is trained.

    shares     of the exits in the cost of the exit-free network; empty: the twin
    objective  a spec of the zoo of objectives
    """

    shares: tuple[float, ...]
    objective: Spec
    backbone: Spec
    epochs: int
    batch: int = 16
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 0


def recipes(backbone: Spec, shares: tuple[float, ...], epochs: int, seed: int) -> dict[str, DenseRecipe]:
    """No early exits, joint training, and block-dependent losses as the paper has them for classification."""
    joint = {"name": "joint", "weights": "uniform"}
    block = {"name": "block-dependent", "reach": 2, "final": True}
    return {
        "exit-free": DenseRecipe((), joint, backbone, epochs, seed=seed),
        "joint": DenseRecipe(shares, joint, backbone, epochs, seed=seed),
        "block-dependent, reach 2, final": DenseRecipe(shares, block, backbone, epochs, seed=seed),
    }


def parts(scenes: int) -> tuple[tuple[str, int, int], ...]:
    """Of which images, how many scenes, and their seed: to train, to choose thresholds, to test."""
    return ("train", scenes, 0), ("train", scenes // 8, 1), ("test", scenes // 4, 2)


class DenseHead(nn.Module):
    """B×C×H×W -> B×K×SIZE×SIZE logits: a 1×1 convolution, then bilinear scaling (as in fully convolutional networks,
    Long et al., CVPR 2015, arXiv 1411.4038)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.classify = nn.Conv2d(channels, CLASSES, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Logits; see the class."""
        return F.interpolate(self.classify(features), size=(SIZE, SIZE), mode="bilinear", align_corners=False)


def build(recipe: DenseRecipe) -> MultiExitNet:
    """A new network, its weights drawn from the recipe's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        blocks = create(BACKBONES, recipe.backbone).blocks(3)
        costs, shape = list[Cost](), tuple[int, ...]((3, SIZE, SIZE))
        for block in blocks:
            costs.append(measure(block, shape))
            shape = costs[-1].output_shape
        total = sum(cost.macs for cost in costs) + measure(DenseHead(shape[0]), shape).macs
        places = [*place(recipe.shares, [cost.macs for cost in costs], total), len(blocks)]
        heads = [DenseHead(costs[number - 1].output_shape[0]) for number in places]
    bounds = list(pairwise([0, *places]))
    stages = [nn.Sequential(*blocks[a:b]) for a, b in bounds]
    stages[0].insert(0, Normalise(MEAN, STD))
    spec = ModelSpec(
        name="dense",
        backbone=dict(recipe.backbone),
        input_shape=(3, SIZE, SIZE),
        num_classes=CLASSES,
        stages=tuple(
            Stage(sum(c.macs for c in costs[a:b]), sum(c.layers for c in costs[a:b]), costs[b - 1].output_shape)
            for a, b in bounds
        ),
        exits=tuple(
            Exit(number, measure(head, costs[at - 1].output_shape).macs, 1, {"name": "dense"})
            for number, (head, at) in enumerate(zip(heads, places, strict=True), 1)
        ),
    )
    return MultiExitNet(stages, heads, spec)


def train(recipe: DenseRecipe, scenes: Scenes, say: Say = lambda line: None) -> MultiExitNet:
    """Trains a new network on the scenes, on the CPU."""
    net, objective = build(recipe), _objective(recipe)
    steps = len(scenes) // recipe.batch
    optimiser = torch.optim.SGD(
        net.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.lr, total_steps=steps * recipe.epochs, cycle_momentum=False
    )
    costs, rng = net.relative_costs(), np.random.default_rng(recipe.seed)
    net.train()
    for epoch in range(recipe.epochs):
        started, order, total = time.perf_counter(), rng.permutation(len(scenes)), 0.0
        for step in range(steps):
            part = scenes.take(order[step * recipe.batch : (step + 1) * recipe.batch])
            optimiser.zero_grad(set_to_none=True)
            progress = Progress(costs, (epoch + step / steps) / recipe.epochs)
            loss = objective.backward(net, net(pixels(part)), torch.from_numpy(part.masks), progress)
            optimiser.step()
            schedule.step()
            total += float(loss)
        say(f"epoch {epoch + 1:2d}  loss {total / steps:.4f}  {time.perf_counter() - started:.0f} s")
    return net.eval()


def _objective(recipe: DenseRecipe) -> Objective:
    made: Objective = create(OBJECTIVES, recipe.objective)
    return made


def pixels(scenes: Scenes) -> Tensor:
    """B×3×SIZE×SIZE in [0, 1], channels first in memory: the gradient of scaling up ends torch 2.13 otherwise."""
    return torch.from_numpy(scenes.images).permute(0, 3, 1, 2).contiguous().float().div_(255)


@dataclass(frozen=True)
class Outcome:
    """What every exit says of n scenes.

    confusion   (exits, n, K, K): pixels of each scene by true class and answered class
    confidence  (exits, n): mean over the pixels of the largest probability
    """

    confusion: Array
    confidence: Array

    def miou(self, exits: Array) -> float:
        """Mean intersection over union of all pixels, in percent, where scene i leaves at `exits[i]`.

        The mean is over the classes that occur or are answered.
        """
        together = self.confusion[exits, np.arange(self.confusion.shape[1])].sum(axis=0)
        both = np.diag(together)
        either = together.sum(axis=0) + together.sum(axis=1) - both
        return 100.0 * float((both[either > 0] / either[either > 0]).mean())

    def leaving(self, threshold: float) -> Array:
        """(n,) the exit at which each scene leaves: the first whose confidence reaches the threshold, else the last."""
        fired = self.confidence >= threshold
        fired[-1] = True
        first: Array = np.argmax(fired, axis=0)
        return first


@torch.inference_mode()
def evaluate(net: MultiExitNet, scenes: Scenes, size: int = 50) -> Outcome:
    """Runs the network on all scenes."""
    confusions, confidences = [], []
    for start in range(0, len(scenes), size):
        part = scenes.take(slice(start, start + size))
        outputs = net(pixels(part))
        confusions.append(np.stack([_confusion(output.argmax(1).numpy(), part.masks) for output in outputs]))
        confidences.append(np.stack([output.softmax(1).amax(1).mean(dim=(1, 2)).numpy() for output in outputs]))
    return Outcome(np.concatenate(confusions, axis=1), np.concatenate(confidences, axis=1))


def _confusion(answered: Array, true: Array) -> Array:
    """(n, K, K) pixels of every scene by true and answered class."""
    flat = true.reshape(len(true), -1) * CLASSES + answered.reshape(len(true), -1)
    return np.stack([np.bincount(scene, minlength=CLASSES**2).reshape(CLASSES, CLASSES) for scene in flat])


def compare(recipes: Mapping[str, DenseRecipe], sets: Sequence[Scenes], say: Say) -> list[dict[str, Any]]:
    """Trains and scores every recipe on scenes to train, to choose thresholds and to test; one document each."""
    train_on, validation, test = sets
    found = []
    for name, recipe in recipes.items():
        say(f"{name}, seed {recipe.seed}, {recipe.epochs} epochs")
        net = train(recipe, train_on, say)
        found.append({"method": name, "seed": recipe.seed, "epochs": recipe.epochs, **score(net, validation, test)})
        say(f"mIoU by exit {' '.join(f'{value:.1f}' for value in found[-1]['miou'])}")
    return found


def score(net: MultiExitNet, validation: Scenes, test: Scenes) -> dict[str, Any]:
    """mIoU of every exit on the test scenes, and of the cheapest threshold that loses at most HELD points."""
    held, seen, costs = evaluate(net, validation), evaluate(net, test), exit_costs(net.spec) / net.spec.macs
    levels = [2.0, *np.quantile(held.confidence, np.linspace(1.0, 0.0, LEVELS)).tolist()]
    enough = held.miou(held.leaving(levels[0])) - HELD
    sound = [level for level in levels if held.miou(held.leaving(level)) >= enough]
    threshold = min(sound, key=lambda level: float(costs[held.leaving(level)].mean()))
    exits = seen.leaving(threshold)
    last = len(net.heads)
    return {
        "miou": [seen.miou(np.full(len(test), exit_)) for exit_ in range(last)],
        "cost": list(net.relative_costs()),
        "threshold": threshold,
        "early_miou": seen.miou(exits),
        "early_cost": float(costs[exits].mean()),
        "exit_rates": (np.bincount(exits, minlength=last) / len(test)).tolist(),
    }


def table(found: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Head and lines, as text."""
    rows = [
        ["method", "mIoU by exit %", "cost by exit", "leaving early: mIoU %", "cost", "exit shares %", "epochs", "seed"]
    ]
    for one in found:
        rows.append(
            [
                one["method"],
                " ".join(f"{value:.1f}" for value in one["miou"]),
                " ".join(f"{cost:.2f}" for cost in one["cost"]),
                f"{one['early_miou']:.2f}",
                f"{one['early_cost']:.1%}",
                " ".join(f"{100 * rate:.0f}" for rate in one["exit_rates"]),
                str(one["epochs"]),
                str(one["seed"]),
            ]
        )
    return rows
