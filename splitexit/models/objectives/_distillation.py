"""The loss of every single exit: cross entropy, and on demand what it still has to learn from the last exit."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from splitexit.models.objectives import class_logits


def exit_losses(outputs: Sequence[Tensor], labels: Tensor, distill: float, temperature: float) -> list[Tensor]:
    """For every exit j a scalar, CE_j + `distill` · KL(p_T ‖ p_j); p are softmaxes of logits / `temperature`.

    The teacher T is the last exit, detached; itself it learns from the labels alone. There is no factor T² before the
    KL: the authors' code of block-dependent losses has none (Han et al., IEEE TNNLS 2023, doi
    10.1109/TNNLS.2023.3282249; α 0.25-0.35, T 1.5-2.5). Classes lie along dimension 1, whatever comes behind it, so
    B×K×H×W outputs with B×H×W labels are judged pixel by pixel.
    """
    logits = class_logits(outputs)
    losses = [F.cross_entropy(z, labels) for z in logits]
    if not distill:
        return losses
    teacher = logits[-1].detach()
    taught = [own + distill * _divergence(z, teacher, temperature) for own, z in zip(losses, logits[:-1], strict=False)]
    return [*taught, losses[-1]]


def _divergence(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher / T) ‖ softmax(logits / T)), summed over the classes, mean over everything else."""
    ours, theirs = (F.log_softmax(z / temperature, dim=1) for z in (logits, teacher))
    return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=1).mean()
