"""The internal classifier of the Shallow-Deep Networks (Kaya et al., ICML 2019, arXiv 1810.07052)."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor, nn

from splitexit.models.exits import LinearHead


class SDN(LinearHead):
    """B×C×H×W -> B×K logits: a learned mix of max and average pooling to a small map, then one linear layer.

    What is read is m · max + (1 − m) · mean over every cell of the small map; m is one number for all cells, starts
    between 0 and 1 at random and is trained without bounds, as in the authors' code.

    Args:
        shape: C×H×W of the features read.
        num_classes: K.
        size: height and width of the small map. The authors pool with kernel and stride ⌊H/4⌋: where 4 divides H, that
            is this with 4, the default. Elsewhere theirs leaves up to 7×7; here cells of nearly equal size cover the
            map, so that the number of weights stays bounded (inferred). A side that is smaller already is left as it
            is; where neither side is pooled there is nothing to mix, and m does not exist.
    """

    def __init__(self, *, shape: tuple[int, ...], num_classes: int, size: Annotated[int, Ge(1), Le(256)] = 4) -> None:
        super().__init__()
        channels, height, width = shape
        self.size = (min(size, height), min(size, width))
        self.mix = None if self.size == (height, width) else nn.Parameter(torch.rand(1))
        self.linear = nn.Linear(channels * self.size[0] * self.size[1], num_classes)

    def read(self, features: Tensor) -> Tensor:
        """The small map, flattened."""
        if self.mix is not None:
            most, mean = F.adaptive_max_pool2d(features, self.size), F.adaptive_avg_pool2d(features, self.size)
            features = self.mix * most + (1 - self.mix) * mean
        return features.flatten(1)
