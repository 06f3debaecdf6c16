"""The exit of early exit with class exclusion (Wang, Li and Zhang, arXiv 2309.13443)."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor, nn

from splitexit.models.exits._ranges import check


class Exclusion(nn.Module):
    """B×C×H×W -> B×K logits of K questions: may the sample be of class k? Average pooling and one linear layer.

    The logits are made for a sigmoid each, not for one softmax: the exit rules classes out rather than choose one, and
    is trained by binary cross entropies. The layer is that of the authors' code (`Snet`).

    Args:
        shape: C×H×W of the features read.
        num_classes: K.
        size: height and width of the pooled map: 1 in the authors' code, 2 for VGG on CIFAR-100. A side that is
            smaller already is left as it is (inferred; theirs would repeat its values).

    Raises UsageError where `size` is out of range.
    """

    def __init__(self, *, shape: tuple[int, ...], num_classes: int, size: Annotated[int, Ge(1), Le(256)] = 1) -> None:
        super().__init__()
        check(Exclusion, size=size)
        channels, height, width = shape
        self.pool = nn.AdaptiveAvgPool2d((min(size, height), min(size, width)))
        self.linear = nn.Linear(channels * min(size, height) * min(size, width), num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits; see the class."""
        logits: Tensor = self.linear(self.pool(features).flatten(1))
        return logits
