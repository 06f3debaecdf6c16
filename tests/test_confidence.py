"""Confidences from logits, and the exit rules."""

from __future__ import annotations

import numpy as np
import pytest

from splitexit.confidence import RULES, confidences, fires, reading
from splitexit.decision import ExitCheck, Reading
from splitexit.errors import UnknownNameError


def test_confidences_of_a_hand_case() -> None:
    """Probabilities 1/2, 1/4, 1/4: entropy 1.5 ln 2, margin 1/4."""
    prediction, max_prob, entropy, margin = confidences(np.log([[0.25, 0.5, 0.25]]))
    assert prediction[0] == 1
    assert max_prob[0] == pytest.approx(0.5)
    assert entropy[0] == pytest.approx(1.5 * np.log(2))
    assert margin[0] == pytest.approx(0.25)


def test_confidences_do_not_overflow() -> None:
    said = reading(0, np.array([1e4, -1e4, 0.0], dtype=np.float32))
    assert (said.max_prob, said.entropy, said.margin) == (1.0, 0.0, 1.0)


def test_equal_logits_give_equal_readings_alone_and_in_a_batch() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 10)).astype(np.float32)
    batch = confidences(logits)
    for row in range(50):
        said = reading(3, logits[row])
        assert (said.prediction, said.max_prob, said.entropy, said.margin) == tuple(c[row] for c in batch)


@pytest.mark.parametrize(
    ("rule", "sure", "unsure"), [("max_prob", 0.9, 0.91), ("entropy", 0.3, 0.29), ("margin", 0.7, 0.71)]
)
def test_a_rule_fires_at_its_threshold_and_not_beyond(rule: str, sure: float, unsure: float) -> None:
    said = Reading(0, 1, max_prob=0.9, entropy=0.3, margin=0.7)
    assert fires(ExitCheck(0, rule, sure), [said])
    assert not fires(ExitCheck(0, rule, unsure), [said])


def test_every_rule_judges_the_last_reading() -> None:
    sure, unsure = Reading(1, 0, 1.0, 0.0, 1.0), Reading(0, 0, 0.1, 2.3, 0.0)
    for rule in RULES:
        assert fires(ExitCheck(1, rule, 0.5), [unsure, sure])
        assert not fires(ExitCheck(0, rule, 0.5), [sure, unsure])


def test_an_unknown_rule_is_named() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'max_prob'"):
        fires(ExitCheck(0, "maxprob"), [Reading(0, 0, 1, 0, 1)])
