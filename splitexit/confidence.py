"""From what an exit's head puts out to a Reading, and the rules by which an exit stops the work.

A head puts out K class logits, or K + 1 numbers: then the last one is the logit of a learned confidence, a branch of
its own beside the classifier that says whether to stop here (EENets, arXiv 2409.05336).

A rule is a function of the readings so far (the latest last) and a threshold. The device, the edge and
the simulator call the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import nan
from typing import Any

import numpy as np

from splitexit.decision import ExitCheck, Reading
from splitexit.errors import InputError, UnknownNameError

Array = np.ndarray[Any, Any]
Rule = Callable[[Sequence[Reading], float], bool]


def cut(outputs: Array, num_classes: int) -> tuple[Array, Array | None]:
    """Class logits and, where the head has that branch, learned confidences.

    Args:
        outputs: (n, num_classes) or (n, num_classes + 1) floats.

    Returns:
        Logits (n, num_classes), and float32 (n,) between 0 and 1, the sigmoid of the last column, or None. Computed in
        float64 and rounded, as `confidences` are.

    Raises InputError for any other width.
    """
    width = outputs.shape[1]
    if width not in (num_classes, num_classes + 1):
        raise InputError(
            f"an exit's head puts out {width} numbers for {num_classes} classes; expected {num_classes}, or "
            f"{num_classes + 1} with a learned confidence"
        )
    if width == num_classes:
        return outputs, None
    z = outputs[:, -1].astype(np.float64)
    return outputs[:, :-1], np.exp(-np.logaddexp(0.0, -z)).astype(np.float32)


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


def reading(exit_: int, logits: Array, confidence: float = nan) -> Reading:
    """The Reading of one exit for one sample; logits (num_classes,), `confidence` as in Reading."""
    prediction, max_prob, entropy, margin = confidences(logits[None])
    return Reading(
        exit_, int(prediction[0]), float(max_prob[0]), float(entropy[0]), float(margin[0]), logits, confidence
    )


def read_output(exit_: int, output: Array, num_classes: int) -> Reading:
    """The Reading of one exit from what its head put out for one sample: (num_classes,), or one more (see `cut`)."""
    logits, learned = cut(output[None], num_classes)
    return reading(exit_, logits[0], nan if learned is None else float(learned[0]))


def _max_prob(readings: Sequence[Reading], threshold: float) -> bool:
    return readings[-1].max_prob >= threshold


def _entropy(readings: Sequence[Reading], threshold: float) -> bool:
    return readings[-1].entropy <= threshold


def _margin(readings: Sequence[Reading], threshold: float) -> bool:
    return readings[-1].margin >= threshold


def _confidence(readings: Sequence[Reading], threshold: float) -> bool:
    return readings[-1].confidence >= threshold  # nan, without that branch, is never enough


def _patience(readings: Sequence[Reading], threshold: float) -> bool:
    """Each of the last `threshold` readings agrees with the one before it."""
    if len(readings) <= threshold:
        return False
    last = readings[-1].prediction
    return all(said.prediction == last for said in readings[-1 - int(max(threshold, 0.0)) :])


def _max_logit(readings: Sequence[Reading], threshold: float) -> bool:
    logits = readings[-1].logits
    if logits is None:
        raise InputError(f"exit rule 'max_logit': {NO_LOGITS}")
    return float(logits.max()) >= threshold


NO_LOGITS = "the recording holds no logits; `splitexit record BUNDLE --logits --fresh` stores them"
"""What stands in the way of all that needs them, and what to do."""

RULES: dict[str, Rule] = {
    "max_prob": _max_prob,  # Hendrycks & Gimpel, arXiv 1610.02136; used for exits by SDN, arXiv 1810.07052
    "entropy": _entropy,  # BranchyNet, arXiv 1709.01686
    "margin": _margin,  # best-versus-second-best, Joshi et al., CVPR 2009
    "confidence": _confidence,  # EENets, arXiv 2409.05336, with 0.5
    "patience": _patience,  # PABEE, Zhou et al., NeurIPS 2020
    "max_logit": _max_logit,  # early exits with Bag-of-Features pooling, Passalis et al., Pattern Recognition 105, 2020
}

SOFTMAX_RULES = ("max_prob", "entropy", "margin")
"""The rules that look at nothing but the class probabilities of the last reading, which every exit has."""


def fires(check: ExitCheck, readings: Sequence[Reading]) -> bool:
    """Whether the exit that was read last stops the work.

    Raises UnknownNameError for an unknown rule, and InputError where the rule needs logits that were not recorded.
    """
    rule = RULES.get(check.rule)
    if rule is None:
        raise UnknownNameError("exit rule", check.rule, RULES)
    return rule(readings, check.threshold)
