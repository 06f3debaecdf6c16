"""The loop of a training, with a checkpoint after every epoch.

The whole data set lies on the device, and every epoch draws its order and its crops from (seed, epoch) alone, so a
run that goes on from a checkpoint ends, on a CPU, in the same weights as one that was never stopped.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splitexit.bundle import Bundle
from splitexit.errors import ArtifactError, UsageError
from splitexit.models import data, multi_exit
from splitexit.models.augment import Batches
from splitexit.models.evaluate import accuracies, autocast, on_device, plain_batches
from splitexit.models.multi_exit import NetConfig
from splitexit.models.objectives import OBJECTIVES, Objective, Progress, class_logits
from splitexit.models.recipe import Recipe
from splitexit.models.spec import create

STEPS_PER_REPORT = 20
INITIAL_IMAGES = 100
"""That heads see before the first epoch."""


@dataclass(frozen=True)
class EpochReport:
    """What an epoch came to: mean loss, accuracy of every exit on the validation split, and its seconds."""

    epoch: int
    loss: float
    accuracy: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class StepReport:
    """How an epoch goes so far: steps done of all, mean loss, accuracy of every exit on the training images."""

    epoch: int
    done: int
    steps: int
    loss: float
    accuracy: tuple[float, ...]


@dataclass(frozen=True)
class Watcher:
    """Called while training goes on: `step` every few steps, `epoch` after every epoch."""

    step: Callable[[StepReport], None] = lambda report: None
    epoch: Callable[[EpochReport], None] = lambda report: None


class Run:
    """One training: network, data on the device, optimiser and schedule."""

    def __init__(
        self, recipe: Recipe, images: data.ImageSet, out: Path, device: torch.device, watcher: Watcher
    ) -> None:
        self.recipe, self.images, self.out, self.device, self.watcher = recipe, images, out, device, watcher
        kept, held = data.split_off(images.labels, recipe.validation)
        self.train_set, self.validation = images.take(kept), images.take(held)
        if len(held) == 0 or len(kept) < recipe.batch:
            raise UsageError(
                f"{images.origin}: {len(kept)} images to train on and {len(held)} for validation do not suffice "
                f"for batches of {recipe.batch}; give more images, a smaller --batch or another --validation"
            )
        self.net = multi_exit.build(_net_config(recipe, self.train_set), recipe.seed)
        if recipe.init is not None:
            multi_exit.start_from(self.net, Bundle.open(recipe.init))
        if recipe.freeze:
            self.net.freeze_backbone()
        # In fp32, the backward of a strided 1×1 convolution of few channels would write past its buffer: oneDNN issue
        # 6035, seen with torch 2.13.
        self.layout = torch.channels_last if recipe.precision == "bf16" else torch.contiguous_format
        self.net.to(device).to(memory_format=self.layout)  # type: ignore[call-overload]  # torch's stubs lack it
        self.objective = _objective(recipe)
        self.steps = len(kept) // recipe.batch
        self.optimiser = torch.optim.SGD(
            [parameter for parameter in self.net.parameters() if parameter.requires_grad],
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=True,
            fused=True if device.type in ("cpu", "cuda") else None,
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, recipe.lr, total_steps=self.steps * recipe.epochs, cycle_momentum=False
        )
        self.history: list[dict[str, Any]] = []

    @property
    def checkpoint(self) -> Path:
        """Where the state after every epoch is kept until the bundle is written."""
        return self.out / "checkpoint.pt"

    def fit(self, until: int) -> bool:
        """Trains up to epoch `until`; True where that is the end. An interruption loses the epoch it falls into."""
        self._resume()
        if not self.history:
            self._initialise()
        batches = Batches(*on_device(self.train_set, self.device), self.recipe.augment)
        for epoch in range(len(self.history), min(until, self.recipe.epochs)):
            started = time.perf_counter()
            loss = self._epoch(epoch, batches)
            accuracy = accuracies(self.net, self.validation, self.recipe.precision)
            report = EpochReport(epoch + 1, loss, accuracy, time.perf_counter() - started)
            self.history.append(dataclasses.asdict(report))
            self._save()
            self.watcher.epoch(report)
        return len(self.history) >= self.recipe.epochs

    def _initialise(self) -> None:
        """Shows some training images, of all classes, to heads that begin from what they will read."""
        order = np.random.default_rng(self.recipe.seed).permutation(len(self.train_set))
        pixels, _ = next(plain_batches(self.train_set.take(np.sort(order[:INITIAL_IMAGES])), self.device))
        self.net.train()
        self.net.initialise(pixels)

    def _epoch(self, epoch: int, batches: Batches) -> float:
        """One pass over the data; returns the mean loss."""
        self.net.train()
        generator = torch.Generator(self.device).manual_seed(self.recipe.seed * 1_000_003 + epoch)
        order = torch.randperm(len(batches.labels), generator=generator, device=self.device)
        batch, costs = self.recipe.batch, self.net.relative_costs()
        total = torch.zeros(1 + len(costs), device=self.device)
        for step in range(self.steps):
            drawn = batches.draw(order[step * batch : (step + 1) * batch], generator)
            total += self._step(*drawn, Progress(costs, (epoch + step / self.steps) / self.recipe.epochs))
            # Reading the sums waits for the device, so it is not done after every step.
            if (step + 1) % STEPS_PER_REPORT == 0 or step + 1 == self.steps:
                loss, *accuracy = (total / (step + 1)).tolist()
                self.watcher.step(StepReport(epoch + 1, step + 1, self.steps, loss, tuple(accuracy)))
        mean = float(total[0]) / self.steps
        if not math.isfinite(mean):
            raise UsageError(f"the loss is {mean} in epoch {epoch + 1}; try a lower --lr or --precision fp32")
        return mean

    def _step(self, images: Tensor, labels: Tensor, progress: Progress) -> Tensor:
        """One update; returns the loss, then the accuracy of every exit, on the device."""
        self.optimiser.zero_grad(set_to_none=True)
        with autocast(self.device, self.recipe.precision):
            outputs = self.net(images.contiguous(memory_format=self.layout), self.recipe.coupling)
        loss = self.objective.backward(self.net, outputs, labels, progress)
        self.optimiser.step()
        self.schedule.step()
        right = [(z.detach().argmax(1) == labels).float().mean() for z in class_logits(outputs)]
        return torch.stack([loss, *right])

    def _save(self) -> None:
        """Through a temporary name, so that an interruption leaves the checkpoint before it."""
        self.out.mkdir(parents=True, exist_ok=True)
        state = {
            "recipe": self.recipe.to_json(),
            "data": self.images.sha256,
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "history": self.history,
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.checkpoint)

    def _resume(self) -> None:
        """Goes on from the checkpoint if there is one; raises ArtifactError where it is of another run."""
        if not self.checkpoint.exists():
            return
        state = _read_checkpoint(self.checkpoint)
        before = state["recipe"].to_json()
        changed = [key for key, value in self.recipe.to_json().items() if before[key] != value]
        changed += ["data"] if state.get("data") != self.images.sha256 else []
        if changed:
            raise ArtifactError(
                f"{self.checkpoint}: begun with another {', '.join(changed)}; give the same options, "
                "or another --out, or delete it"
            )
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.history = list(state["history"])


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state | {"recipe": Recipe.from_json(state["recipe"])}
    except Exception as error:  # torch raises many kinds for a file that is cut short
        raise ArtifactError(f"{path}: not a readable checkpoint; delete it to begin again") from error


def _objective(recipe: Recipe) -> Objective:
    objective: Objective = create(OBJECTIVES, recipe.objective)
    if objective.routes and recipe.coupling != 1:
        raise UsageError(
            f"coupling: objective {recipe.objective['name']!r} itself decides which blocks a loss reaches, "
            f"so --coupling must be 1, found {recipe.coupling:g}"
        )
    return objective


def _net_config(recipe: Recipe, images: data.ImageSet) -> NetConfig:
    mean, std = images.mean_std()
    return NetConfig(
        backbone=recipe.backbone,
        input_shape=images.shape,
        num_classes=len(images.class_names),
        shares=recipe.shares,
        head=recipe.head,
        cuts=recipe.cuts,
        mean=mean,
        std=std,
        class_names=images.class_names,
        name=_name(recipe),
    )


def _name(recipe: Recipe) -> str:
    backbone = "-".join(str(value) for value in recipe.backbone.values())
    return f"{backbone}-{len(recipe.shares)}exits" if recipe.shares else f"{backbone}-plain"
