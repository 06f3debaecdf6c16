"""BottleNet++'s training (Shao and Zhang, arXiv 1910.14315; splitexit/codecs/bottlenetpp.py is the inference)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor, nn

from splitexit.codecs.bottlenetpp import KERNELS
from splitexit.models.learned import Array, LearnedNet
from splitexit.models.learned._parts import Quantiser, floor_of

BYTE = 8
"""Bits of a level that the erasure channel takes bits of."""


class BottleNetPlusPlusNet(LearnedNet):
    """Convolution, batch norm and sigmoid; a noisy channel; convolution, batch norm and ReLU.

    That is the second of the paper's three phases: the backbone is trained and stays frozen. The encoder sees one plane
    more than the features have, which holds the strength of the noise; in training it is drawn for every sample from
    U(0, noise). The last batch norm starts at mean and spread of the features (inferred).

    Args:
        over: what the latent crosses: `none`, its own quantiser alone; `awgn`, white Gaussian noise of this standard
            deviation; `erasure`, where each bit of an 8-bit level is lost, and read as 0, with this probability, and
            the gradient passes unchanged.
        noise: the strongest, of values in 0..1.
    """

    def __init__(
        self,
        features: Tensor,
        *,
        channels: int,
        stride: int,
        bits: int,
        over: Literal["none", "awgn", "erasure"] = "none",
        noise: Annotated[float, Ge(0), Le(1)] = 0.1,
    ) -> None:
        super().__init__()
        wide, (self.height, self.width) = features.shape[1], features.shape[2:]
        self.stride, self.over, self.noise = stride, over, noise
        self.floor = floor_of(features)
        kernel = KERNELS[stride]
        self.encoder = nn.Conv2d(wide + 1, channels, kernel, stride, padding=kernel % 2, bias=False)
        self.encoder_norm = nn.BatchNorm2d(channels)
        self.decoder: nn.Conv2d | nn.ConvTranspose2d = (
            nn.Conv2d(channels, wide, kernel, padding=1, bias=False)
            if stride == 1
            else nn.ConvTranspose2d(channels, wide, kernel, stride, bias=False)
        )
        self.decoder_norm = nn.BatchNorm2d(wide)
        with torch.no_grad():
            self.decoder_norm.weight.copy_(features.std((0, 2, 3)))
            self.decoder_norm.bias.copy_(features.mean((0, 2, 3)))
        self.quantiser = Quantiser(torch.zeros(channels), 1 / (2**bits - 1), bits)
        self.to(features.device)

    def forward(self, features: Tensor) -> Tensor:
        """Decoded features; noise crosses the latent in training mode only."""
        strength = self._strength(features)
        seen = torch.cat([features, strength.expand(-1, 1, *features.shape[2:])], 1)
        seen = F.pad(seen, (0, -self.width % self.stride, 0, -self.height % self.stride))
        latent = torch.sigmoid(self.encoder_norm(self.encoder(seen)))
        decoded = self.decoder_norm(self.decoder(self._crossed(latent, strength)))
        cut: Tensor = decoded[:, :, : self.height, : self.width]
        return cut.clamp_min(self.floor)

    def _strength(self, features: Tensor) -> Tensor:
        """Of the noise, for every sample, B×1×1×1."""
        drawn = torch.rand(len(features), 1, 1, 1, device=features.device)
        return drawn * (self.noise if self.training and self.over != "none" else 0.0)

    def _crossed(self, latent: Tensor, strength: Tensor) -> Tensor:
        if not self.training or self.over == "none":
            rounded: Tensor = self.quantiser(latent)
            return rounded
        if self.over == "awgn":
            return latent + strength * torch.randn_like(latent)
        level = (latent.detach() * (2**BYTE - 1)).round().to(torch.uint8)
        for bit in range(BYTE):
            lost = torch.rand_like(latent) < strength
            level = torch.where(lost, level & (2**BYTE - 1 - (1 << bit)), level)
        received: Tensor = level / (2**BYTE - 1)
        return latent + (received - latent).detach()

    def tensors(self) -> dict[str, Array]:
        """As the codec reads them: batch norms folded into the convolutions, without the plane of the noise."""
        scale, shift = _affine(self.encoder_norm)
        there = self.encoder.weight[:, :-1] * scale.reshape(-1, 1, 1, 1)
        back_scale, back_shift = _affine(self.decoder_norm)
        outer = (-1, 1, 1, 1) if self.stride == 1 else (1, -1, 1, 1)
        back = self.decoder.weight * back_scale.reshape(outer)
        found = {
            "encoder.weight": there,
            "encoder.bias": shift,
            "decoder.weight": back,
            "decoder.bias": back_shift,
            "floor": torch.tensor(self.floor),
        }
        return {name: value.detach().cpu().float().numpy() for name, value in found.items()} | self.quantiser.tensors()


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Factor and summand of every channel that batch norm comes to in evaluation mode."""
    if norm.running_mean is None or norm.running_var is None:
        raise TypeError("a batch norm without running statistics")
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale
