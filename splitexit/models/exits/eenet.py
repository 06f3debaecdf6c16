"""The exit block of the Early-exit Networks (Demir and Akbas, arXiv 2409.05336): it learns when to stop."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


class EENet(nn.Module):
    """B×C×H×W -> B×(K+1): K class logits, and behind them the logit of the confidence, from the same features.

    Two linear branches read what the trunk makes of the map: a classifier, and a scalar whose sigmoid is the
    probability of stopping here. The authors' code puts softmax and sigmoid inside the block; here both stay logits,
    because the loss needs their logarithms and a saturated softmax has none. Both branches start with torch's own
    random weights, as theirs do: the confidences begin near one half, and no exit is shut at the start.

    Args:
        shape: C×H×W of the features read.
        num_classes: K.
        trunk: `pool` is global average pooling, f = C numbers (the authors' default);
            `bnpool` normalises the map by batch normalisation first;
            `plain` takes the whole map, f = C·H·W numbers. The authors' code takes the image's H and W instead, so
            theirs fails behind any stride.
    """

    def __init__(
        self, *, shape: tuple[int, ...], num_classes: int, trunk: Literal["pool", "bnpool", "plain"] = "pool"
    ) -> None:
        super().__init__()
        channels, height, width = shape
        layers: list[nn.Module] = [nn.BatchNorm2d(channels)] if trunk == "bnpool" else []
        if trunk != "plain":
            layers.append(nn.AdaptiveAvgPool2d(1))
            height = width = 1
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        self.classifier = nn.Linear(channels * height * width, num_classes)
        self.confidence = nn.Linear(channels * height * width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Class logits and confidence logit; see the class."""
        read = self.trunk(features)
        return torch.cat([self.classifier(read), self.confidence(read)], dim=1)
