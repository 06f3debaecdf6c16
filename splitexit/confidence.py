"""From logits to a Reading, and the rules by which an exit stops the work.

A rule is a function of the readings so far (the latest last) and a threshold. The device, the edge and
the simulator call the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from splitexit.decision import ExitCheck, Reading
from splitexit.errors import UnknownNameError

Array = np.ndarray[Any, Any]
Rule = Callable[[Sequence[Reading], float], bool]


def confidences(logits: Array) -> tuple[Array, Array, Array, Array]:
    """Prediction, max_prob, entropy (nats) and margin of every row.

    Args:
        logits: (n, num_classes) floats, num_classes >= 2.

    Returns:
        Four arrays (n,): int64, then three float32. Computed in float64 and rounded, so that equal
        logits give equal confidences whichever process computed them.
    """
    z = np.asarray(logits, dtype=np.float64)
    z = z - z.max(axis=1, keepdims=True)
    p = np.exp(z)
    total = p.sum(axis=1, keepdims=True)
    p /= total
    entropy = np.log(total[:, 0]) - (p * z).sum(axis=1)
    top = np.partition(p, -2, axis=1)[:, -2:]
    single = np.float32
    return (
        np.argmax(logits, axis=1),
        top[:, 1].astype(single),
        np.maximum(entropy, 0.0).astype(single),
        (top[:, 1] - top[:, 0]).astype(single),
    )


def reading(exit_: int, logits: Array) -> Reading:
    """The Reading of one exit for one sample; logits (num_classes,)."""
    prediction, max_prob, entropy, margin = confidences(logits[None])
    return Reading(exit_, int(prediction[0]), float(max_prob[0]), float(entropy[0]), float(margin[0]), logits)


def _max_prob(readings: Sequence[Reading], threshold: float) -> bool:
    return readings[-1].max_prob >= threshold


def _entropy(readings: Sequence[Reading], threshold: float) -> bool:
    return readings[-1].entropy <= threshold


def _margin(readings: Sequence[Reading], threshold: float) -> bool:
    return readings[-1].margin >= threshold


RULES: dict[str, Rule] = {
    "max_prob": _max_prob,  # Hendrycks & Gimpel, arXiv 1610.02136; used for exits by SDN, arXiv 1810.07052
    "entropy": _entropy,  # BranchyNet, arXiv 1709.01686
    "margin": _margin,  # best-versus-second-best, Joshi et al., CVPR 2009
}


def fires(check: ExitCheck, readings: Sequence[Reading]) -> bool:
    """Whether the exit that was read last stops the work; raises UnknownNameError for an unknown rule."""
    rule = RULES.get(check.rule)
    if rule is None:
        raise UnknownNameError("exit rule", check.rule, RULES)
    return rule(readings, check.threshold)
