"""Temperatures, and how honest confidences are: by hand, and where the right answer is known."""

from __future__ import annotations

from dataclasses import replace
from math import log

import numpy as np
import pytest

from splitexit.errors import InputError
from splitexit.recording import ExitReadings
from splitexit.tune import temperature
from tests import learned, synthetic

MODEL = synthetic.spec(4)
SAYS = learned.recording(MODEL, samples=400)


def drawn(scale: float, samples: int = 8000) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `scale` times too large for the labels drawn from them, and the labels."""
    rng = np.random.default_rng(0)
    z = 2 * rng.normal(size=(samples, 5))
    labels = (z + rng.gumbel(size=z.shape)).argmax(axis=1)  # drawn from softmax(z)
    return scale * z, labels


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_factor(scale: float) -> None:
    logits, labels = drawn(scale)
    found = temperature.fit(logits, labels)
    assert found == pytest.approx(scale, rel=0.05)
    for other in (0.9 * found, 1.1 * found):
        assert temperature.nll(logits, labels, found) < temperature.nll(logits, labels, other)


def test_likelihood_and_calibration_error_by_hand() -> None:
    assert temperature.nll(np.log([[0.5, 0.25, 0.25]]), np.array([1])) == pytest.approx(log(4))
    confidence, right = np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, False, True, False])
    assert temperature.ece(confidence, right) == pytest.approx(0.5 * 0.45 + 0.5 * 0.05)
    assert temperature.ece(np.array([1.0, 0.0]), np.array([True, False])) == 0.0
    one_bin = temperature.ece(np.array([0.61, 0.65]), np.array([True, False]))
    assert one_bin == pytest.approx(0.63 - 0.5), "errors of one bin cancel out before the absolute value"
    next_bin = temperature.ece(np.array([0.61, 0.67]), np.array([True, False]))
    assert next_bin == pytest.approx((0.39 + 0.67) / 2), "10/15 lies between them"


def test_tempered_exits_are_better_calibrated() -> None:
    logits, labels = drawn(3.0)
    parts = [
        replace(part, label=labels[half], exits=(ExitReadings.of_logits(logits[half].astype(np.float32), keep=True),))
        for part, half in ((SAYS.calibration, slice(4000)), (SAYS.test, slice(4000, 8000)))
    ]
    (found,) = temperature.temper(*parts)
    assert found.temperature == pytest.approx(3.0, rel=0.06)
    assert found.nll[1] < found.nll[0]
    assert found.ece[1] < 0.03 < found.ece[0]
    with pytest.raises(InputError, match="splitexit record BUNDLE --logits"):
        temperature.temper(synthetic.recording(MODEL).calibration, SAYS.test)
