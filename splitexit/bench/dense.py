"""Per-pixel exits: segmentation networks that may stop early, trained jointly and with block-dependent losses.

Block-dependent losses (Han et al., IEEE TNNLS 2023, doi 10.1109/TNNLS.2023.3282249) were tried on segmentation too;
no public table or code of that was found, so what is reported is a comparison with joint training and with the
exit-free twin, on the same scenes and for the same epochs. Every exit is a 1×1 convolution to the classes, scaled up to
the image; a scene leaves at the first exit whose mean confidence over its pixels is high enough.

A run folder holds NETWORK-SEED/ with the bundle of every finished network, which is not trained again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitexit.bench.miou import Outcome, evaluate, pixels, score
from splitexit.bench.scenes import CLASSES, SIZE, Scenes
from splitexit.bundle import Bundle
from splitexit.errors import ArtifactError
from splitexit.models import multi_exit
from splitexit.models.evaluate import autocast, describe_machine
from splitexit.models.multi_exit import MultiExitNet, NetConfig
from splitexit.models.objectives import OBJECTIVES, Objective, Progress
from splitexit.models.spec import Spec, create

Say = Callable[[str], None]
Document = dict[str, Any]

MEAN, STD = (0.48,) * 3, (0.25,) * 3
"""Near those of CIFAR-10, which the photographs may come from; the network's own batch norm does the rest."""

HEAD: Spec = {"name": "splitexit.bench.dense:DenseHead"}
"""Of every exit, the final one too."""

CPU = torch.device("cpu")


@dataclass(frozen=True)
class DenseRecipe:
    """How one network is trained.

    name       what the table calls it
    shares     of the exits in the cost of the exit-free network; empty: the twin
    objective  a spec of the zoo of objectives
    precision  bf16 or fp32, of the training alone
    """

    name: str
    shares: tuple[float, ...]
    objective: Spec
    backbone: Spec
    epochs: int
    batch: int = 16
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    precision: str = "bf16"
    seed: int = 0

    def steps(self, scenes: int) -> int:
        """Updates of an epoch over so many scenes."""
        return scenes // self.batch


def recipes(backbone: Spec, shares: tuple[float, ...], epochs: int, seed: int) -> list[DenseRecipe]:
    """No early exits, joint training, and block-dependent losses as the paper has them for classification."""
    joint = {"name": "joint", "weights": "uniform"}
    block = {"name": "block-dependent", "reach": 2, "final": True}
    return [
        DenseRecipe("exit-free", (), joint, backbone, epochs, seed=seed),
        DenseRecipe("joint", shares, joint, backbone, epochs, seed=seed),
        DenseRecipe("block-dependent-2", shares, block, backbone, epochs, seed=seed),
    ]


class DenseHead(nn.Module):
    """B×C×H×W -> B×K×SIZE×SIZE logits: a 1×1 convolution, then bilinear scaling (as in fully convolutional networks,
    Long et al., CVPR 2015, arXiv 1411.4038).

    Args:
        shape: C×H×W of the features read.
        num_classes: K.
    """

    def __init__(self, *, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.classify = nn.Conv2d(shape[0], num_classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Logits in single precision; see the class."""
        small = self.classify(features).float()
        return F.interpolate(small, size=(SIZE, SIZE), mode="bilinear", align_corners=False)


def build(recipe: DenseRecipe) -> MultiExitNet:
    """A new network, its weights drawn from the recipe's seed; raises UsageError where the exits do not fit."""
    config = NetConfig(
        backbone=recipe.backbone,
        input_shape=(3, SIZE, SIZE),
        num_classes=len(CLASSES),
        shares=recipe.shares,
        head=HEAD,
        final=HEAD,
        mean=MEAN,
        std=STD,
        class_names=CLASSES,
        name=f"dense-{recipe.name}",
    )
    return multi_exit.build(config, recipe.seed)


def train(
    recipe: DenseRecipe, scenes: Scenes, say: Say = lambda line: None, step_done: Callable[[], None] = lambda: None
) -> MultiExitNet:
    """Trains a new network on the scenes, on the CPU; `say` is told every epoch, `step_done` called after each step."""
    # Channels last is faster, but in fp32 a strided 1×1 convolution of few channels then writes past its buffer:
    # oneDNN issue 6035, seen with torch 2.13.
    layout = torch.channels_last if recipe.precision == "bf16" else torch.contiguous_format
    net: MultiExitNet = build(recipe).to(memory_format=layout)  # type: ignore[call-overload]
    objective: Objective = create(OBJECTIVES, recipe.objective)
    steps = recipe.steps(len(scenes))
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
            with autocast(CPU, recipe.precision):
                outputs = net(pixels(part).contiguous(memory_format=layout))
            progress = Progress(costs, (epoch + step / steps) / recipe.epochs)
            loss = objective.backward(net, outputs, torch.from_numpy(part.masks), progress)
            optimiser.step()
            schedule.step()
            total += float(loss)
            step_done()
        say(f"epoch {epoch + 1:2d}  loss {total / steps:.4f}  {time.perf_counter() - started:.0f} s")
    return net.eval()


@dataclass
class DenseBench:
    """Trains and scores recipes, and keeps what is finished.

    sets      scenes to train on, to choose thresholds, to test
    folder    what holds everything
    say       told, in a line each, what is being done
    progress  told how many steps of training are done, of how many
    """

    sets: Sequence[Scenes]
    folder: Path
    say: Say
    progress: Callable[[int, int], None] = lambda done, total: None
    _done: int = field(default=0, init=False)

    def run(self, recipes: Sequence[DenseRecipe]) -> Iterator[Document]:
        """One document for each, as soon as it is there; the exit-free twin of a seed comes before its methods.

        Raises ArtifactError where the folder holds a network that was trained otherwise.
        """
        train_on, validation, test = self.sets
        total = sum(recipe.epochs * recipe.steps(len(train_on)) for recipe in recipes)
        twins: dict[int, Outcome] = {}
        for recipe in recipes:
            net = self._trained(recipe, total)
            held, seen = evaluate(net, validation), evaluate(net, test)
            if not recipe.shares:
                twins[recipe.seed] = seen
            found = score(net, held, seen, twins[recipe.seed])
            yield {"method": recipe.name, "seed": recipe.seed, "epochs": recipe.epochs, **found}

    def path(self, name: str, seed: int) -> Path:
        """Where the bundle of a network is."""
        return self.folder / f"{name}-{seed}"

    def _trained(self, recipe: DenseRecipe, total: int) -> MultiExitNet:
        folder, scenes = self.path(recipe.name, recipe.seed), self.sets[0]
        made = {"recipe": json.loads(json.dumps(asdict(recipe))), "scenes": len(scenes), "scenes_sha256": scenes.sha256}
        if (folder / "model.json").exists():
            self.say(f"{folder} is there")
            self._advance(recipe.epochs * recipe.steps(len(scenes)), total)
            return _kept(folder, made)
        self.say(f"{recipe.name}, seed {recipe.seed}, {recipe.epochs} epochs")
        net = train(recipe, scenes, self.say, lambda: self._advance(1, total))
        training = {"command": "splitexit bench dense", **made, "machine": describe_machine(CPU)}
        # Read again, so that its figures are those of a later call to the last digit.
        return multi_exit.load(multi_exit.save(net, folder, training))

    def _advance(self, steps: int, total: int) -> None:
        self._done += steps
        self.progress(self._done, total)


def _kept(folder: Path, made: Document) -> MultiExitNet:
    """A finished network; raises ArtifactError where it was made in another way."""
    bundle = Bundle.open(folder)
    changed = [key for key, value in made.items() if bundle.spec.training.get(key) != value]
    if changed:
        raise ArtifactError(f"{folder}: trained with another {' and other '.join(changed)}; choose another --out")
    return multi_exit.load(bundle)
