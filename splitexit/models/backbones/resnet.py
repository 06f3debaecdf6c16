"""The 6n+2 residual networks for small images (He et al., CVPR 2016, arXiv 1512.03385, section 4.2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from splitexit.errors import UsageError
from splitexit.models.backbones import Backbone
from splitexit.models.spec import Count


class ResNet(Backbone):
    """Stem of 3×3, then three groups of n residual blocks with `width`, 2·`width` and 4·`width` channels.

    Args:
        depth: 6n+2, counting convolutions and the classifier: 20, 32, 44, 56, 110.
        width: channels of the first group; 16 in the paper.

    The shortcut that changes shape is a 1×1 convolution with batch normalisation (the paper's option B).
    """

    def __init__(self, *, depth: int = 32, width: Count = 16) -> None:
        if depth < 8 or depth % 6 != 2:
            raise UsageError(f"backbone 'resnet': depth must be 6n+2 (20, 32, 44, 56, 110), found {depth!r}")
        self.depth, self.width = depth, width

    def blocks(self, in_channels: int) -> list[nn.Module]:
        """The stem and 3n residual blocks; maps halve at the start of the second and third group."""
        return [conv_relu(in_channels, self.width), *residual_groups(self.width, [(self.depth - 2) // 6] * 3)]


class ResidualBlock(nn.Module):
    """conv-BN-ReLU-conv-BN plus shortcut, then ReLU: B×C×H×W -> B×C'×⌈H/stride⌉×⌈W/stride⌉."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, out, 3, stride)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = conv(out, out, 3)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Identity() if channels == out and stride == 1 else _projection(channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """One block; see the class."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def residual_groups(width: int, lengths: list[int]) -> list[nn.Module]:
    """Groups of so many residual blocks; from the second on, each halves the maps and doubles the channels.

    The first group has `width` channels and reads as many.
    """
    channels = width
    blocks: list[nn.Module] = []
    for group, length in enumerate(lengths):
        for index in range(length):
            out = width * 2**group
            blocks.append(ResidualBlock(channels, out, stride=2 if group and not index else 1))
            channels = out
    return blocks


def conv(channels: int, out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the map's size but for the stride, initialised for ReLU.

    He et al., "Delving Deep into Rectifiers", ICCV 2015, arXiv 1502.01852, with the fan-out of its section 2.2.
    """
    layer = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def conv_relu(channels: int, out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """conv-BN-ReLU."""
    return nn.Sequential(conv(channels, out, kernel, stride), nn.BatchNorm2d(out), nn.ReLU())


def _projection(channels: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
