"""Fine-tuning a learned codec together with the network around it, which makes a bundle of its own.

First the codec is trained on the frozen network (`train_codec`), then stages, codec, tail and exits learn together at a
small learning rate: the last stage of AECNN (arXiv 2211.13745), the third phase of BottleNet++ (arXiv 1910.14315), the
second stage of the entropic student (arXiv 2108.11898). Tables of the entropy coder are fitted at the end, on the
validation split. The bundle that this starts from stays as it is; its other codecs are for its weights, so they do not
come along.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from splitexit import codecs as zoo
from splitexit.bundle import Bundle
from splitexit.codecs import Tensors
from splitexit.errors import ArtifactError, UsageError, did_you_mean
from splitexit.models import card, codecs, data, multi_exit
from splitexit.models.augment import Batches
from splitexit.models.evaluate import accuracies, autocast, on_device, pick_device
from splitexit.models.learned import LEARNED, JointStage, LearnedNet
from splitexit.models.multi_exit import MultiExitNet
from splitexit.models.spec import judge
from splitexit.models.train_codec import (
    TABLE_IMAGES,
    CodecRecipe,
    CodecReport,
    Progress,
    Training,
    at_split,
    first,
    judged,
    spec_of,
    with_tables,
)


@dataclass(frozen=True)
class JointRecipe:
    """What decides a joint training beside the codec's own recipe, whose batch and seed hold here too.

    Args:
        epochs: passes over the images, for every joint stage of the codec.
        images: how many of the training images; None takes all.
        lr: of Adam, falling to 0 along a cosine in every stage.
        distil: weight of what the final exit said before any of this, the rest being the label's, for every exit.
        local: share of the images that pass the split without the codec, so that the network can still be run on to
            its end by the device alone (inferred).
    """

    epochs: Annotated[int, Ge(0)] = 4
    images: Annotated[int, Ge(1)] | None = None
    lr: Annotated[float, Gt(0)] = 1e-3
    distil: Annotated[float, Ge(0), Le(1)] = 0.5
    local: Annotated[float, Ge(0), Le(1)] = 0.25

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> JointRecipe:
        """From options by name; raises UsageError for one that there is not, or a value that it cannot have."""
        hints = get_type_hints(cls, include_extras=True)
        for key, value in options.items():
            if key not in hints:
                raise UsageError(f"joint training has no {key!r}{did_you_mean(key, hints)}")
            fits, wanted = judge(hints[key], value)
            if not fits:
                raise UsageError(f"joint training: {key} must be {wanted}, found {value!r}")
        return cls(**options)


@dataclass(frozen=True)
class JointReport:
    """What came of it on the validation split.

    path: of the new bundle.
    codecs: its codecs, of which a training may make several; their `plain_accuracy` is that of the bundle before.
    frozen: accuracy of the final exit behind the first of them, before the network learned.
    exits, before: accuracy of every exit without a codec, in the new bundle and in the one before.
    """

    path: Path
    codecs: tuple[CodecReport, ...]
    frozen: float
    exits: tuple[float, ...]
    before: tuple[float, ...]


def train_joint(
    bundle: Bundle,
    codec_id: str,
    split: int,
    recipe: CodecRecipe,
    joint: JointRecipe,
    *,
    source: str,
    out: Path,
    device: str = "auto",
    command: str = "",
    progress: Progress = lambda done, total: None,
) -> JointReport:
    """Trains the codec at one split, then codec and network together, and writes the bundle that comes of it to `out`.

    Args:
        source: the training images of the bundle; all learning is from these, without the validation split.
        command: the command line, for the model card.

    Raises DataError or UsageError for wrong input, ArtifactError where `out` already holds a bundle.
    """
    codec_id, spec = zoo.canonical(codec_id), spec_of(codec_id, recipe.options)
    check(codec_id, out)
    net = multi_exit.load(bundle).to(pick_device(device)).requires_grad_(False)
    _check_heads(net)
    train_set, validation, _ = data.parted(bundle.spec, source)
    started, before = time.perf_counter(), accuracies(net, validation)
    learned = Training(net, split, spec, recipe, first(train_set, recipe.images), progress).run()

    def tables(of: MultiExitNet) -> Tensors:
        return with_tables(learned, codec_id, at_split(of, validation, split, TABLE_IMAGES))

    def result(of: MultiExitNet, group: Tensors, one: str) -> CodecReport:
        codec = zoo.create(one, shape=_shape(of, split), tensors=group)
        return judged(of, codec, split, validation, before[-1])

    frozen = result(net, tables(net), codec_id).accuracy
    tuned = _Tuning(
        net, learned, split, recipe, joint, first(train_set, joint.images or len(train_set)), progress
    ).run()
    group = tables(tuned)
    reports = tuple(result(tuned, group, one) for one in learned.codec_ids(codec_id))
    report = JointReport(out, reports, frozen, accuracies(tuned, validation), before)
    seconds = time.perf_counter() - started
    _write(tuned, bundle, report, group, _facts(report, bundle, recipe, joint, command, seconds))
    return report


def check(codec_id: str, out: Path) -> None:
    """Raises UsageError for a codec that is not tuned with the network, ArtifactError where `out` holds a bundle."""
    name = codec_id.partition(":")[0]
    if not LEARNED.load(name).joins:
        joining = ", ".join(one for one in LEARNED.names() if LEARNED.load(one).joins)
        raise UsageError(f"--joint: {name} learns from features alone, not from what the network says; give {joining}")
    if (out / "model.json").exists():
        raise ArtifactError(f"{out}: already holds a bundle; choose another --out")


def _check_heads(net: MultiExitNet) -> None:
    """Raises UsageError for heads that learn when to stop: what they would have to learn anew is not learned here."""
    device = next(net.parameters()).device
    with torch.no_grad():
        outputs = net(torch.zeros(1, *net.spec.input_shape, device=device))
    if any(said.shape[1] != net.spec.num_classes for said in outputs):
        raise UsageError(
            "--joint: the bundle has exits that learn when to stop, and joint training knows classes alone"
        )


def _shape(net: MultiExitNet, split: int) -> tuple[int, int, int]:
    channels, height, width = net.spec.shape_at(split)
    return channels, height, width


class _Tuning:
    """Of one codec and the network around it."""

    def __init__(
        self,
        net: MultiExitNet,
        codec: LearnedNet,
        split: int,
        recipe: CodecRecipe,
        joint: JointRecipe,
        images: data.ImageSet,
        progress: Progress,
    ) -> None:
        self.teacher, self.codec, self.split, self.joint, self.progress = net, codec, split, joint, progress
        self.batch, self.seed = recipe.batch, recipe.seed
        if len(images) < self.batch:
            raise UsageError(f"joint training: {len(images)} images are less than one batch of {self.batch}; give more")
        self.device = next(net.parameters()).device
        augment = net.spec.training.get("recipe", {}).get("augment", "none")
        self.batches = Batches(*on_device(images, self.device), augment)
        self.generator = torch.Generator(self.device).manual_seed(recipe.seed)
        self.net = deepcopy(net)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it

    def run(self) -> MultiExitNet:
        """The tuned network, in evaluation mode, as is the codec, which is tuned in place."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            for stage in self.codec.joint_stages():
                self._train(stage)
        return self.net.requires_grad_(False).eval()

    def _train(self, stage: JointStage) -> None:
        parameters = [*stage.parameters, *self._released(stage.head)]
        steps = len(self.batches.labels) // self.batch
        optimiser = torch.optim.Adam(parameters, lr=self.joint.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps * self.joint.epochs))
        self.codec.train()
        self.net.train()
        cross = _Crossing(stage, self.joint.local, self.generator)
        handle = self.net.stages[self.split].register_forward_pre_hook(cross)
        for epoch in range(self.joint.epochs):
            order = torch.randperm(len(self.batches.labels), generator=self.generator, device=self.device)
            for step in range(steps):
                optimiser.zero_grad()
                loss = self._loss(order[step * self.batch : (step + 1) * self.batch]) + cross.price
                loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
                optimiser.step()
                schedule.step()
                self.progress(epoch * steps + step + 1, self.joint.epochs * steps)
            if not math.isfinite(loss.item()):
                raise UsageError(f"joint training: the loss is {loss.item()} in epoch {epoch + 1}; try a lower lr")
        handle.remove()
        self.codec.eval()

    def _released(self, head: bool) -> list[nn.Parameter]:
        """The network's parameters that learn from now on: all, or those behind the split."""
        self.net.requires_grad_(True)
        if not head:
            exits = zip(self.net.heads, self.net.spec.exit_stages, strict=True)
            early = [exit_ for exit_, stage in exits if stage <= self.split]
            for part in (*self.net.stages[: self.split], *early):
                part.requires_grad_(False)
        return [parameter for parameter in self.net.parameters() if parameter.requires_grad]

    def _loss(self, index: Tensor) -> Tensor:
        """The mean cross entropy of every exit, all added up."""
        images, labels = self.batches.draw(index, self.generator)
        target = F.one_hot(labels, self.net.spec.num_classes).float()
        with autocast(self.device, "bf16"):
            outputs = self.net(images)
            if self.joint.distil:
                with torch.no_grad():
                    taught = self.teacher(images)[-1].float().softmax(1)
                target = torch.lerp(target, taught, self.joint.distil)
        losses = [F.cross_entropy(said.float(), target) for said in outputs]
        return torch.stack(losses).sum()


class _Crossing:
    """What stands before the first stage behind the split, so that exits on the device read what was never encoded.

    price: of the last batch.
    """

    def __init__(self, stage: JointStage, local: float, generator: torch.Generator) -> None:
        self.stage, self.local, self.generator = stage, local, generator
        self.price = torch.zeros(())

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        features = inputs[0].float().contiguous()
        with torch.autocast(features.device.type, enabled=False):
            decoded, self.price = self.stage.through(features)
        drawn = torch.rand(len(features), 1, 1, 1, generator=self.generator, device=features.device)
        return torch.where(drawn < self.local, features, decoded)


def _facts(
    report: JointReport, bundle: Bundle, recipe: CodecRecipe, joint: JointRecipe, command: str, seconds: float
) -> dict[str, Any]:
    """What model.json says of the joint training."""
    codec = report.codecs[0]
    return {
        "from": {"name": bundle.spec.name, "weights_sha256": bundle.spec.weights_sha256},
        "command": command,
        "codec": codec.codec_id,
        "split": codec.split,
        "codec_recipe": dataclasses.asdict(recipe),
        "recipe": dataclasses.asdict(joint),
        "seconds": round(seconds, 1),
        "payload_bytes": round(codec.payload_bytes, 1),
        "validation_accuracy": {"frozen": round(report.frozen, 5), "joint": round(codec.accuracy, 5)},
    }


def _write(net: MultiExitNet, origin: Bundle, report: JointReport, group: Tensors, facts: Mapping[str, Any]) -> None:
    """The bundle: network, codecs and model card."""
    training = dict(origin.spec.training) | {"joint": dict(facts)}
    training["validation_accuracy"] = [round(value, 5) for value in report.exits]
    training.pop("test_accuracy", None)
    net.spec = dataclasses.replace(net.spec, name=f"{origin.spec.name}-joint")
    new = multi_exit.save(net, report.path, training)
    pairs = {(codec.split, codec.codec_id): group for codec in report.codecs}
    codecs.write(new, pairs, {f"{codec_id}/s{split}": {"joint": dict(facts)} for split, codec_id in pairs})
    card.write(new)
