"""The bottleneck of 1×1 convolutions (splitexit/codecs/bottleneck.py is the inference)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor, nn

from splitexit.models.learned import Array, LearnedNet
from splitexit.models.learned._parts import TAIL, start_at_principal, weights


class BottleneckNet(LearnedNet):
    """Through `channels` quantised channels.

    It starts from the principal components of the features, which is the best linear reduction, and is then trained
    through the quantiser by a straight-through gradient (Bengio et al., arXiv 1308.3432). The range of the quantiser is
    set once, at the start, so that payloads need not carry it.

    Args:
        levels: how many of the 256 levels the values at the start span; fewer make smaller payloads, because zstd packs
            what does not occur.
    """

    def __init__(self, features: Tensor, channels: int, levels: Annotated[int, Ge(2), Le(256)] = 16) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(features.shape[1], channels, 1)
        self.decoder = nn.Conv2d(channels, features.shape[1], 1)
        self.to(features.device)
        start_at_principal(self.encoder, self.decoder, features)
        with torch.no_grad():
            self.low, self.high = _range(self.encoder(features), levels)

    def forward(self, features: Tensor) -> Tensor:
        """Decoded features; the gradient passes the rounding unchanged."""
        z = self.encoder(features)
        step = (self.high - self.low) / 255
        level = ((z - self.low) / step).clamp(0, 255)
        level = level + (level.round() - level).detach()
        return F.relu(self.decoder(level * step + self.low))

    def tensors(self) -> dict[str, Array]:
        """As the codec reads them."""
        flat = {name: value.reshape(value.shape[:2]) for name, value in weights(self, "encoder", "decoder").items()}
        return {**flat, "low": np.array(self.low, np.float32), "high": np.array(self.high, np.float32)}


def _range(z: Tensor, levels: int) -> tuple[float, float]:
    """low and high such that nearly all values of z span `levels` of the 256 levels."""
    low, high = (float(v) for v in np.quantile(z.cpu().numpy(), [TAIL, 1 - TAIL]))
    middle, half = (low + high) / 2, max(high - low, 1e-6) / 2 * 255 / (levels - 1)
    return middle - half, middle + half
