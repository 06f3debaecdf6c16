"""A backbone cut into stages, with exit heads behind some of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from splitexit.bundle import Bundle, Exit, ModelSpec, Stage, file_sha256
from splitexit.errors import ArtifactError, UsageError
from splitexit.models.backbones import BACKBONES, Backbone
from splitexit.models.exits import HEADS
from splitexit.models.macs import Cost, measure
from splitexit.models.placement import SDN_SHARES, place
from splitexit.models.spec import Spec, create

Shape = tuple[int, ...]

FINAL: Spec = {"name": "pooled"}
"""The final classifier where nothing else is asked for: that of the ResNets."""


@dataclass(frozen=True)
class NetConfig:
    """What a network is built from.

    Args:
        backbone: a spec of the backbone zoo.
        input_shape: C×H×W.
        num_classes: K.
        shares: where the early exits go, as shares of the exit-free network's cost; empty = no early exit.
        head: a spec of the head zoo, used for every early exit.
        final: a spec of the head zoo, for the final classifier; with or without early exits the same. It puts out class
            logits alone, so no head that learns when to stop.
        cuts: a stage ends behind every block that carries an exit (`exits`), or behind every block (`blocks`).
        mean, std: of the pixels in [0, 1], one for every channel.
        class_names: in label order.
        name: how the bundle is called.
    """

    backbone: Spec
    input_shape: Shape
    num_classes: int
    shares: tuple[float, ...] = SDN_SHARES
    head: Spec = field(default_factory=lambda: {"name": "pooled"})
    final: Spec = field(default_factory=lambda: dict(FINAL))
    cuts: str = "exits"
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    class_names: tuple[str, ...] = ()
    name: str = "multi-exit"


class Normalise(nn.Module):
    """(x − mean) / std for every channel: B×C×H×W -> B×C×H×W; both are buffers, so they travel with the weights."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Pixels in [0, 1] to numbers around 0."""
        return (x - self.mean) / self.std


class LastChannels(nn.Module):
    """The last channels of a map, which are what heads read of a backbone of several scales: B×C×H×W -> B×c×H×W."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, features: Tensor) -> Tensor:
        """Those channels."""
        return features[:, -self.channels :]


class MultiExitNet(nn.Module):
    """S stages that run in order, and E heads, of which head e reads what stage `exit_stages[e]` puts out.

    The last head is the final classifier, behind stage S. `spec` describes the network without its weights.
    """

    def __init__(self, stages: Sequence[nn.Module], heads: Sequence[nn.Module], spec: ModelSpec) -> None:
        super().__init__()
        self.stages, self.heads, self.spec = nn.ModuleList(stages), nn.ModuleList(heads), spec

    def forward(self, images: Tensor, coupling: float = 1.0) -> list[Tensor]:
        """Output of every exit: B×C×H×W pixels in [0, 1] -> E tensors B×K. Runs everything: for training.

        Outputs are class logits. A head that learns when to stop has one column more, B×(K+1): the logit of its
        confidence, before the sigmoid. The final head never has, so K is the width of the last output.

        Args:
            coupling: share of the early heads' gradient that goes on into the backbone; the heads' own is whole.
        """
        logits, features, done = [], images, 0
        for exit_, stage in enumerate(self.spec.exit_stages):
            features = self.run_stages(features, done, stage)
            early = exit_ < self.spec.final_exit
            logits.append(self.read_exit(_scale_gradient(features, coupling) if early else features, exit_))
            done = stage
        return logits

    def run_stages(self, features: Tensor, first: int, last: int) -> Tensor:
        """Stages first+1..last: what is there after `first` stages -> what is there after `last`."""
        for stage in self.stages[first:last]:
            features = stage(features)
        return features

    def read_exit(self, features: Tensor, exit_: int) -> Tensor:
        """Output of one exit from what its stage put out: B×K, or B×(K+1); see `forward`."""
        logits: Tensor = self.heads[exit_](features)
        return logits

    def freeze_backbone(self) -> None:
        """Stages and the final head keep their weights from now on; only the early heads can still be trained."""
        for part in (self.stages, self.heads[-1]):
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> MultiExitNet:
        """As of any module; what is frozen stays in evaluation mode, or its batch norm would go on."""
        super().train(mode)
        for part in (*self.stages, *self.heads):
            if mode and not any(p.requires_grad for p in part.parameters()):
                part.eval()
        return self

    def relative_costs(self) -> tuple[float, ...]:
        """For every exit, the cost up to it and of its own head, relative to the exit-free network; the last is 1."""
        spent = list(accumulate(stage.macs for stage in self.spec.stages))
        return tuple((spent[e.stage - 1] + e.macs) / self.spec.macs for e in self.spec.exits)


def _scale_gradient(features: Tensor, factor: float) -> Tensor:
    """The same values; a gradient is multiplied by `factor` on its way back."""
    if factor == 1.0:
        return features
    held = features.detach()
    return held + factor * (features - held)


def build(config: NetConfig, seed: int = 0) -> MultiExitNet:
    """A new network with random weights drawn from `seed`; raises UsageError where the exits do not fit."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = create(BACKBONES, config.backbone)
        blocks = backbone.blocks(config.input_shape[0])
        costs = _block_costs(blocks, config.input_shape)

        def head(spec: Spec, number: int) -> nn.Module:
            return _head(backbone, spec, number, costs[number - 1].output_shape, config.num_classes)

        final = head(config.final, len(blocks))
        macs = [cost.macs for cost in costs]
        total = sum(macs) + _final_cost(final, costs[-1].output_shape, config).macs
        places = place(config.shares, macs, total, backbone.first_exit)
        heads = [*(head(config.head, number) for number in places), final]
        return _assemble(config, blocks, costs, [*places, len(blocks)], heads)


def _block_costs(blocks: Sequence[nn.Module], shape: Shape) -> list[Cost]:
    costs = []
    for block in blocks:
        costs.append(measure(block, shape))
        shape = costs[-1].output_shape
    return costs


def _head(backbone: Backbone, spec: Spec, number: int, shape: Shape, num_classes: int) -> nn.Module:
    """The head behind `number` blocks, which put out `shape`."""
    channels = backbone.head_channels(number) or shape[0]
    head = create(HEADS, spec, shape=(channels, *shape[1:]), num_classes=num_classes)
    return head if channels == shape[0] else nn.Sequential(LastChannels(channels), head)


def _final_cost(final: nn.Module, shape: Shape, config: NetConfig) -> Cost:
    """Raises UsageError where the head puts out anything but the logits of all classes."""
    cost = measure(final, shape)
    if cost.output_shape[0] != config.num_classes:
        raise UsageError(
            f"final: {config.final['name']!r} learns when to stop, and nothing comes behind the final exit"
        )
    return cost


def _assemble(
    config: NetConfig,
    blocks: Sequence[nn.Module],
    costs: Sequence[Cost],
    places: Sequence[int],
    heads: Sequence[nn.Module],
) -> MultiExitNet:
    """Groups blocks into stages; `places` holds for every exit the number of blocks before it."""
    if config.cuts not in ("exits", "blocks"):
        raise UsageError(f"cuts: expected exits or blocks, found {config.cuts!r}")
    cuts = list(places) if config.cuts == "exits" else list(range(1, len(blocks) + 1))
    bounds = list(pairwise([0, *cuts]))
    stages = [nn.Sequential(*blocks[a:b]) for a, b in bounds]
    stages[0].insert(0, Normalise(config.mean, config.std))
    specs = [config.head] * (len(heads) - 1) + [config.final]
    exits = [_exit(cuts.index(p) + 1, head, costs[p - 1], of) for p, head, of in zip(places, heads, specs, strict=True)]
    spec = ModelSpec(
        name=config.name,
        backbone={**config.backbone, "cuts": cuts},
        input_shape=config.input_shape,
        num_classes=config.num_classes,
        class_names=config.class_names,
        stages=tuple(_stage(costs[a:b]) for a, b in bounds),
        exits=tuple(exits),
    )
    return MultiExitNet(stages, heads, spec)


def _stage(costs: Sequence[Cost]) -> Stage:
    return Stage(sum(c.macs for c in costs), sum(c.layers for c in costs), costs[-1].output_shape)


def _exit(stage: int, head: nn.Module, before: Cost, spec: Spec) -> Exit:
    cost = measure(head, before.output_shape)
    return Exit(stage, cost.macs, cost.layers, dict(spec))


def from_spec(spec: ModelSpec) -> MultiExitNet:
    """The network that a model description describes, its weights still random."""
    described: dict[str, Any] = dict(spec.backbone)
    cuts = [0, *described.pop("cuts")]
    backbone = create(BACKBONES, described)
    blocks = backbone.blocks(spec.input_shape[0])
    stages = [nn.Sequential(*blocks[a:b]) for a, b in pairwise(cuts)]
    channels = spec.input_shape[0]
    stages[0].insert(0, Normalise([0.5] * channels, [0.25] * channels))
    heads = [_head(backbone, e.head, cuts[e.stage], spec.shape_at(e.stage), spec.num_classes) for e in spec.exits]
    return MultiExitNet(stages, heads, spec)


def start_from(net: MultiExitNet, bundle: Bundle) -> None:
    """Gives backbone and final head the weights of a trained network, wherever either is cut and leaves early.

    Raises ArtifactError where the bundle has another backbone, input or number of classes.
    """
    other = load(bundle)
    ours, theirs = ([*chain(*n.stages), n.heads[-1]] for n in (net, other))
    try:
        for mine, trained in zip(ours, theirs, strict=True):
            mine.load_state_dict(trained.state_dict())
    except (RuntimeError, ValueError):
        raise ArtifactError(
            f"{bundle.path}: its backbone, {dict(bundle.spec.backbone)}, or its final head is not the one to be "
            "trained; start from a network of the same backbone, final head, image size and classes"
        ) from None


def save(net: MultiExitNet, folder: Path, training: Mapping[str, Any]) -> Bundle:
    """Writes model.safetensors and model.json, each through a temporary name."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    partial = folder / "model.safetensors.partial"
    partial.write_bytes(to_bytes(state))
    partial.replace(folder / "model.safetensors")
    digest = file_sha256(folder / "model.safetensors")
    spec = replace(net.spec, training=dict(training), weights_sha256=digest)
    partial = folder / "model.json.partial"
    partial.write_text(json.dumps(spec.to_json(), indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / "model.json")
    return Bundle.open(folder)


def load(bundle: Bundle) -> MultiExitNet:
    """The trained network in evaluation mode; raises ArtifactError where weights and description do not fit."""
    bundle.check_weights()
    try:
        net = from_spec(bundle.spec)
        net.load_state_dict(load_file(bundle.weights))
    except (SafetensorError, KeyError, RuntimeError) as error:
        why = " ".join(str(error).split())[:160]
        raise ArtifactError(f"{bundle.weights}: does not fit model.json: {why}") from error
    return net.eval()
