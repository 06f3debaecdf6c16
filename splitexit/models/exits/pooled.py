"""The plain softmax head: average pooling and one linear layer (BranchyNet's and the ResNets' own)."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor, nn

from splitexit.models.exits import LinearHead


class Pooled(LinearHead):
    """B×C×H×W -> B×K logits.

    Args:
        shape: C×H×W of the features read.
        num_classes: K.
        size: height and width of the pooled map; 1 is the mean over the whole. A side that is smaller already is left
            as it is.
    """

    def __init__(self, *, shape: tuple[int, ...], num_classes: int, size: Annotated[int, Ge(1), Le(256)] = 1) -> None:
        super().__init__()
        channels, height, width = shape
        self.size = (min(size, height), min(size, width))
        self.linear = nn.Linear(channels * self.size[0] * self.size[1], num_classes)

    def read(self, features: Tensor) -> Tensor:
        """The means: B×C, or B×(C·size²)."""
        if self.size == (1, 1):
            return features.mean(dim=(2, 3))
        return F.adaptive_avg_pool2d(features, self.size).flatten(1)
