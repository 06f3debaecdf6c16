"""How honest the confidences of exits are, before and after temperature scaling (Guo et al., ICML 2017).

A temperature T divides an exit's logits. It changes no prediction, but in general the order of confidences, so that
thresholds would have to be fitted anew. An exit that is calibrated better does not have to choose better whom to let
go (arXiv 2508.21495), which is why this is a report and no step of fitting thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from splitexit.confidence import NO_LOGITS, confidences
from splitexit.errors import InputError
from splitexit.recording import Part

Array = np.ndarray[Any, Any]

BINS = 15
COLDEST, HOTTEST = 0.02, 50.0
"""Where the best temperature is looked for."""


@dataclass(frozen=True)
class Tempered:
    """One exit's temperature, from the calibration split, and what it does on the test split.

    nll   mean negative log-likelihood of the labels, in nats, without and with the temperature
    ece   expected calibration error of the largest probability, likewise
    """

    temperature: float
    nll: tuple[float, float]
    ece: tuple[float, float]


def temper(calibration: Part, test: Part) -> list[Tempered]:
    """For every exit; raises InputError where the recording holds no logits."""
    found = []
    for fitted, judged in zip(calibration.exits, test.exits, strict=True):
        if fitted.logits is None or judged.logits is None:
            raise InputError(f"temperatures: {NO_LOGITS}")
        temperature = fit(fitted.logits, calibration.label)
        first, then = (_judge(judged.logits, test.label, t) for t in (1.0, temperature))
        found.append(Tempered(temperature, (first[0], then[0]), (first[1], then[1])))
    return found


def fit(logits: Array, labels: Array) -> float:
    """The temperature with the least negative log-likelihood, which has one minimum.

    Args:
        logits: (n, num_classes) floats.
        labels: (n,) class numbers.
    """
    log_t = minimize_scalar(
        lambda x: nll(logits, labels, exp(x)), bounds=(log(COLDEST), log(HOTTEST)), method="bounded"
    ).x
    return exp(log_t)


def nll(logits: Array, labels: Array, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood of the labels in nats; shapes as for `fit`."""
    z = logits.astype(np.float64) / temperature
    return float(np.mean(logsumexp(z, axis=1) - z[np.arange(len(z)), labels]))


def ece(confidence: Array, right: Array, bins: int = BINS) -> float:
    """Expected calibration error: how far accuracy and mean confidence are apart, in bins of equal width.

    Args:
        confidence: (n,) in 0..1.
        right: (n,) bool.
    """
    confidence = np.asarray(confidence, np.float64)
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)  # intervals open to the left
    gaps = np.bincount(bin_of, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def _judge(logits: Array, labels: Array, temperature: float) -> tuple[float, float]:
    """Negative log-likelihood and calibration error."""
    prediction, max_prob, *_ = confidences(logits.astype(np.float64) / temperature)
    return nll(logits, labels, temperature), ece(max_prob, prediction == labels)
