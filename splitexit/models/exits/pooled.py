"""The plain softmax head: global average pooling and one linear layer (BranchyNet's and the ResNets' own)."""

from __future__ import annotations

from torch import Tensor, nn


class Pooled(nn.Module):
    """B×C×H×W -> B×K logits.

    Args:
        shape: C×H×W of the features read.
        num_classes: K.
    """

    def __init__(self, *, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(shape[0], num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits; see the class."""
        logits: Tensor = self.linear(features.mean(dim=(2, 3)))
        return logits
