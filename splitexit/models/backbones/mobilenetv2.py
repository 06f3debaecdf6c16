"""MobileNetV2 (Sandler et al., CVPR 2018, arXiv 1801.04381, table 2)."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le
from torch import Tensor, nn

from splitexit.models.backbones import Backbone

GROUPS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Table 2: expansion t, channels c, blocks n, stride s of the first."""
STEM, LAST = 32, 1280
"""Channels of the first and of the last convolution."""


class MobileNetV2(Backbone):
    """A 3×3 convolution, 17 inverted residual blocks, and a 1×1 convolution to 1280 channels; ReLU6 throughout.

    Args:
        width: factor on the channels, rounded to multiples of 8; the last convolution only grows (section 6.1).
        stem: `imagenet` is the paper's network, which makes maps 32 times smaller; `small` leaves out the strides of
            the stem and of the second group, so that 32×32 images end in maps of 4×4. The paper has no network for
            small images; this is what is usual on CIFAR.

    No exit goes behind the stem.
    """

    first_exit = 2

    def __init__(
        self, *, width: Annotated[float, Ge(0.1), Le(4)] = 1.0, stem: Literal["small", "imagenet"] = "small"
    ) -> None:
        self.width, self.stem = width, stem

    def blocks(self, in_channels: int) -> list[nn.Module]:
        """The stem, 17 inverted residual blocks and the last convolution."""
        small = self.stem == "small"
        channels = _rounded(self.width * STEM)
        blocks: list[nn.Module] = [_conv(in_channels, channels, 3, stride=1 if small else 2)]
        for group, (expansion, wide, count, stride) in enumerate(GROUPS):
            out = _rounded(self.width * wide)
            for index in range(count):
                halve = stride == 2 and not index and not (small and group == 1)
                blocks.append(InvertedResidual(channels, out, expansion, stride=2 if halve else 1))
                channels = out
        return [*blocks, _conv(channels, _rounded(LAST * max(1.0, self.width)), 1)]


class InvertedResidual(nn.Module):
    """Widen (1×1), filter every channel (3×3), narrow without activation (1×1): B×C×H×W -> B×C'×⌈H/stride⌉×⌈W/stride⌉.

    The input is added where the shape stays. Without expansion there is nothing to widen (the authors' code).
    """

    def __init__(self, channels: int, out: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = expansion * channels
        self.residual = nn.Sequential(
            _conv(channels, wide, 1) if expansion > 1 else nn.Identity(),
            _conv(wide, wide, 3, stride=stride, groups=wide),
            _conv(wide, out, 1)[:2],
        )
        self.adds = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        """One block; see the class."""
        y: Tensor = self.residual(x)
        return x + y if self.adds else y


def _conv(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """conv-BN-ReLU6, initialised for ReLU (arXiv 1502.01852) by the fan-in, as torch's fan-out forgets the groups."""
    layer = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
    return nn.Sequential(layer, nn.BatchNorm2d(out), nn.ReLU6())


def _rounded(channels: float) -> int:
    """To the next multiple of 8, but by no more than a tenth down (the authors' code)."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near if near >= 0.9 * channels else near + 8
