"""The training of CR + BQ (arXiv 2108.11898; splitexit/codecs/crbq.py is the inference)."""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor

from splitexit.models.learned import Array, Batch, LearnedNet, Stage
from splitexit.models.learned._parts import Blocks


class CrBqNet(LearnedNet):
    """Learns to give the network's features again, from these alone: no label, no quantiser (head distillation).

    So there is no joint training: the network behind it would learn from features that no quantiser has touched.
    """

    fits_tables = False
    joins = False

    def __init__(self, features: Tensor, *, channels: int, stride: int, bits: int) -> None:
        super().__init__()
        self.blocks, self.bits = Blocks(features, channels, stride, 1.0), bits

    def forward(self, features: Tensor) -> Tensor:
        """Decoded features, before any quantiser."""
        return self.blocks.decoded(self.blocks.latent(features))

    def stages(self) -> Iterator[Stage]:
        """One, over the error of the features."""
        yield Stage(self.parameters(), self._distilled)

    def _distilled(self, batch: Batch) -> Tensor:
        return batch.weight * F.mse_loss(self(batch.features), batch.features)

    def tensors(self) -> dict[str, Array]:
        """As the codec reads them."""
        return self.blocks.tensors()
