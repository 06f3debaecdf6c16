"""A branch of convolutions before the pooled softmax head, as BranchyNet's branches have (arXiv 1709.01686)."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor, nn

from splitexit.models.exits.pooled import Pooled


class Conv(nn.Module):
    """B×C×H×W -> B×K logits: 3×3 convolutions of stride 2 until the map is small, then `Pooled`.

    Early features are local, so a linear layer on their means says little. Each convolution halves the map and doubles
    its channels, as the residual networks' own groups do; where the map is small already, none is left.

    Args:
        shape: C×H×W of the features read.
        num_classes: K.
        size: the widest map that is pooled.
    """

    def __init__(self, *, shape: tuple[int, ...], num_classes: int, size: Annotated[int, Ge(1), Le(256)] = 8) -> None:
        super().__init__()
        channels, height, width = shape
        layers: list[nn.Module] = []
        while max(height, width) > size:
            layers += [
                nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(2 * channels),
                nn.ReLU(),
            ]
            channels, height, width = 2 * channels, -(-height // 2), -(-width // 2)
        self.branch = nn.Sequential(*layers)
        self.pooled = Pooled(shape=(channels, height, width), num_classes=num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits; see the class."""
        logits: Tensor = self.pooled(self.branch(features))
        return logits
