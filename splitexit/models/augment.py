"""Random crops and flips of whole batches, as one gather on the device that holds the data set."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from splitexit.errors import UsageError

PAD = 4
AUGMENTATIONS = ("crop-flip", "crop", "none")
Augmentation = Literal["crop-flip", "crop", "none"]


class Batches:
    """A data set on its device, from which augmented batches are drawn.

    Args:
        images: uint8 (n, H, W, C).
        augment: `crop-flip` = zero padding by 4 and a random crop, mirrored half of the time (He et al., 2016);
            `crop` = without mirroring (digits, traffic signs); `none`.
    """

    def __init__(self, images: Tensor, labels: Tensor, augment: Augmentation) -> None:
        if augment not in AUGMENTATIONS:
            raise UsageError(f"augment: expected one of {', '.join(AUGMENTATIONS)}, found {augment!r}")
        self.augment, self.labels = augment, labels
        self.height, self.width = images.shape[1:3]
        pad = 0 if augment == "none" else PAD
        self.images = F.pad(images, (0, 0, pad, pad, pad, pad))

    def draw(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """B×C×H×W pixels in [0, 1], channels last in memory, and B labels; `index` holds B positions."""
        rows, columns = self._windows(len(index), generator)
        crops = self.images[index.view(-1, 1, 1), rows.unsqueeze(2), columns.unsqueeze(1)]
        return crops.permute(0, 3, 1, 2).float().div_(255), self.labels[index]

    def _windows(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Row numbers (n, H) and column numbers (n, W) to read for every image."""
        device = self.images.device
        rows = torch.arange(self.height, device=device).expand(n, -1)
        columns = torch.arange(self.width, device=device).expand(n, -1)
        if self.augment == "none":
            return rows, columns
        shift = torch.randint(0, 2 * PAD + 1, (2, n, 1), generator=generator, device=device)
        if self.augment == "crop-flip":
            mirrored = torch.rand(n, 1, generator=generator, device=device) < 0.5
            columns = torch.where(mirrored, self.width - 1 - columns, columns)
        return rows + shift[0], columns + shift[1]
