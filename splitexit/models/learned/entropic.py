"""The entropic student's training (arXiv 2108.11898; splitexit/codecs/entropic.py is the inference)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from splitexit.codecs import _ans as ans
from splitexit.codecs.entropic import BITS
from splitexit.models.learned import Array, Batch, JointStage, LearnedNet, Stage, recovery
from splitexit.models.learned._parts import Blocks

LOWEST, HIGHEST = -(2 ** (BITS - 1)), 2 ** (BITS - 1) - 1
FIRST_SPREAD = 4.0
"""Standard deviation, in levels, of the first channel of the latent at the start (inferred)."""
DISTILLED = 0.5
"""Weight of the teacher's answer in the second stage, the rest being the label's (SC2's configurations)."""
BEGUN_STEPS, BEGUN_VALUES, BEGUN_PACE = 150, 1000, 0.05
"""Of the prior's fit at the start: steps, values of every channel, learning rate."""
GAIN_HALVINGS = 30
STEERED = 0.05
"""Logarithm of the largest change of the rate's weight in a step."""
LEAST = 1e-9
"""Of a probability, so that its logarithm is finite."""


class FactorisedPrior(nn.Module):
    """A density of its own for every channel, from a monotone network for its cumulative.

    (Ballé et al., "Variational image compression with a scale hyperprior", ICLR 2018, appendix 6.1.)
    """

    WIDTHS: ClassVar[tuple[int, ...]] = (1, 3, 3, 3, 1)
    SCALE: ClassVar[float] = 10.0

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.matrices, self.biases, self.factors = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        scale = self.SCALE ** (1 / (len(self.WIDTHS) - 1))
        for inner, outer in zip(self.WIDTHS[:-1], self.WIDTHS[1:], strict=True):
            start = float(np.log(np.expm1(1 / scale / outer)))
            self.matrices.append(nn.Parameter(torch.full((channels, outer, inner), start)))
            self.biases.append(nn.Parameter(torch.rand(channels, outer, 1) - 0.5))
        self.factors.extend(nn.Parameter(torch.zeros(channels, width, 1)) for width in self.WIDTHS[1:-1])

    def _logits(self, values: Tensor) -> Tensor:
        """Of the cumulative, for values (channels, 1, n)."""
        *inner, last = zip(self.matrices, self.biases, strict=True)
        for (matrix, bias), factor in zip(inner, self.factors, strict=True):
            values = F.softplus(matrix) @ values + bias
            values = values + torch.tanh(factor) * torch.tanh(values)
        logits: Tensor = F.softplus(last[0]) @ values + last[1]
        return logits

    def forward(self, latent: Tensor) -> Tensor:
        """Probability of the interval of one level around every value: B×c×h×w -> the same shape."""
        values = latent.transpose(0, 1).flatten(1).unsqueeze(1)
        lower, upper = self._logits(values - 0.5), self._logits(values + 0.5)
        # On the side of zero where the sigmoid does not round to one.
        sign = -torch.sign(lower + upper).detach()
        probability = (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs().clamp_min(LEAST)
        batch, channels, *size = latent.shape
        return probability.reshape(channels, batch, *size).transpose(0, 1)

    @torch.no_grad()
    def table(self) -> Array:
        """As a LatentCodec reads it: what lies beyond the levels falls to the outermost ones."""
        edges = torch.arange(LOWEST, HIGHEST, device=self.matrices[0].device) + 0.5
        below = torch.sigmoid(self._logits(edges.expand(len(self.matrices[0]), 1, -1)).double()).squeeze(1)
        shares = np.diff(below.cpu().numpy(), prepend=0.0, append=1.0)
        return np.stack([ans.table(np.rint(row * 2**30)) for row in np.maximum(shares, 0)])


class EntropicNet(LearnedNet):
    """Error and rate first, with uniform noise in the place of rounding; then the decoder alone, behind rounding.

    What is sent is coded with tables of the levels that were counted on the calibration split, in the place of the
    prior's own: the same levels in fewer bytes (inferred). It starts at the principal components of the blocks. The
    first stage's error is that of all codecs here, where the paper takes the error of several layers (inferred). In
    the second, encoder and prior stay, and the decoder learns from the labels and from what the network says without
    the codec, half and half.

    Args:
        rate: what a bit for every position of the features weighs beside the loss; the higher, the fewer bytes.
        target: bytes behind the payload's header to begin at and to keep to; 0 is without. The first features then say
            how wide a level is at the start, and the weight of a bit, `rate` at the start, grows by at most a twentieth
            with every step that spends more, or falls likewise (inferred).
    """

    def __init__(
        self,
        features: Tensor,
        *,
        channels: int,
        stride: int,
        rate: Annotated[float, Ge(0)] = 0.02,
        target: Annotated[float, Ge(0)] = 0.0,
    ) -> None:
        super().__init__()
        self.rate, self.target = rate, target
        self.blocks, self.prior = Blocks(features, channels, stride, FIRST_SPREAD), FactorisedPrior(channels)
        self.to(features.device)
        if target:
            self.blocks.scale(_gain(self.blocks.latent(features).detach(), 8 * target))
        self._begin(self.blocks.latent(features).detach())

    def _begin(self, latent: Tensor) -> None:
        """Fits the prior to the latent at the start, where it has a long way to go for so few weights (inferred)."""
        rows = latent.transpose(0, 1).flatten(1)
        some = rows[:, torch.randperm(rows.shape[1])[:BEGUN_VALUES].to(rows.device)].T[:, :, None, None]
        optimiser = torch.optim.Adam(self.prior.parameters(), lr=BEGUN_PACE)
        for _ in range(BEGUN_STEPS):
            optimiser.zero_grad()
            self.bits(some + torch.rand_like(some) - 0.5).mean().backward()  # type: ignore[no-untyped-call,unused-ignore]
            optimiser.step()

    def forward(self, features: Tensor) -> Tensor:
        """Decoded features, behind rounding."""
        return self.blocks.decoded(self.blocks.latent(features).round().clamp(LOWEST, HIGHEST))

    def stages(self) -> Iterator[Stage]:
        """Error and rate; decoder."""
        yield Stage(self.parameters(), self._traded)
        yield Stage(self.blocks.decoder.parameters(), self._distilled)

    def joint_stages(self) -> Iterator[JointStage]:
        """All weights, against the rate; then decoder and tail, behind an encoder and a prior that stay.

        The second is the paper's; in the first, which stands for the training of its deep encoder, the stages before
        the split learn what is cheap to send (inferred). There the exits see rounded values, and the prior noisy ones
        (Minnen and Singh, arXiv 2007.08739), so that neither has to learn the other's again.
        """
        yield JointStage(self.parameters(), self._priced)
        decoder = self.blocks.decoder.parameters()
        yield JointStage(decoder, lambda features: (self(features), features.new_zeros(())), head=False)

    def _priced(self, features: Tensor) -> tuple[Tensor, Tensor]:
        latent = self.blocks.latent(features)
        rounded = latent + (latent.round().clamp(LOWEST, HIGHEST) - latent).detach()
        return self.blocks.decoded(rounded), self._price(latent, latent + torch.rand_like(latent) - 0.5, features)

    def bits(self, latent: Tensor) -> Tensor:
        """That the prior gives to values between levels or on them, for every sample (B,)."""
        return -torch.log2(self.prior(latent)).flatten(1).sum(1)

    def _traded(self, batch: Batch) -> Tensor:
        latent = self.blocks.latent(batch.features)
        noisy = latent + torch.rand_like(latent) - 0.5
        return recovery(batch, self.blocks.decoded(noisy)) + self._price(latent, noisy, batch.features)

    def _price(self, latent: Tensor, noisy: Tensor, features: Tensor) -> Tensor:
        """Of a batch's bits; where there is a target, the next batch's weigh more or less.

        What is held to the target are the bits of whole levels, as they are sent: where a channel is nearly always 0,
        those of noisy ones are far more.
        """
        price = self.rate * self.bits(noisy).mean() / features[0, 0].numel()
        if self.target:
            with torch.no_grad():
                spent = float(self.bits(latent.round().clamp(LOWEST, HIGHEST)).mean()) / 8
            self.rate *= math.exp(STEERED * max(-1.0, min(1.0, spent / self.target - 1)))
        return price

    def _distilled(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            teacher = batch.tail(batch.features).softmax(1)
        logits = batch.tail(self(batch.features))
        return (1 - DISTILLED) * F.cross_entropy(logits, batch.labels) + DISTILLED * F.cross_entropy(logits, teacher)

    def tensors(self) -> dict[str, Array]:
        """As the codec reads them."""
        table = self.prior.table()
        ranges = {"low": np.full(len(table), LOWEST, np.float32), "step": np.ones(len(table), np.float32)}
        return {**self.blocks.tensors(), **ranges, "table": table}


def _gain(latent: Tensor, bits: float) -> float:
    """What a latent is to be multiplied by, so that its whole numbers are worth so many bits a sample, or nearly."""
    low, high = 1e-3, 1e3
    for _ in range(GAIN_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _entropy(latent * middle) > bits else (middle, high)
    return low


def _entropy(latent: Tensor) -> float:
    """Bits of a sample's whole numbers by how often each occurs in its channel."""
    levels = latent.round().clamp(LOWEST, HIGHEST).transpose(0, 1).flatten(1).long() - LOWEST
    shares = [torch.bincount(row, minlength=2**BITS).double() / levels.shape[1] for row in levels]
    return float(sum(torch.special.entr(row).sum() for row in shares)) / math.log(2) * latent[0, 0].numel()
