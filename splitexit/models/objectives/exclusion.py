"""The loss of early exit with class exclusion (Wang, Li and Zhang, arXiv 2309.13443): early exits rule classes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor

from splitexit.models.objectives import Objective, Progress, class_logits


class ClassExclusion(Objective):
    """L = CE(final) + Σ_i BCE_i / (M − i + 2), over the M early exits i = 1..M.

    BCE_i is the mean binary cross entropy of the K logits of exit i, each the question whether the sample may be of
    that class; the last early exit weighs 1/2, those before it less and less.

    Args:
        pos_weight: weight of the true class in it, so that it is seldom ruled out; None takes 4·(K − 1). The authors
            give 36 for 10 classes and 396 for 100; the formula between them is inferred.
    """

    def __init__(self, *, pos_weight: Annotated[float, Gt(0)] | None = None) -> None:
        self.pos_weight = pos_weight

    def loss(self, outputs: Sequence[Tensor], labels: Tensor, progress: Progress) -> Tensor:
        """That sum."""
        *early, final = class_logits(outputs)
        classes = final.shape[1]
        weight = final.new_tensor(4.0 * (classes - 1) if self.pos_weight is None else self.pos_weight)
        target = F.one_hot(labels, classes).to(final.dtype)
        total = F.cross_entropy(final, labels)
        for number, logits in enumerate(early, start=1):
            own = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)
            total = total + own / (len(early) - number + 2)
        return total
