"""A backbone cut into stages, with exit heads behind some of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from splitexit.bundle import Bundle, Exit, ModelSpec, Stage, file_sha256
from splitexit.errors import ArtifactError, UsageError
from splitexit.models.backbones import BACKBONES, Backbone
from splitexit.models.exits import HEADS, Additive, Initialised, LinearHead
from splitexit.models.macs import Cost, measure
from splitexit.models.objectives import at_least_single
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
        """What every exit says: B×C×H×W pixels in [0, 1] -> E tensors B×K. Runs everything: for training.

        These are class logits. A head that learns when to stop has one column more, B×(K+1): the logit of its
        confidence, before the sigmoid. The final head never has, so K is the width of the last output.

        Args:
            coupling: share of the early heads' gradient that goes on into the backbone; the heads' own is whole.
        """
        logits: list[Tensor] = []
        features, done = images, 0
        for exit_, stage in enumerate(self.spec.exit_stages):
            features = self.run_stages(features, done, stage)
            early = exit_ < self.spec.final_exit
            said = self.read_exit(_scale_gradient(features, coupling) if early else features, exit_)
            if self.spec.exits[exit_].additive:
                said = at_least_single(said) + at_least_single(logits[-1])
            logits.append(said)
            done = stage
        return logits

    def run_stages(self, features: Tensor, first: int, last: int) -> Tensor:
        """Stages first+1..last: what is there after `first` stages -> what is there after `last`."""
        for stage in self.stages[first:last]:
            features = stage(features)
        return features

    def read_exit(self, features: Tensor, exit_: int, classes: Tensor | None = None) -> Tensor:
        """Output of one exit's head from what its stage put out: B×K, or B×(K+1); see `forward`.

        Of an additive exit that is what it adds to the one before it.

        Args:
            classes: numbers of the n classes that are asked for: B×n. A head that ends in one linear layer computes
                no others (tail pruning for class exclusion, arXiv 2309.13443).
        """
        seen, head = _opened(self.heads[exit_], features)
        if classes is None:
            logits: Tensor = head(seen)
            return logits
        few: Tensor = head(seen, classes) if isinstance(head, LinearHead) else head(seen)[:, classes]
        return few

    @torch.no_grad()
    def initialise(self, images: Tensor) -> None:
        """Lets heads that begin from what they will read do so: once, before a training starts.

        Stages run as they will in the training, on a copy, so that no batch norm counts these B×C×H×W pixels.
        """
        if not any(isinstance(_member(head), Initialised) for head in self.heads):
            return
        stages, features, done = deepcopy(self.stages), images, 0
        for head, stage in zip(self.heads, self.spec.exit_stages, strict=True):
            for part in stages[done:stage]:
                features = part(features)
            seen, inner = _opened(head, features)
            if isinstance(inner, Initialised):
                inner.initialise(seen)
            done = stage

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
        """For every exit, the cost up to it, relative to the exit-free network; the last is 1.

        Of the heads, its own counts, and those that it adds to.
        """
        exits, spent = self.spec.exits, list(accumulate(stage.macs for stage in self.spec.stages))
        heads = [sum(exits[read].macs for read in self.spec.evidence(exit_)) for exit_ in range(len(exits))]
        return tuple((spent[e.stage - 1] + macs) / self.spec.macs for e, macs in zip(exits, heads, strict=True))


def _opened(head: nn.Module, features: Tensor) -> tuple[Tensor, nn.Module]:
    """What the member of the head zoo sees, and that member: see `_head`."""
    member = _member(head)
    return features if member is head else head.get_submodule("0")(features), member


def _member(head: nn.Module) -> nn.Module:
    narrowed = isinstance(head, nn.Sequential) and isinstance(head[0], LastChannels)
    return head.get_submodule("1") if narrowed else head


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
        _tie(heads[:-1])
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


def _tie(early: Sequence[nn.Module]) -> None:
    """Makes early heads that add to one another do so."""
    for before, after in pairwise(map(_member, early)):
        if isinstance(after, Additive):
            after.follow(before)


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
    adds = [isinstance(_member(head), Additive) for head in heads[1:-1]]
    exits[1:-1] = [replace(exit_, additive=it) for exit_, it in zip(exits[1:-1], adds, strict=True)]
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
    _tie(heads[:-1])
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
    partial = folder / "model.safetensors.partial"
    save_model(net, str(partial))  # a tensor that heads share is written once
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
        load_model(net, bundle.weights)
    except (SafetensorError, KeyError, RuntimeError) as error:
        why = " ".join(str(error).split())[:160]
        raise ArtifactError(f"{bundle.weights}: does not fit model.json: {why}") from error
    return net.eval()
