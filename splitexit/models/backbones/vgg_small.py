"""VGGsmall: six 3×3 convolutions and two wide linear layers, for 32×32 images.

The network on which class exclusion was shown (Wang, Li and Zhang, AICAS 2024, arXiv 2309.13443).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from annotated_types import Ge, Le
from torch import nn

from splitexit.models.backbones import Backbone
from splitexit.models.backbones.resnet import conv_relu

CHANNELS = (128, 128, 256, 256, 512, 512)
"""Of the convolutions; a maximum of 2×2 follows the second of every pair."""
HIDDEN = 1024
"""Of both linear layers."""
MAP = 4
"""Height and width of what the first linear layer reads: 32 pixels, halved three times."""


class VGGSmall(Backbone):
    """conv 128-128-max-256-256-max-512-512-max, each 3×3 with BN and ReLU, then linear 8192-1024-1024 with ReLU.

    Args:
        width: factor on all channels and hidden units, which are rounded; 1 in the paper.

    Eight blocks: an exit may follow every convolution (the paper's six exits) and the first linear layer; a maximum
    belongs to the convolution in front of it. What differs from the paper's network: the linear layers are written as
    convolutions that put out a map of 1×1, with the same weights and multiply-accumulates; images of other sizes than
    32×32 are averaged to a map of 4×4 in front of them, as torchvision's VGG does; no dropout.
    """

    def __init__(self, *, width: Annotated[float, Ge(1 / 128), Le(16)] = 1.0) -> None:
        self.width = width

    def blocks(self, in_channels: int) -> list[nn.Module]:
        """Six convolutions, of which every second halves the map, and two linear layers: 1024·`width`×1×1."""
        channels = [in_channels, *(round(self.width * c) for c in CHANNELS)]
        convolutions = [conv_relu(a, b) for a, b in pairwise(channels)]
        for block in convolutions[1::2]:
            block.append(nn.MaxPool2d(2))
        hidden = round(self.width * HIDDEN)
        return [
            *convolutions,
            nn.Sequential(nn.AdaptiveAvgPool2d(MAP), nn.Conv2d(channels[-1], hidden, MAP), nn.ReLU()),
            nn.Sequential(nn.Conv2d(hidden, hidden, 1), nn.ReLU()),
        ]
