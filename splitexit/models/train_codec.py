"""Training the learned bottleneck of one split on the frozen network (codecs/bottleneck.py is the inference).

It starts from the principal components of the features, which is the best linear reduction, and is then trained
through the quantiser by a straight-through gradient (Bengio et al., arXiv 1308.3432): cross entropy of the final
exit behind it, plus the error of the decoded features relative to their variance. The range of the quantiser is
set once, at the start, so that payloads need not carry it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitexit.bundle import Bundle
from splitexit.calibration import Pair
from splitexit.codecs import canonical, parse
from splitexit.errors import UsageError
from splitexit.models import codecs, data, multi_exit
from splitexit.models.augment import Batches
from splitexit.models.evaluate import autocast, on_device, pick_device
from splitexit.models.multi_exit import MultiExitNet

Array = np.ndarray[Any, Any]
START_IMAGES = 512
TAIL = 5e-4


@dataclass(frozen=True)
class CodecRecipe:
    """Everything that decides a bottleneck.

    Args:
        channels: sent for every position; a number that the codec id holds too.
        levels: how many of the 256 levels the values at the start span; fewer make smaller payloads, because
            zstd packs what does not occur.
        epochs, batch, images: passes over so many images of the training split.
        lr: of Adam, falling to 0 along a cosine.
        feature_weight: of the relative error of the decoded features, beside the cross entropy.
        seed: of order and augmentation.
    """

    channels: int
    levels: int = 16
    epochs: int = 2
    batch: int = 128
    images: int = 20_000
    lr: float = 5e-3
    feature_weight: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= 256:
            raise UsageError(f"levels: expected 2 to 256, found {self.levels}")


@dataclass(frozen=True)
class CodecReport:
    """What a codec came to on the validation split: payload, and accuracy of the final exit with and without."""

    split: int
    shape: tuple[int, ...]
    payload_bytes: float
    accuracy: float
    plain_accuracy: float


class BottleneckNet(nn.Module):
    """The codec as it is trained: B×C×H×W -> the same, through `channels` quantised channels."""

    def __init__(self, features: Tensor, channels: int, levels: int) -> None:
        """Starts at the principal components of `features` (B×C×H×W)."""
        super().__init__()
        mean, basis = _principal(features, channels)
        self.encoder = nn.Conv2d(features.shape[1], channels, 1)
        self.decoder = nn.Conv2d(channels, features.shape[1], 1)
        with torch.no_grad():
            self.encoder.weight.copy_(basis.T[:, :, None, None])
            self.encoder.bias.copy_(-(basis.T @ mean))  # type: ignore[union-attr]
            self.decoder.weight.copy_(basis[:, :, None, None])
            self.decoder.bias.copy_(mean)  # type: ignore[union-attr]
            low, high = _range(self.encoder(features), levels)
        self.low, self.high = low, high

    def forward(self, features: Tensor) -> Tensor:
        """Decoded features; the gradient passes the rounding unchanged."""
        z = self.encoder(features)
        step = (self.high - self.low) / 255
        level = ((z - self.low) / step).clamp(0, 255)
        level = level + (level.round() - level).detach()
        return F.relu(self.decoder(level * step + self.low))

    def tensors(self) -> dict[str, Array]:
        """As the codec reads them; codecs/bottleneck.py says what they are."""
        parameters = {name: value.detach().cpu().float().numpy() for name, value in self.named_parameters()}
        flat = {name: value.reshape(value.shape[:2]) for name, value in parameters.items()}
        return {**flat, "low": np.array(self.low, np.float32), "high": np.array(self.high, np.float32)}


def _principal(features: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Mean (C,) and the first principal directions (C, channels) of the features at all positions."""
    rows = features.transpose(0, 1).flatten(1).double()
    mean = rows.mean(1)
    centred = rows - mean[:, None]
    _, vectors = torch.linalg.eigh(centred @ centred.T / rows.shape[1])
    basis = vectors.flip(1)[:, :channels]
    # An eigenvector has no sign of its own; fixing it makes the start the same everywhere.
    signs = basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()
    return mean.float(), (basis * signs).float()


def _range(z: Tensor, levels: int) -> tuple[float, float]:
    """low and high such that nearly all values of z span `levels` of the 256 levels."""
    low, high = (float(v) for v in np.quantile(z.cpu().numpy(), [TAIL, 1 - TAIL]))
    middle, half = (low + high) / 2, max(high - low, 1e-6) / 2 * 255 / (levels - 1)
    return middle - half, middle + half


def train_codec(
    bundle: Bundle, codec_id: str, splits: list[int], recipe: CodecRecipe, *, source: str, device: str = "auto"
) -> Iterator[CodecReport]:
    """Trains the bottleneck of every split in turn, writes its weights into the bundle and reports on it.

    Args:
        source: the training images of the bundle; bottleneck and validation split are taken from them.

    Raises DataError or UsageError for wrong input. What is finished is in the bundle, whatever happens to the rest.
    """
    net = multi_exit.load(bundle).to(pick_device(device)).requires_grad_(False)
    train_set, validation, _ = data.parted(bundle.spec, source)
    plain = None
    for split in splits:
        bottleneck = _fit(net, split, recipe, train_set.take(np.arange(min(recipe.images, len(train_set)))))
        if plain is None:
            plain = accuracy_through(net, validation, split, None)
        tensors = codecs.read(bundle) | {(split, codec_id): bottleneck.tensors()}
        made = codecs.made(bundle) | {f"{codec_id}/s{split}": dataclasses.asdict(recipe)}
        codecs.write(bundle, tensors, made)
        size = payload_bytes(bundle, net, (split, codec_id), validation)
        accuracy = accuracy_through(net, validation, split, bottleneck)
        yield CodecReport(split, bundle.spec.shape_at(split), size, accuracy, plain)


def _fit(net: MultiExitNet, split: int, recipe: CodecRecipe, images: data.ImageSet) -> BottleneckNet:
    device = next(net.parameters()).device
    pixels, labels = on_device(images, device)
    start = pixels[:START_IMAGES].permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        features = net.run_stages(start, 0, split)
    bottleneck = BottleneckNet(features, recipe.channels, recipe.levels).to(device)
    batches = Batches(pixels, labels, net.spec.training.get("recipe", {}).get("augment", "none"))
    generator = torch.Generator(device).manual_seed(recipe.seed)
    steps = len(images) // recipe.batch
    optimiser = torch.optim.Adam(bottleneck.parameters(), lr=recipe.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps * recipe.epochs))
    variance = float(features.var())
    for _ in range(recipe.epochs):
        order = torch.randperm(len(images), generator=generator, device=device)
        for step in range(steps):
            index = order[step * recipe.batch : (step + 1) * recipe.batch]
            optimiser.zero_grad()
            loss = _loss(net, split, bottleneck, batches.draw(index, generator), recipe.feature_weight / variance)
            loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
            optimiser.step()
            schedule.step()
    return bottleneck


def _loss(
    net: MultiExitNet, split: int, bottleneck: BottleneckNet, batch: tuple[Tensor, Tensor], weight: float
) -> Tensor:
    images, labels = batch
    with torch.no_grad(), autocast(images.device, "bf16"):
        features = net.run_stages(images, 0, split).float()
    decoded = bottleneck(features)
    with autocast(images.device, "bf16"):
        end = net.run_stages(decoded, split, net.spec.num_stages)
        logits = net.read_exit(end, net.spec.final_exit)
    return F.cross_entropy(logits.float(), labels) + weight * F.mse_loss(decoded, features)


@torch.no_grad()
def accuracy_through(
    net: MultiExitNet, images: data.ImageSet, split: int, codec: Callable[[Tensor], Tensor] | None
) -> float:
    """Accuracy of the final exit, with `codec` (B×C×H×W to the same) applied at the split if there is one."""
    device = next(net.parameters()).device
    right = 0
    for start in range(0, len(images), 500):
        pixels = torch.from_numpy(images.images[start : start + 500]).to(device)
        features = net.run_stages(pixels.permute(0, 3, 1, 2).float() / 255, 0, split)
        end = net.run_stages(codec(features) if codec else features, split, net.spec.num_stages)
        predictions = net.read_exit(end, net.spec.final_exit).argmax(1).cpu().numpy()
        right += int((predictions == images.labels[start : start + 500]).sum())
    return right / len(images)


@torch.no_grad()
def payload_bytes(bundle: Bundle, net: MultiExitNet, pair: Pair, images: data.ImageSet, n: int = 200) -> float:
    """Mean payload of the first `n` images, by the codec itself."""
    codec = codecs.open_codecs(bundle, [pair])[pair]
    device = next(net.parameters()).device
    pixels = torch.from_numpy(images.images[:n]).to(device).permute(0, 3, 1, 2).float() / 255
    features = net.run_stages(pixels, 0, pair[0]).cpu().contiguous().numpy()
    return float(np.mean([len(codec.encode(one)) for one in features]))


def recipe_for(codec_id: str, **options: Any) -> tuple[str, CodecRecipe]:
    """The canonical codec id and its recipe; raises UsageError for a codec that is not a bottleneck."""
    name, params = parse(codec_id)
    if name != "bottleneck":
        raise UsageError(f"codec {codec_id!r} is neither trained nor fitted; give bottleneck:channels=4 or the like")
    return canonical(codec_id), CodecRecipe(channels=params["channels"], **options)
