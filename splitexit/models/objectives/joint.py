"""Joint training: a weighted sum of the cross entropies of all exits (BranchyNet, arXiv 1709.01686, eq. 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from splitexit.errors import UsageError
from splitexit.models.objectives import Objective, Progress


class Joint(Objective):
    """L = Σ w_e · CE_e.

    Args:
        weights: one number for every exit, or
            `uniform`: all 1;
            `cost`: the relative cost up to the exit, the final exit 1, so that early exits pull less at the
            shared layers (the end values of SDN's schedule, Kaya et al., ICML 2019, arXiv 1810.07052);
            `sdn`: that schedule itself, min(C_e, 0.01 + C_e · share of training done), the final exit 1.
    """

    def __init__(self, *, weights: Literal["uniform", "cost", "sdn"] | Sequence[float] = "cost") -> None:
        if isinstance(weights, str) and weights not in ("uniform", "cost", "sdn"):
            raise UsageError(f"objective 'joint': weights are uniform, cost, sdn or numbers, found {weights!r}")
        self.weights = weights

    def loss(self, logits: Sequence[Tensor], labels: Tensor, progress: Progress) -> Tensor:
        """The weighted sum; raises UsageError where there are not as many weights as exits."""
        weights = self.weigh(progress)
        losses = [w * F.cross_entropy(z.float(), labels) for w, z in zip(weights, logits, strict=True)]
        return sum(losses[1:], losses[0])

    def weigh(self, progress: Progress) -> list[float]:
        """The weight of every exit at this point of the training."""
        costs, done = progress.costs, progress.done
        if self.weights == "uniform":
            return [1.0] * len(costs)
        if self.weights == "cost":
            return [*costs[:-1], 1.0]
        if self.weights == "sdn":
            return [*(min(c, 0.01 + c * done) for c in costs[:-1]), 1.0]
        weights = [float(w) for w in self.weights]
        if len(weights) != len(costs):
            raise UsageError(f"objective 'joint': {len(weights)} weights for {len(costs)} exits, final included")
        return weights
