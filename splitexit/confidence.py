"""From what an exit's head puts out to a Reading, and the rules by which an exit stops the work.

A head puts out K class logits, or K + 1 numbers: then the last one is the logit of a learned confidence, a branch of
its own beside the classifier that says whether to stop here (EENets, arXiv 2409.05336).

A rule is a function of the readings so far (the latest last) and a threshold. The device, the edge and
the simulator call the same functions. The rules of `NARROWING` have a memory beside: they rule classes out, and later
exits choose among those that remain. `narrow` applies that to a reading before the rule is asked.
"""

from __future__ import annotations

import math
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


def remaining(ruled_out: int, num_classes: int) -> Array:
    """Which classes a mask (Reading.ruled_out) leaves: (num_classes,) bool."""
    bits = np.frombuffer(ruled_out.to_bytes((num_classes + 7) // 8, "little"), np.uint8)
    left: Array = np.unpackbits(bits, count=num_classes, bitorder="little") == 0
    return left


def mask(excluded: Array) -> int:
    """The inverse, of the excluded classes: (num_classes,) bool -> Reading.ruled_out."""
    return int.from_bytes(np.packbits(excluded, bitorder="little").tobytes(), "little")


def restrict(said: Reading, ruled_out: int) -> Reading:
    """The reading over the classes that a mask leaves; unchanged where that is what it is already.

    Raises InputError where it has no logits.
    """
    if said.ruled_out == ruled_out:
        return said
    logits = _logits_of(said, "class exclusion")
    left = remaining(ruled_out, len(logits))
    return reading_among(said.exit, logits[left], ruled_out, len(logits), said.confidence)


def reading_among(exit_: int, logits: Array, ruled_out: int, num_classes: int, confidence: float = nan) -> Reading:
    """The Reading of one exit over the classes that a mask leaves, at least one; logits (remaining,) of those."""
    left = np.flatnonzero(remaining(ruled_out, num_classes))
    whole = np.full(num_classes, -np.inf, logits.dtype)
    whole[left] = logits
    if len(left) == 1:
        return Reading(exit_, int(left[0]), 1.0, 0.0, 1.0, whole, confidence, ruled_out)
    among = reading(exit_, logits)
    prediction = int(left[among.prediction])
    return Reading(exit_, prediction, among.max_prob, among.entropy, among.margin, whole, confidence, ruled_out)


def narrow(check: ExitCheck, said: Reading, before: Reading | None) -> Reading:
    """What an exit says, over the classes that the reading before it and this check leave.

    Class exclusion (arXiv 2309.13443): with p the sigmoids of the logits, m the largest and β the threshold, the
    classes with p > β·m remain. By the rule `exclusion`, that of the authors' code, they must also have remained
    before, or be the exit's own best one; so at least one does. By `exclusion_strict` what is excluded stays so, and
    where nothing would remain, all stays as it was (inferred).
    """
    ruled_out = 0 if before is None else before.ruled_out
    if check.rule in NARROWING:
        logits = _logits_of(said, f"exit rule {check.rule!r}")
        ruled_out = mask(~_kept(check, logits, remaining(ruled_out, len(logits))))
    return restrict(said, ruled_out)


def _kept(check: ExitCheck, logits: Array, before: Array) -> Array:
    """(num_classes,) bool; in logarithms, so that no small probability vanishes."""
    log_p = -np.logaddexp(0.0, -logits.astype(np.float64))
    above: Array = log_p > log_p.max() + (math.log(check.threshold) if check.threshold > 0.0 else -math.inf)
    above[logits.argmax()] = True  # β = 1, where nothing is above
    if check.rule == "exclusion_strict":
        return above & before if (above & before).any() else before
    before = before.copy()
    before[logits.argmax()] = True
    return above & before


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
    return float(_logits_of(readings[-1], "exit rule 'max_logit'").max()) >= threshold


def _one_left(readings: Sequence[Reading], threshold: float) -> bool:
    last = readings[-1]
    return last.logits is not None and last.ruled_out.bit_count() == len(last.logits) - 1


def _logits_of(said: Reading, who: str) -> Array:
    if said.logits is None:
        raise InputError(f"{who}: {NO_LOGITS}")
    return said.logits


NO_LOGITS = "the recording holds no logits; `splitexit record BUNDLE --logits --fresh` stores them"
"""What stands in the way of all that needs them, and what to do."""

RULES: dict[str, Rule] = {
    "max_prob": _max_prob,  # Hendrycks & Gimpel, arXiv 1610.02136; used for exits by SDN, arXiv 1810.07052
    "entropy": _entropy,  # BranchyNet, arXiv 1709.01686
    "margin": _margin,  # best-versus-second-best, Joshi et al., CVPR 2009
    "confidence": _confidence,  # EENets, arXiv 2409.05336, with 0.5
    "patience": _patience,  # PABEE, Zhou et al., NeurIPS 2020
    "max_logit": _max_logit,  # early exits with Bag-of-Features pooling, Passalis et al., Pattern Recognition 105, 2020
    "exclusion": _one_left,  # Wang, Li and Zhang, arXiv 2309.13443
    "exclusion_strict": _one_left,
}

NARROWING = frozenset({"exclusion", "exclusion_strict"})
"""The rules that rule classes out (see `narrow`)."""

NEED_LOGITS = NARROWING | {"max_logit"}
"""The rules that look at the logits, which a recording may lack."""

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
