"""Training learned codecs on the frozen network: the driver; what is trained is a member of splitexit.models.learned.

A codec is trained through its quantiser, by cross entropy of the final exit behind it and the error of the decoded
features relative to their variance. Its entropy coder's tables, where it has one, are fitted afterwards on the bundle's
validation split, which is what recordings call the calibration split. The network's weights stay what they are.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splitexit import codecs as zoo
from splitexit.bundle import Bundle
from splitexit.calibration import Pair
from splitexit.codecs import Codec, Tensors
from splitexit.codecs._latent import LatentCodec
from splitexit.errors import UsageError
from splitexit.models import codecs, data, multi_exit
from splitexit.models.augment import Batches
from splitexit.models.evaluate import autocast, on_device, pick_device, plain_batches
from splitexit.models.learned import LEARNED, Batch, LearnedNet, Stage
from splitexit.models.multi_exit import MultiExitNet
from splitexit.models.spec import create

Array = np.ndarray[Any, Any]
Progress = Callable[[int, int], None]
"""Told the steps done in a stage, and all of them."""

START_IMAGES = 512
TABLE_IMAGES = 1000
"""How many images are enough for tables: one of a channel then comes of 64,000 values where a map has 8×8."""


@dataclass(frozen=True)
class CodecRecipe:
    """Everything that decides a codec beside its id.

    Args:
        options: of the codec's own training: what its class in splitexit.models.learned takes.
        epochs, batch, images: passes over so many images of the training split, for every stage.
        lr: of Adam, falling to 0 along a cosine in every stage.
        feature_weight: of the relative error of the decoded features, beside the cross entropy.
        seed: of order, augmentation and whatever else is drawn.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 2
    batch: int = 128
    images: int = 20_000
    lr: float = 5e-3
    feature_weight: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class CodecReport:
    """What a codec came to on the validation split: payload, and accuracy of the final exit with and without."""

    codec_id: str
    split: int
    shape: tuple[int, ...]
    payload_bytes: float
    accuracy: float
    plain_accuracy: float


def train_codec(
    bundle: Bundle,
    codec_id: str,
    splits: list[int],
    recipe: CodecRecipe,
    *,
    source: str,
    device: str = "auto",
    progress: Progress = lambda done, total: None,
) -> Iterator[CodecReport]:
    """Trains the codec at every split in turn, writes its weights into the bundle and reports on it.

    Args:
        source: the training images of the bundle; those of the codec and the validation split are taken from them.

    Raises DataError or UsageError for wrong input. What is finished is in the bundle, whatever happens to the rest.
    """
    codec_id, spec = zoo.canonical(codec_id), spec_of(codec_id, recipe.options)
    net = multi_exit.load(bundle).to(pick_device(device)).requires_grad_(False)
    train_set, validation, _ = data.parted(bundle.spec, source)
    images = first(train_set, recipe.images)
    plain = None
    for split in splits:
        if plain is None:
            plain = accuracy_through(net, validation, split, None)
        trained = Training(net, split, spec, recipe, images, progress).run()
        group = with_tables(trained, codec_id, at_split(net, validation, split, TABLE_IMAGES))
        ids = trained.codec_ids(codec_id)
        made = {f"{one}/s{split}": dataclasses.asdict(recipe) for one in ids}
        codecs.write(bundle, codecs.read(bundle) | {(split, one): group for one in ids}, codecs.made(bundle) | made)
        for one in ids:
            yield report(bundle, net, (split, one), validation, plain)


def spec_of(codec_id: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What `LEARNED` builds the codec from: all parameters of its id, and these options of its training.

    Raises InputError for an id that is none, UsageError for a codec that is not trained or a wrong option.
    """
    name, given = zoo.parse(codec_id)
    if name not in LEARNED.names():
        raise UsageError(f"codec {codec_id!r} is neither trained nor fitted; give bottleneck:channels=4 or the like")
    keywords = inspect.signature(zoo.load(codec_id)).parameters.values()
    params = {p.name: p.default for p in keywords if p.default is not inspect.Parameter.empty} | given
    for key in options:
        if key in params:
            raise UsageError(f"{key} is a parameter of the codec: write it into --codec {codec_id}")
    return {"name": name, **params, **options}


class Training:
    """Of one codec at one split."""

    def __init__(
        self,
        net: MultiExitNet,
        split: int,
        spec: Mapping[str, Any],
        recipe: CodecRecipe,
        images: data.ImageSet,
        progress: Progress,
    ) -> None:
        self.net, self.split, self.spec, self.recipe, self.progress = net, split, spec, recipe, progress
        self.device = next(net.parameters()).device
        self.pixels, labels = on_device(images, self.device)
        augment = net.spec.training.get("recipe", {}).get("augment", "none")
        self.batches = Batches(self.pixels, labels, augment)
        self.generator = torch.Generator(self.device).manual_seed(recipe.seed)

    def run(self) -> LearnedNet:
        """The trained codec, in evaluation mode."""
        start = self.pixels[:START_IMAGES].permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            features = self.net.run_stages(start, 0, self.split)
        self.weight = self.recipe.feature_weight / float(features.var())
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.seed)
            codec = create(LEARNED, self.spec, features=features).to(self.device)
            for stage in codec.stages():
                codec.train()
                self._train(stage)
                codec.eval()
        return codec.eval()

    def _train(self, stage: Stage) -> None:
        recipe, parameters = self.recipe, list(stage.parameters)
        steps = len(self.pixels) // recipe.batch
        optimiser = torch.optim.Adam(parameters, lr=recipe.lr * stage.pace)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps * recipe.epochs))
        for epoch in range(recipe.epochs):
            order = torch.randperm(len(self.pixels), generator=self.generator, device=self.device)
            for step in range(steps):
                index = order[step * recipe.batch : (step + 1) * recipe.batch]
                optimiser.zero_grad()
                stage.loss(self._batch(index)).backward()  # type: ignore[no-untyped-call,unused-ignore]
                optimiser.step()
                schedule.step()
                self.progress(epoch * steps + step + 1, recipe.epochs * steps)

    def _batch(self, index: Tensor) -> Batch:
        images, labels = self.batches.draw(index, self.generator)
        with torch.no_grad(), autocast(self.device, "bf16"):
            features = self.net.run_stages(images, 0, self.split).float()
        return Batch(features, labels, self._tail, self.weight, self.generator)

    def _tail(self, features: Tensor) -> Tensor:
        with autocast(self.device, "bf16"):
            end = self.net.run_stages(features, self.split, self.net.spec.num_stages)
            logits = self.net.read_exit(end, self.net.spec.final_exit)
        return logits.float()


def with_tables(trained: LearnedNet, codec_id: str, features: Array) -> Tensors:
    """What a bundle holds of a trained codec; n×C×H×W features are those of the calibration split."""
    channels, height, width = features.shape[1:]
    codec = zoo.create(codec_id, shape=(channels, height, width), tensors=trained.tensors())
    return codec.fitted(features) if isinstance(codec, LatentCodec) and trained.fits_tables else trained.tensors()


def first(images: data.ImageSet, n: int) -> data.ImageSet:
    """The first `n` of them, or all where there are fewer."""
    return images.take(np.arange(min(n, len(images))))


@torch.no_grad()
def at_split(net: MultiExitNet, images: data.ImageSet, split: int, n: int) -> Array:
    """Features of the first `n` images, float32 n×C×H×W."""
    batches = plain_batches(first(images, n), next(net.parameters()).device)
    return torch.cat([net.run_stages(pixels, 0, split).cpu() for pixels, _ in batches]).contiguous().numpy()


def report(bundle: Bundle, net: MultiExitNet, pair: Pair, validation: data.ImageSet, plain: float) -> CodecReport:
    """What the bundle's codec does to the validation split; `plain` is the accuracy without it."""
    return judged(net, codecs.open_codecs(bundle, [pair])[pair], pair[0], validation, plain)


def judged(net: MultiExitNet, codec: Codec, split: int, validation: data.ImageSet, plain: float) -> CodecReport:
    """What a codec at this split does to the validation split; `plain` is the accuracy without it."""
    size = payload_bytes(codec, at_split(net, validation, split, 200))
    accuracy = accuracy_through(net, validation, split, codec)
    return CodecReport(codec.codec_id, split, codec.shape, size, accuracy, plain)


@torch.no_grad()
def accuracy_through(net: MultiExitNet, images: data.ImageSet, split: int, codec: Codec | None) -> float:
    """Accuracy of the final exit, with the features sent through `codec` at the split if there is one."""
    device = next(net.parameters()).device
    right = 0
    for pixels, labels in plain_batches(images, device):
        features = net.run_stages(pixels, 0, split)
        if codec is not None:
            decoded = [codec.decode(codec.encode(one)) for one in features.cpu().contiguous().numpy()]
            features = torch.from_numpy(np.stack(decoded)).to(device)
        end = net.run_stages(features, split, net.spec.num_stages)
        right += int((net.read_exit(end, net.spec.final_exit).argmax(1) == labels).sum())
    return right / len(images)


def payload_bytes(codec: Codec, features: Array) -> float:
    """Mean payload of n×C×H×W features."""
    return float(np.mean([len(codec.encode(one)) for one in features]))
