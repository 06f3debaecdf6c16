"""The classifier of the Multi-Scale DenseNets (Huang et al., ICLR 2018, arXiv 1703.09844)."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor, nn

from splitexit.models.exits.pooled import Pooled


class MSDNet(nn.Module):
    """B×C×H×W -> B×K logits: two 3×3 convolutions of stride 2, each with batch norm and ReLU, then `Pooled`.

    Behind the backbone of the same name it reads the coarsest scale, which is all that a backbone of several scales
    shows its heads. The public code ends in average pooling of 2×2, which from 8×8 maps leaves one number for every
    channel; the mean over the whole map is the same there, and fits others as well.

    Args:
        shape: C×H×W of the features read.
        num_classes: K.
        width: channels of the two convolutions; 128 in the public code.
    """

    def __init__(
        self, *, shape: tuple[int, ...], num_classes: int, width: Annotated[int, Ge(1), Le(65536)] = 128
    ) -> None:
        super().__init__()
        self.branch = nn.Sequential(*_halve(shape[0], width), *_halve(width, width))
        self.pooled = Pooled(shape=(width, 1, 1), num_classes=num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits; see the class."""
        logits: Tensor = self.pooled(self.branch(features))
        return logits


def _halve(channels: int, out: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(out), nn.ReLU()]
