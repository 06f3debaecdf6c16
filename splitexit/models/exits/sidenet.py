"""SideNet, a perceptron beside a large pretrained network (Morisot, arXiv 2007.13512)."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor, nn


class SideNet(nn.Module):
    """B×C×H×W -> B×K logits: global average pooling, one hidden layer with ReLU, one linear layer.

    It is meant for a backbone that is trained already and frozen (`Recipe.init` and `Recipe.freeze`): a hidden layer
    makes up for features that were never shaped for an exit. With a threshold α on the highest probability, a sample
    costs on average c_head + c_side + P(confidence < α) · c_tail, where c_head is the backbone up to here, c_side this
    head and c_tail the rest; with α > 1 the answers are those of the pretrained network, bit for bit.

    Args:
        shape: C×H×W of the features read.
        num_classes: K.
        hidden: units of the hidden layer. The abstract says "single hidden layer perceptron"; 512 is inferred.
    """

    def __init__(
        self, *, shape: tuple[int, ...], num_classes: int, hidden: Annotated[int, Ge(1), Le(65536)] = 512
    ) -> None:
        super().__init__()
        self.perceptron = nn.Sequential(nn.Linear(shape[0], hidden), nn.ReLU(), nn.Linear(hidden, num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Logits; see the class."""
        logits: Tensor = self.perceptron(features.mean(dim=(2, 3)))
        return logits
