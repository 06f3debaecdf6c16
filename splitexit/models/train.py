"""Training a multi-exit network on one machine, interrupted as often as one likes.

The whole data set lies on the device and every epoch draws its order and its crops from (seed, epoch) alone, so
a run that goes on from a checkpoint ends, on a CPU, in the same weights as one that was never stopped.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splitexit.bundle import Bundle
from splitexit.errors import ArtifactError, UsageError
from splitexit.models import card, data, multi_exit
from splitexit.models.augment import Augmentation, Batches
from splitexit.models.multi_exit import MultiExitNet, NetConfig
from splitexit.models.objectives import OBJECTIVES, Objective, Progress
from splitexit.models.placement import SDN_SHARES
from splitexit.models.spec import Spec, create


@dataclass(frozen=True)
class Recipe:
    """Everything that decides which network comes out; it is stored in model.json and in every checkpoint.

    Args:
        backbone, head, objective: specs of their zoos.
        shares: the early exits, as shares of the exit-free network's cost; empty trains the exit-free twin.
        cuts: stages end behind every exit (`exits`) or every block (`blocks`).
        epochs, batch: length of the training; batches smaller than `batch` at an epoch's end are left out.
        lr: the highest learning rate of the one-cycle schedule (Smith and Topin, arXiv 1708.07120).
        momentum, weight_decay: of SGD with Nesterov's momentum.
        augment: see augment.Batches.
        validation: share of every class kept from the training, for thresholds and every other choice.
        resize: height and width to scale images to; None leaves them as they are.
        limit: train on the first so many images only; None takes all.
        precision: `bf16` (autocast, channels last) or `fp32`.
        seed: of weights, order and augmentation.
    """

    backbone: Spec = field(default_factory=lambda: {"name": "resnet", "depth": 32})
    shares: tuple[float, ...] = SDN_SHARES
    head: Spec = field(default_factory=lambda: {"name": "pooled"})
    objective: Spec = field(default_factory=lambda: {"name": "joint", "weights": "cost"})
    cuts: str = "exits"
    epochs: int = 30
    batch: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: Augmentation = "crop-flip"
    validation: float = 0.1
    resize: int | None = None
    limit: int | None = None
    precision: str = "bf16"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: expected a number from 1, found {getattr(self, name)}")
        if self.precision not in ("bf16", "fp32"):
            raise UsageError(f"precision: expected bf16 or fp32, found {self.precision!r}")
        if not 0 < self.validation < 1:
            raise UsageError(f"validation: expected a share between 0 and 1, found {self.validation}")

    def to_json(self) -> dict[str, Any]:
        """As model.json and checkpoints hold it."""
        return {**dataclasses.asdict(self), "shares": list(self.shares)}


@dataclass(frozen=True)
class EpochReport:
    """What an epoch came to: mean loss, accuracy of every exit on the validation split, and its seconds."""

    epoch: int
    loss: float
    accuracy: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class Watcher:
    """Called while training goes on: `step(epoch, done, steps)` often, `epoch(report)` after every epoch."""

    step: Callable[[int, int, int], None] = lambda epoch, done, steps: None
    epoch: Callable[[EpochReport], None] = lambda report: None


def pick_device(name: str) -> torch.device:
    """`auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, `mps`; raises UsageError where there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {name!r} cannot be used here ({reason}); try cpu or auto") from error


def train(
    recipe: Recipe,
    *,
    source: str,
    test: str | None,
    out: Path,
    device: str = "auto",
    command: str = "",
    watcher: Watcher | None = None,
    stop_after: int | None = None,
) -> Bundle | None:
    """Trains, or goes on from the checkpoint in `out`, and writes the bundle there.

    Args:
        source, test: image sets, see data.read; the test set is looked at once, at the end.
        command: the command line, for the model card.
        stop_after: leave after this many epochs of the schedule, with a checkpoint.

    Returns the bundle, or None where `stop_after` left the training unfinished. Raises ArtifactError where `out`
    holds something else, UsageError or DataError for wrong input.
    """
    finished = _finished(out, recipe)
    if finished is not None:
        return finished
    images = data.read(source, "train", resize=recipe.resize, limit=recipe.limit)
    run = Run(recipe, images, out, pick_device(device), watcher or Watcher())
    if not run.fit(stop_after or recipe.epochs):
        return None
    return _write_bundle(run, test, command)


def _finished(out: Path, recipe: Recipe) -> Bundle | None:
    if not (out / "model.json").exists():
        return None
    bundle = Bundle.open(out)
    if bundle.spec.training.get("recipe") != recipe.to_json():
        raise ArtifactError(f"{out}: already holds a bundle trained by another recipe; choose another --out")
    return bundle


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
        self.net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        self.objective: Objective = create(OBJECTIVES, recipe.objective)
        self.steps = len(kept) // recipe.batch
        self.optimiser = torch.optim.SGD(
            self.net.parameters(),
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
        batches = Batches(*_on_device(self.train_set, self.device), self.recipe.augment)
        for epoch in range(len(self.history), min(until, self.recipe.epochs)):
            started = time.perf_counter()
            loss = self._epoch(epoch, batches)
            accuracy = accuracies(self.net, self.validation, self.recipe.precision)
            report = EpochReport(epoch + 1, loss, accuracy, time.perf_counter() - started)
            self.history.append(dataclasses.asdict(report))
            self._save()
            self.watcher.epoch(report)
        return len(self.history) >= self.recipe.epochs

    def _epoch(self, epoch: int, batches: Batches) -> float:
        """One pass over the data; returns the mean loss, read from the device once."""
        self.net.train()
        generator = torch.Generator(self.device).manual_seed(self.recipe.seed * 1_000_003 + epoch)
        order = torch.randperm(len(batches.labels), generator=generator, device=self.device)
        total = torch.zeros((), device=self.device)
        costs = self.net.relative_costs()
        for step in range(self.steps):
            index = order[step * self.recipe.batch : (step + 1) * self.recipe.batch]
            done = (epoch + step / self.steps) / self.recipe.epochs
            total += self._step(*batches.draw(index, generator), Progress(costs, done))
            self.watcher.step(epoch + 1, step + 1, self.steps)
        loss = float(total) / self.steps
        if not np.isfinite(loss):
            raise UsageError(f"the loss is {loss} in epoch {epoch + 1}; try a lower --lr or --precision fp32")
        return loss

    def _step(self, images: Tensor, labels: Tensor, progress: Progress) -> Tensor:
        self.optimiser.zero_grad(set_to_none=True)
        with autocast(self.device, self.recipe.precision):
            logits = self.net(images)
        loss = self.objective.loss(logits, labels, progress)
        loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
        self.optimiser.step()
        self.schedule.step()
        return loss.detach()

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
        changed = [k for k, v in self.recipe.to_json().items() if state.get("recipe", {}).get(k) != v]
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


def _read_checkpoint(path: Path) -> Mapping[str, Any]:
    try:
        state: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state
    except Exception as error:  # torch raises many kinds for a file that is cut short
        raise ArtifactError(f"{path}: not a readable checkpoint; delete it to begin again") from error


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


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which the network runs under this precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def _on_device(images: data.ImageSet, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(images.images).to(device), torch.from_numpy(images.labels).to(device)


@torch.no_grad()
def accuracies(net: MultiExitNet, images: data.ImageSet, precision: str = "fp32") -> tuple[float, ...]:
    """Share of `images` that every exit gets right, in evaluation mode."""
    device = next(net.parameters()).device
    net.eval()
    right = torch.zeros(len(net.heads), dtype=torch.int64, device=device)
    for pixels, labels in _plain_batches(images, device):
        with autocast(device, precision):
            logits = net(pixels)
        right += torch.stack([(z.argmax(1) == labels).sum() for z in logits])
    return tuple(n / len(images) for n in right.tolist())


def _plain_batches(images: data.ImageSet, device: torch.device, size: int = 500) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(images), size):
        part = torch.from_numpy(images.images[start : start + size]).to(device)
        labels = torch.from_numpy(images.labels[start : start + size]).to(device)
        yield part.permute(0, 3, 1, 2).float().div_(255), labels


def _write_bundle(run: Run, test: str | None, command: str) -> Bundle:
    training: dict[str, Any] = {
        "command": command,
        "recipe": run.recipe.to_json(),
        "data": {"train": run.images.origin, "train_sha256": run.images.sha256, "images": len(run.images)},
        "validation_accuracy": _rounded(accuracies(run.net, run.validation)),
        "epochs": run.history,
        "machine": describe_machine(run.device),
    }
    if test is not None:
        channels = run.images.shape[0]
        images = data.read(test, "test", channels=channels, resize=run.recipe.resize)
        training["data"] |= {"test": test, "test_sha256": images.sha256, "test_images": len(images)}
        training["test_accuracy"] = _rounded(accuracies(run.net, images))
    bundle = multi_exit.save(run.net, run.out, training)
    card.write(bundle)
    run.checkpoint.unlink(missing_ok=True)
    return bundle


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 5) for value in values]


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Enough to know what trained it."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"device": name, "torch": torch.__version__, "python": platform.python_version()}
