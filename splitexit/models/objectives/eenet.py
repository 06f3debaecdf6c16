"""The loss of the Early-exit Networks (Demir and Akbas, arXiv 2409.05336): exits learn when to stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor

from splitexit.errors import UsageError
from splitexit.models.objectives import Objective, Progress, at_least_single, class_logits
from splitexit.models.spec import Factor


class EENetLoss(Objective):
    """The likelihood that the exits together give the label, and the cost they are expected to spend on it.

    With y_n the softmax of exit n, h_n the sigmoid of its confidence and c_n its cost, from the last exit N backwards:

        Ŷ_N = y_N, Ĉ_N = 1;  Ŷ_n = h_n·y_n + (1−h_n)·Ŷ_{n+1};  Ĉ_n = h_n·c_n + (1−h_n)·Ĉ_{n+1}

    so a sample stops at n with probability h_n·Π_{j<n}(1−h_j), and at the final exit (h_N := 1) if it did not before.
    Only the label's entry of Ŷ_n is needed, and it is carried as a logarithm: the authors' code takes the logarithm of
    a softmax, which is infinite for a saturated wrong answer.

    Args:
        version: 1 is −log Ŷ_0[label] + λ·Ĉ_0; 2 adds that of every later n up to N, as if the network began there, so
            that late exits keep learning although few samples are expected to come that far. Means over the batch.
            2 is the default of the authors' code.
        cost_weight: λ; 1 in the authors' code.
        warm_up: share of the training that comes first, with the plain sum of all cross entropies (version 0 of the
            authors' code, whose `--two-stage` has it for 25 of 150 epochs): an exit that is wrong in the beginning
            loses its confidence, and with it the gradient that would make it right. Default: none, as theirs.

    c_n is `Progress.costs`: everything up to exit n and its own head, but no head before it, as in the authors' code.
    """

    def __init__(
        self,
        *,
        version: Literal[1, 2] = 2,
        cost_weight: Factor = 1.0,
        warm_up: Annotated[float, Ge(0), Le(1)] = 0.0,
    ) -> None:
        self.version, self.cost_weight, self.warm_up = version, cost_weight, warm_up

    def loss(self, outputs: Sequence[Tensor], labels: Tensor, progress: Progress) -> Tensor:
        """One of the two sums; raises UsageError where an early exit has no confidence."""
        logits = class_logits(outputs)
        confidences = _confidences(outputs)
        if progress.done < self.warm_up:
            return torch.stack([F.cross_entropy(of_exit, labels) for of_exit in logits]).sum()
        found = -F.cross_entropy(logits[-1], labels, reduction="none")  # log Ŷ_N[label]
        cost = torch.full_like(found, progress.costs[-1])
        total = self._one(found, cost)
        for exit_ in reversed(range(len(outputs) - 1)):
            found, cost = _step_back(found, cost, logits[exit_], labels, confidences[exit_], progress.costs[exit_])
            here = self._one(found, cost)
            total = here if self.version == 1 else total + here
        return total

    def _one(self, found: Tensor, cost: Tensor) -> Tensor:
        return self.cost_weight * cost.mean() - found.mean()


def _step_back(
    found: Tensor, cost: Tensor, logits: Tensor, labels: Tensor, confidence: Tensor, own_cost: float
) -> tuple[Tensor, Tensor]:
    """log Ŷ_n[label] and Ĉ_n from those of exit n+1, each B numbers."""
    own = -F.cross_entropy(logits, labels, reduction="none")
    stop, go_on = F.logsigmoid(confidence), F.logsigmoid(-confidence)
    return torch.logaddexp(stop + own, go_on + found), stop.exp() * own_cost + go_on.exp() * cost


def _confidences(outputs: Sequence[Tensor]) -> list[Tensor]:
    """The confidence logits of the early exits, each B numbers, in single precision at least."""
    classes = outputs[-1].shape[1]
    for exit_, output in enumerate(outputs[:-1]):
        if output.shape[1] != classes + 1:
            raise UsageError(
                f"objective 'eenet': the head of exit {exit_} learns no confidence; use one that does, "
                "such as --head eenet"
            )
    return [at_least_single(output[:, classes]) for output in outputs[:-1]]
