"""Joint training: a weighted sum of the losses of all exits (BranchyNet, arXiv 1709.01686, eq. 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from annotated_types import Gt, MinLen
from torch import Tensor

from splitexit.errors import UsageError
from splitexit.models.objectives import Objective, Progress
from splitexit.models.objectives._distillation import exit_losses
from splitexit.models.spec import Factor

Weights = Literal["uniform", "cost", "sdn", "linear"]


class Joint(Objective):
    """L = Σ w_e · L_e, where L_e is the cross entropy of exit e, with distillation where it is asked for.

    Args:
        weights: one number for every exit, or
            `uniform`: all 1;
            `cost`: the relative cost up to the exit, the final exit 1, so that early exits pull less at the
            shared layers (the end values of SDN's schedule, Kaya et al., ICML 2019, arXiv 1810.07052);
            `sdn`: that schedule itself, min(C_e, 0.01 + C_e · share of training done), the final exit 1;
            `linear`: e / Σe with e counted from 1, so that later exits count more and all add up to 1 (PABEE, Zhou
            et al., NeurIPS 2020, arXiv 2006.04152).
        distill: α of L_e = CE_e + α · KL(p_final ‖ p_e), the final exit being the teacher; 0 is without. The weights
            hold for both parts (inferred).
        temperature: of that divergence; see `_distillation.exit_losses`.
    """

    def __init__(
        self,
        *,
        weights: Weights | Annotated[Sequence[float], MinLen(1)] = "cost",
        distill: Factor = 0.0,
        temperature: Annotated[float, Gt(0)] = 2.0,
    ) -> None:
        self.weights, self.distill, self.temperature = weights, distill, temperature

    def loss(self, outputs: Sequence[Tensor], labels: Tensor, progress: Progress) -> Tensor:
        """The weighted sum; raises UsageError where there are not as many weights as exits."""
        own = exit_losses(outputs, labels, self.distill, self.temperature)
        losses = [w * loss for w, loss in zip(self.weigh(progress), own, strict=True)]
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
        if self.weights == "linear":
            total = len(costs) * (len(costs) + 1) / 2
            return [number / total for number in range(1, len(costs) + 1)]
        weights = [float(w) for w in self.weights]
        if len(weights) != len(costs):
            raise UsageError(f"objective 'joint': {len(weights)} weights for {len(costs)} exits, final included")
        return weights
