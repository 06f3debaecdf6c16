"""Multi-Scale DenseNet (Huang et al., ICLR 2018, arXiv 1703.09844)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Gt, Le, MinLen
from torch import Tensor, nn

from splitexit.errors import UsageError
from splitexit.models.backbones import Backbone
from splitexit.models.backbones.resnet import conv_relu
from splitexit.models.backbones.resnet18 import imagenet_stem
from splitexit.models.spec import Count

Scaled = Annotated[Sequence[Count], MinLen(2)]
"""One number for every scale, finest first."""


class MSDNet(Backbone):
    """Layers that hold the features at several scales, each half as wide as the one before; exits read the coarsest.

    Every layer adds channels to every scale: half of them from the scale itself, half from the next finer one; the
    finest has its own only (section 4 of the paper). Layers lie in `depth` blocks, the first of `base`, the others of
    `step`, and an exit may follow each: `--exits 1,2,3,4,5,6` puts one behind each of the first six.

    Args:
        depth: number of blocks; with an exit behind each, the final one included, 7 in the papers' CIFAR networks.
        base, step: layers in the first block and in each of the others.
        channels: of the finest scale in the beginning; on every scale times its factor.
        growth: what a layer adds to the finest scale; on every scale times its factor.
        factors: one for every scale, finest first.
        bottleneck: for every scale, how many times as wide as what it adds the 1×1 convolution in front may be.
        reduction: share of the channels that 1×1 convolutions keep where the finest scale ends.
        stem: `small` keeps the image's size, `imagenet` begins with a quarter of it.

    Layers fall into as many groups of equal length as there are scales, and each group ends the finest scale (pruning
    `max` of the public code). Scales that no exit would read any more end earlier (its pruning `min`); the published
    networks have none. Defaults are the CIFAR-100 network of Han et al. (TNNLS 2023, 10.1109/TNNLS.2023.3282249).

    From block to block goes one tensor, see `pack`; height and width of the finest scale must be multiples of
    2^(scales − 1).
    """

    def __init__(
        self,
        *,
        depth: Count = 7,
        base: Count = 4,
        step: Count = 2,
        channels: Count = 16,
        growth: Count = 6,
        factors: Scaled = (1, 2, 4),
        bottleneck: Scaled = (1, 2, 4),
        reduction: Annotated[float, Gt(0), Le(1)] = 0.5,
        stem: Literal["small", "imagenet"] = "small",
    ) -> None:
        self.depth, self.base, self.step, self.channels, self.growth = depth, base, step, channels, growth
        self.factors, self.bottleneck, self.reduction, self.stem = factors, bottleneck, reduction, stem
        self._check()

    def _check(self) -> None:
        if len(self.factors) != len(self.bottleneck):
            raise UsageError(f"backbone 'msdnet': bottleneck must be as long as factors, found {self.bottleneck!r}")
        if any(self.growth * factor % 2 for factor in self.factors[1:]):
            raise UsageError(
                "backbone 'msdnet': growth must be even, times the factor of every scale but the finest, "
                f"found {self.growth!r}"
            )

    def blocks(self, in_channels: int) -> list[nn.Module]:
        """`depth` modules, B×in_channels×H×W -> packed -> … -> packed; where one scale is left, that is its map."""
        layouts = self._layouts()
        blocks: list[nn.Module] = []
        for start, end in pairwise([0, *self._ends()]):
            first = layouts[start]
            entry = Unpack(self._widths(first.channels, first.finest)) if start else self._scales(in_channels)
            blocks.append(Block(entry, [self._layer(layout) for layout in layouts[start:end]]))
        return blocks

    def head_channels(self, number: int) -> int:
        """Channels of the coarsest scale behind `number` blocks."""
        last = self._layouts()[self._ends()[number - 1] - 1]
        return last.channels_out * self.factors[-1]

    def _ends(self) -> list[int]:
        """For every block, the number of layers up to its end."""
        return list(accumulate([self.base] + [self.step] * (self.depth - 1)))

    def _layouts(self) -> list[_Layout]:
        """What goes into every layer and what comes out."""
        total, scales = self._ends()[-1], len(self.factors)
        group = math.ceil(total / scales)
        channels, finest = self.channels, 0
        layouts = []
        for index in range(total):
            finest_out = max(index // group, scales - (total - index))
            grown = channels + self.growth
            out = max(1, math.floor(self.reduction * grown)) if finest_out > finest else grown
            layouts.append(_Layout(channels, out, finest, finest_out))
            channels, finest = out, finest_out
        return layouts

    def _widths(self, channels: int, finest: int) -> list[int]:
        """Channels of every scale from `finest` on."""
        return [channels * factor for factor in self.factors[finest:]]

    def _scales(self, in_channels: int) -> Scales:
        widths = self._widths(self.channels, 0)
        stem = imagenet_stem(in_channels, widths[0]) if self.stem == "imagenet" else conv_relu(in_channels, widths[0])
        return Scales([stem, *(conv_relu(a, b, stride=2) for a, b in pairwise(widths))])

    def _layer(self, layout: _Layout) -> Layer:
        scales = range(layout.finest_out, len(self.factors))
        grow = [self._grow(layout.channels, scale, alone=scale == layout.finest) for scale in scales]
        if layout.finest == layout.finest_out:
            return Layer(grow, [nn.Identity() for _ in scales])
        grown = self._widths(layout.channels + self.growth, layout.finest_out)
        kept = self._widths(layout.channels_out, layout.finest_out)
        return Layer(grow, [conv_relu(a, b, kernel=1) for a, b in zip(grown, kept, strict=True)])

    def _grow(self, channels: int, scale: int, *, alone: bool) -> Grow:
        """What adds channels to one scale; `alone` where no finer one goes into the layer."""
        added = self.growth * self.factors[scale]
        same = channels * self.factors[scale]
        if alone:
            return Grow(_narrowed(same, added, self.bottleneck[scale]))
        finer = _narrowed(channels * self.factors[scale - 1], added // 2, self.bottleneck[scale - 1], stride=2)
        return Grow(_narrowed(same, added // 2, self.bottleneck[scale]), finer)


@dataclass(frozen=True)
class _Layout:
    """Of a layer: channels before factors, and the finest scale (0 at most), going in and coming out."""

    channels: int
    channels_out: int
    finest: int
    finest_out: int


class Scales(nn.Module):
    """The first layer: B×C×H×W -> one map for every scale, finest first, each made from the one before.

    Raises UsageError where height and width of the finest cannot be halved often enough.
    """

    def __init__(self, steps: Sequence[nn.Module]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps; see the class."""
        maps = []
        for step in self.steps:
            x = step(x)
            maps.append(x)
        height, width = maps[0].shape[-2:]
        multiple = 2 ** (len(maps) - 1)
        if height % multiple or width % multiple:
            raise UsageError(
                f"backbone 'msdnet': {len(maps)} scales need maps whose height and width are multiples of {multiple}, "
                f"found {height}×{width}; try --resize or fewer factors"
            )
        return maps


class Unpack(nn.Module):
    """What `unpack` does, for maps of these channels, finest first."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = tuple(channels)

    def forward(self, features: Tensor) -> list[Tensor]:
        """The maps; see the class."""
        return unpack(features, self.channels)


class Block(nn.Module):
    """Layers between two places for an exit: one tensor -> maps (`entry`) -> layers -> one tensor, packed."""

    def __init__(self, entry: nn.Module, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.entry, self.layers = entry, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """One block; see the class."""
        maps: list[Tensor] = self.entry(x)
        for layer in self.layers:
            maps = layer(maps)
        return pack(maps)


class Layer(nn.Module):
    """One layer: maps, finest first -> as many, or one less, the finest; each with channels added, then reduced."""

    def __init__(self, grow: Sequence[Grow], reduce: Sequence[nn.Module]) -> None:
        super().__init__()
        self.grow, self.reduce = nn.ModuleList(grow), nn.ModuleList(reduce)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """One layer; see the class."""
        kept = maps[-len(self.grow) :]
        finer = [None, *maps][-len(kept) - 1 : -1]
        return [
            reduce(grow(same, fine))
            for grow, reduce, same, fine in zip(self.grow, self.reduce, kept, finer, strict=True)
        ]


class Grow(nn.Module):
    """A scale's map with what is added to it from itself and from the next finer one: B×C×H×W -> B×(C+added)×H×W."""

    def __init__(self, same: nn.Module, finer: nn.Module | None = None) -> None:
        super().__init__()
        self.same, self.finer = same, finer

    def forward(self, same: Tensor, finer: Tensor | None) -> Tensor:
        """`finer` is B×C'×2H×2W; see the class."""
        below = [] if self.finer is None else [self.finer(finer)]
        return torch.cat([same, *below, self.same(same)], dim=1)


def pack(maps: Sequence[Tensor]) -> Tensor:
    """Maps of several scales as one of the coarsest scale's size, exactly; the last channels are the coarsest scale.

    A map 2^k times as wide and high becomes 4^k maps, one for every place in a square of 2^k×2^k. So what is sent at
    a split, and what heads and codecs see, still has channels, height and width.
    """
    height = maps[-1].shape[-2]
    return torch.cat([F.pixel_unshuffle(m, m.shape[-2] // height) for m in maps], dim=1)


def unpack(features: Tensor, channels: Sequence[int]) -> list[Tensor]:
    """The inverse of `pack` for maps of these channels, finest first."""
    sizes = [2**k for k in reversed(range(len(channels)))]
    parts = torch.split(features, [c * size**2 for c, size in zip(channels, sizes, strict=True)], dim=1)
    return [F.pixel_shuffle(part, size) for part, size in zip(parts, sizes, strict=True)]


def _narrowed(channels: int, out: int, factor: int, stride: int = 1) -> nn.Sequential:
    """conv-BN-ReLU of 3×3 behind one of 1×1, which leaves `factor` times as many channels as come out at most."""
    inner = min(channels, factor * out)
    return nn.Sequential(*conv_relu(channels, inner, kernel=1), *conv_relu(inner, out, stride=stride))
