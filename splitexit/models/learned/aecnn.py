"""AECNN's training (Li, Iosifidis, Zhang, arXiv 2211.13745; splitexit/codecs/aecnn.py is the inference)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from splitexit.codecs._latent import RAW_BITS
from splitexit.codecs.aecnn import check
from splitexit.models.learned import Array, Batch, JointStage, LearnedNet, Stage, recovery
from splitexit.models.learned._parts import Quantiser, floor_of, start_at_regression, weights

REDUCTION, FEWEST = 16, 4
"""Of the attention's hidden layer: channels for each unit, and how many units it has in any case (the latter inferred:
the feature maps of small networks have few channels)."""

START = 2.0
"""Logit of every weight at the start (inferred): 0.88, so that the network first sees nearly its own features."""

PACE = 8.0
"""The attention's learning rate, as a multiple of the recipe's (inferred): it has few weights and a long way to go."""


class ChannelAttention(nn.Module):
    """w = sigmoid(W2 relu(W1 mean(z))): B×C×H×W -> B×C (squeeze and excitation, Hu et al., CVPR 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(FEWEST, channels // REDUCTION)
        self.down, self.up = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        # All channels start alike, and near 1, so that what ranks them is the training and not the draw.
        nn.init.zeros_(self.up.weight)
        nn.init.constant_(self.up.bias, START)

    def forward(self, features: Tensor) -> Tensor:
        """The weight of every channel, in 0..1."""
        return torch.sigmoid(self.up(F.relu(self.down(features.mean((2, 3))))))


class AecnnNet(LearnedNet):
    """Attention first, which ranks the channels by their mean weight; then the decoder, from the best of them.

    The backbone stays frozen in both, so that the bundle's other codecs and exits stay what they are; the paper's last
    stage, which trains all of it through the quantiser, is the joint one. The decoder starts at the least-squares map
    (inferred). The attention weighs what a channel differs from its mean by, not all of it (inferred), because the
    decoder knows the means: with 8 of 16 channels of the shipped ResNet-32 behind stage 2, least-squares decoder, 2048
    training and 500 validation images, that keeps 74 to 77 % and weighing all of it 66 to 70 % (sparsity 0.3 to 3); six
    random choices keep 58 to 73 %.

    Args:
        order: how channels are chosen: by `importance`, or at `random` for comparison.
        sparsity: of the mean weight of all channels, beside the cross entropy, in the attention's training (inferred:
            with a frozen backbone nothing else would lower the weight of a channel that does not matter).
    """

    def __init__(
        self,
        features: Tensor,
        *,
        channels: int,
        bits: int,
        refine: bool,
        order: Literal["importance", "random"] = "importance",
        sparsity: Annotated[float, Ge(0)] = 1.0,
    ) -> None:
        super().__init__()
        wide = features.shape[1]
        check(wide, channels, bits)
        self.order, self.sparsity, self.bits = order, sparsity, bits
        self.features, self.floor = features, floor_of(features)
        self.mean = features.mean((0, 2, 3))[:, None, None]
        self.attention = ChannelAttention(wide)
        self.decoder = nn.Conv2d(channels, wide, 1)
        self.refine = nn.Conv2d(wide, wide, 3, padding=1) if refine else None
        self.to(features.device)
        self._choose(torch.randperm(wide)[:channels])

    @torch.no_grad()
    def _choose(self, kept: Tensor) -> None:
        """Sends these channels from now on, and starts the decoder anew."""
        self.kept = kept.sort().values.to(self.features.device)
        start_at_regression(self.decoder, self.features, self.kept)
        if self.refine is not None:
            nn.init.dirac_(self.refine.weight)
            nn.init.zeros_(self.refine.bias)  # type: ignore[arg-type]
        sent = self.features[:, self.kept]
        self.quantiser = None if self.bits == RAW_BITS else Quantiser.of(sent, self.bits)

    def stages(self) -> Iterator[Stage]:
        """Attention, where channels are chosen by it; decoder."""
        if self.order == "importance" and len(self.kept) < self.features.shape[1]:
            yield Stage(self.attention.parameters(), self._attended, PACE)
            self._choose(self.importance().topk(len(self.kept)).indices)
        yield Stage(self._trained(), lambda batch: recovery(batch, self(batch.features)))

    def joint_stages(self) -> Iterator[JointStage]:
        """The decoder and the network; which channels are sent, and the quantiser's range, stay."""
        yield JointStage(self._trained(), lambda features: (self(features), features.new_zeros(())))

    def _trained(self) -> list[nn.Parameter]:
        """Of the decoder."""
        parts = [self.decoder, *filter(None, [self.refine])]
        return [parameter for part in parts for parameter in part.parameters()]

    def _attended(self, batch: Batch) -> Tensor:
        weight = self.attention(batch.features)
        logits = batch.tail(self.mean + weight[:, :, None, None] * (batch.features - self.mean))
        loss: Tensor = F.cross_entropy(logits, batch.labels) + self.sparsity * weight.mean()
        return loss

    @torch.no_grad()
    def importance(self) -> Tensor:
        """The mean weight of every channel (C,), over the features that the training starts from."""
        return torch.as_tensor(self.attention(self.features).mean(0))

    def forward(self, features: Tensor) -> Tensor:
        """Decoded features."""
        sent = features[:, self.kept]
        values: Tensor = sent if self.quantiser is None else self.quantiser(sent)
        for part in filter(None, [self.decoder, self.refine]):
            values = part(values).clamp_min(self.floor)
        return values

    def tensors(self) -> dict[str, Array]:
        """As the codec reads them."""
        parts = ("decoder",) if self.refine is None else ("decoder", "refine")
        ranges = {} if self.quantiser is None else self.quantiser.tensors()
        kept = self.kept.cpu().numpy().astype(np.uint16)
        return {"kept": kept, "floor": np.array(self.floor, np.float32), **weights(self, *parts), **ranges}
