"""ResNet-18 (He et al., CVPR 2016, arXiv 1512.03385, table 1), with its own stem or one for small images."""

from __future__ import annotations

from typing import Literal

from torch import nn

from splitexit.models.backbones import Backbone
from splitexit.models.backbones.resnet import conv_relu, residual_groups
from splitexit.models.spec import Count


class ResNet18(Backbone):
    """A stem and four groups of two residual blocks with `width`, 2, 4 and 8·`width` channels.

    Args:
        width: channels of the stem and the first group; 64 in the paper.
        stem: `imagenet` is the paper's, a 7×7 convolution of stride 2 and a 3×3 maximum of stride 2, which leaves a
            map of 2×2 at the end of a 64×64 image; `small`, one 3×3 convolution, keeps the image's size, as the
            paper's own networks for 32×32 images do (its section 4.2).

    No exit goes behind the stem: EENets (arXiv 2409.05336) place theirs behind residual blocks alone, and the
    stem of `imagenet` is already 6 % of the whole at 64×64.
    """

    first_exit = 2

    def __init__(self, *, width: Count = 64, stem: Literal["small", "imagenet"] = "small") -> None:
        self.width, self.stem = width, stem

    def blocks(self, in_channels: int) -> list[nn.Module]:
        """The stem and 8 residual blocks; maps halve at the start of the second, third and fourth group."""
        stem = imagenet_stem if self.stem == "imagenet" else conv_relu
        return [stem(in_channels, self.width), *residual_groups(self.width, [2, 2, 2, 2])]


def imagenet_stem(channels: int, out: int) -> nn.Sequential:
    """conv-BN-ReLU of 7×7 and a maximum of 3×3, each of stride 2: B×C×H×W -> B×C'×⌈H/4⌉×⌈W/4⌉."""
    return conv_relu(channels, out, kernel=7, stride=2).append(nn.MaxPool2d(3, stride=2, padding=1))
