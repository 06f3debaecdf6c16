"""The 6n+2 residual networks for small images (He et al., CVPR 2016, arXiv 1512.03385, section 4.2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from splitexit.errors import UsageError
from splitexit.models.backbones import Backbone


class ResNet(Backbone):
    """Stem of 3×3, then three groups of n residual blocks with `width`, 2·`width` and 4·`width` channels.

    Args:
        depth: 6n+2, counting convolutions and the classifier: 20, 32, 44, 56, 110.
        width: channels of the first group; 16 in the paper.

    The shortcut that changes shape is a 1×1 convolution with batch normalisation (the paper's option B).
    """

    def __init__(self, *, depth: int = 32, width: int = 16) -> None:
        if not isinstance(depth, int) or depth < 8 or depth % 6 != 2:
            raise UsageError(f"backbone 'resnet': depth must be 6n+2 (20, 32, 44, 56, 110), found {depth!r}")
        if not isinstance(width, int) or width < 1:
            raise UsageError(f"backbone 'resnet': width must be a whole number from 1, found {width!r}")
        self.depth, self.width = depth, width

    def blocks(self, in_channels: int) -> list[nn.Module]:
        """The stem and 3n residual blocks; maps halve at the start of the second and third group."""
        channels = self.width
        blocks: list[nn.Module] = [_stem(in_channels, channels)]
        for group in range(3):
            for index in range((self.depth - 2) // 6):
                out = self.width * 2**group
                blocks.append(ResidualBlock(channels, out, stride=2 if group and not index else 1))
                channels = out
        return blocks


class ResidualBlock(nn.Module):
    """conv-BN-ReLU-conv-BN plus shortcut, then ReLU: B×C×H×W -> B×C'×⌈H/stride⌉×⌈W/stride⌉."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3(channels, out, stride)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = _conv3(out, out, 1)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Identity() if channels == out and stride == 1 else _projection(channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """One block; see the class."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def _stem(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(_conv3(channels, out, 1), nn.BatchNorm2d(out), nn.ReLU())


def _conv3(channels: int, out: int, stride: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def _projection(channels: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
