"""What several learned codecs are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitexit.codecs._latent import even_table

Array = np.ndarray[Any, Any]
TAIL = 5e-4
"""Share of the values at the start that a quantiser's range leaves out at either end."""


def principal(features: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Mean (C,) and the first principal directions (C, channels) of B×C×H×W features at all positions."""
    rows = features.transpose(0, 1).flatten(1).double()
    mean = rows.mean(1)
    centred = rows - mean[:, None]
    _, vectors = torch.linalg.eigh(centred @ centred.T / rows.shape[1])
    basis = vectors.flip(1)[:, :channels]
    # An eigenvector has no sign of its own; fixing it makes the start the same everywhere.
    signs = basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()
    return mean.float(), (basis * signs).float()


@torch.no_grad()
def start_at_principal(encoder: nn.Conv2d, decoder: nn.Conv2d, features: Tensor) -> None:
    """Makes two 1×1 convolutions the best linear reduction of these features, and the way back."""
    mean, basis = principal(features, encoder.out_channels)
    encoder.weight.copy_(basis.T[:, :, None, None])
    encoder.bias.copy_(-(basis.T @ mean))  # type: ignore[union-attr]
    decoder.weight.copy_(basis[:, :, None, None])
    decoder.bias.copy_(mean)  # type: ignore[union-attr]


@torch.no_grad()
def start_at_regression(decoder: nn.Conv2d, features: Tensor, kept: Tensor) -> None:
    """Makes a 1×1 convolution the least-squares map from some channels to all of them; a kept one maps to itself."""
    rows = features.transpose(0, 1).flatten(1).double()
    known = torch.cat([rows[kept], torch.ones_like(rows[:1])])
    # A little on the diagonal, because a channel may be constant and then has no inverse.
    gram = known @ known.T / rows.shape[1]
    gram += 1e-6 * gram.diagonal().mean() * torch.eye(len(known), dtype=gram.dtype, device=gram.device)
    solution = torch.linalg.solve(gram, known @ rows.T / rows.shape[1]).float()
    solution[:, kept] = torch.eye(len(known), len(kept), device=solution.device)
    decoder.weight.copy_(solution[:-1].T[:, :, None, None])
    decoder.bias.copy_(solution[-1])  # type: ignore[union-attr]


def floor_of(features: Tensor) -> float:
    """What decoded features are kept above: 0 where these never fall below it, as behind a ReLU, else nothing."""
    return 0.0 if float(features.min()) >= 0 else float(torch.finfo(torch.float32).min)


class Quantiser(nn.Module):
    """Rounds a latent to levels of a fixed range for every channel; the gradient passes as if it did not.

    (Straight-through gradient: Bengio et al., arXiv 1308.3432.) The step is the same for all channels, which is what
    costs the least squared error at a given rate where levels are entropy-coded.

    Args:
        low: (channels,).
        step: between levels, above zero.
        bits: of a level.
    """

    def __init__(self, low: Tensor, step: float, bits: int) -> None:
        super().__init__()
        self.low: Tensor
        self.register_buffer("low", low.float().reshape(-1, 1, 1))
        self.step, self.bits, self.top = step, bits, 2**bits - 1

    @classmethod
    def of(cls, latent: Tensor, bits: int, centred: bool = False) -> Quantiser:
        """With a range that nearly all values of this latent, B×c×h×w, lie in.

        A channel of a smaller spread than the largest one uses the lowest levels, or those in the middle (`centred`),
        which leaves room on either side where the training may still move the latent.
        """
        rows = latent.detach().transpose(0, 1).flatten(1).cpu().numpy()
        low, high = np.quantile(rows, [TAIL, 1 - TAIL], axis=1)
        span = max(float((high - low).max()), 1e-6)
        if centred:
            low = low - (span - (high - low)) / 2
        return cls(torch.from_numpy(low), span / (2**bits - 1), bits).to(latent.device)

    def forward(self, latent: Tensor) -> Tensor:
        """The quantised values."""
        level = ((latent - self.low) / self.step).clamp(0, self.top)
        level = level + (level.round() - level).detach()
        return level * self.step + self.low

    def tensors(self) -> dict[str, Array]:
        """As a LatentCodec reads them, with a table to start from."""
        low = self.low.flatten().cpu().numpy()
        step = np.full(len(low), self.step, np.float32)
        return {"low": low, "step": step, "table": even_table(len(low), self.bits)}


class Blocks(nn.Module):
    """A convolution whose kernel is its stride, and the transposed one, from the principal components of the blocks.

    Args:
        features: to start from, B×C×H×W.
        channels, stride: of the latent, whose height and width are rounded up.
        spread: standard deviation of the latent's first channel at the start.
    """

    def __init__(self, features: Tensor, channels: int, stride: int, spread: float) -> None:
        super().__init__()
        wide, (self.height, self.width) = features.shape[1], features.shape[2:]
        self.stride, self.floor = stride, floor_of(features)
        self.encoder = nn.Conv2d(wide, channels, stride, stride)
        self.decoder = nn.ConvTranspose2d(channels, wide, stride, stride)
        self.to(features.device)
        self._begin(features, spread)

    @torch.no_grad()
    def _begin(self, features: Tensor, spread: float) -> None:
        blocks = F.unfold(self._padded(features), self.stride, stride=self.stride)[..., None]
        mean, basis = principal(blocks, self.encoder.out_channels)
        gain = spread / float(torch.einsum("bcnk,c->bn", blocks, basis[:, 0]).std().clamp_min(1e-6))
        self.encoder.weight.copy_((gain * basis.T).reshape(self.encoder.weight.shape))
        self.encoder.bias.copy_(-gain * (basis.T @ mean))  # type: ignore[union-attr]
        self.decoder.weight.copy_((basis.T / gain).reshape(self.decoder.weight.shape))
        self.decoder.bias.copy_(features.mean((0, 2, 3)))  # type: ignore[union-attr]

    @torch.no_grad()
    def scale(self, factor: float) -> None:
        """Makes the latent so many times as large, and what is decoded of it the same as before."""
        for values in (self.encoder.weight, self.encoder.bias):
            values.mul_(factor)  # type: ignore[union-attr]
        self.decoder.weight.div_(factor)

    def _padded(self, features: Tensor) -> Tensor:
        return F.pad(features, (0, -self.width % self.stride, 0, -self.height % self.stride))

    def latent(self, features: Tensor) -> Tensor:
        """B×C×H×W -> B×c×h×w."""
        latent: Tensor = self.encoder(self._padded(features))
        return latent

    def decoded(self, latent: Tensor) -> Tensor:
        """B×c×h×w -> B×C×H×W."""
        decoded: Tensor = self.decoder(latent)[:, :, : self.height, : self.width]
        return decoded.clamp_min(self.floor)

    def tensors(self) -> dict[str, Array]:
        """As a BlockCodec reads them."""
        return {"floor": np.array(self.floor, np.float32), **weights(self, "encoder", "decoder")}


def weights(module: nn.Module, *names: str) -> dict[str, Array]:
    """The parameters of these submodules by their names, as arrays."""
    return {
        f"{name}.{key}": value.detach().cpu().float().numpy()
        for name in names
        for key, value in module.get_submodule(name).named_parameters()
    }
