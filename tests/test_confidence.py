"""Confidences from logits, and the exit rules."""

from __future__ import annotations

import numpy as np
import pytest

from splitexit.confidence import RULES, SOFTMAX_RULES, confidences, cut, fires, read_output, reading
from splitexit.decision import ExitCheck, Reading
from splitexit.errors import InputError, UnknownNameError


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


def test_the_last_of_one_number_more_is_a_learned_confidence() -> None:
    """Its sigmoid; the class logits go on as they are."""
    outputs = np.array([[1.0, 2.0, 0.0], [3.0, -1.0, 2.0]], dtype=np.float32)
    logits, learned = cut(outputs, 2)
    np.testing.assert_array_equal(logits, outputs[:, :2])
    assert learned is not None
    assert learned.dtype == np.float32
    np.testing.assert_allclose(learned, [0.5, 1 / (1 + np.exp(-2.0))], rtol=1e-6)
    same, none = cut(outputs, 3)
    assert none is None
    np.testing.assert_array_equal(same, outputs)


@pytest.mark.filterwarnings("error")
def test_a_learned_confidence_does_not_overflow() -> None:
    _, learned = cut(np.array([[0, 0, -1e4], [0, 0, 1e4]], dtype=np.float32), 2)
    assert learned is not None
    assert learned.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("classes", [1, 4, 10])
def test_any_other_width_is_refused(classes: int) -> None:
    with pytest.raises(InputError, match=f"3 numbers for {classes} classes"):
        cut(np.zeros((5, 3), np.float32), classes)


def test_one_output_is_read_as_in_a_batch() -> None:
    outputs = np.random.default_rng(0).normal(size=(50, 11)).astype(np.float32)
    logits, learned = cut(outputs, 10)
    assert learned is not None
    for row in range(50):
        said = read_output(3, outputs[row], 10)
        assert said == reading(3, logits[row])
        assert said.confidence == learned[row]
        assert said.logits is not None
        assert said.logits.shape == (10,)
    assert np.isnan(read_output(3, outputs[0], 11).confidence)


@pytest.mark.parametrize(
    ("rule", "sure", "unsure"),
    [
        ("max_prob", 0.9, 0.91),
        ("entropy", 0.3, 0.29),
        ("margin", 0.7, 0.71),
        ("confidence", 0.5, 0.51),
        ("max_logit", 2.5, 2.51),
    ],
)
def test_a_rule_fires_at_its_threshold_and_not_beyond(rule: str, sure: float, unsure: float) -> None:
    logits = np.array([2.5, -3.0], dtype=np.float16)
    said = Reading(0, 1, max_prob=0.9, entropy=0.3, margin=0.7, logits=logits, confidence=0.5)
    assert fires(ExitCheck(0, rule, sure), [said])
    assert not fires(ExitCheck(0, rule, unsure), [said])


def test_every_rule_judges_the_last_reading() -> None:
    sure, unsure = Reading(1, 0, 1.0, 0.0, 1.0), Reading(0, 0, 0.1, 2.3, 0.0)
    for rule in SOFTMAX_RULES:
        assert fires(ExitCheck(1, rule, 0.5), [unsure, sure])
        assert not fires(ExitCheck(0, rule, 0.5), [sure, unsure])
    assert set(SOFTMAX_RULES) < RULES.keys()


def test_without_a_learned_confidence_none_is_enough() -> None:
    for threshold in (-1.0, 0.0, 0.5):
        assert not fires(ExitCheck(0, "confidence", threshold), [Reading(0, 1, 1.0, 0.0, 1.0)])


def test_without_logits_no_logit_is_large() -> None:
    with pytest.raises(InputError, match="splitexit record BUNDLE --logits"):
        fires(ExitCheck(0, "max_logit", 1.0), [Reading(0, 1, 1.0, 0.0, 1.0)])


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_patience_counts_exits_that_agree_with_the_one_before(patience: int) -> None:
    """PABEE's counter, kept by hand over random predictions of six exits."""
    rng = np.random.default_rng(patience)
    for _ in range(200):
        said, counter = [], 0
        for exit_, prediction in enumerate(rng.integers(0, 2, 6).tolist()):
            counter = counter + 1 if said and prediction == said[-1].prediction else 0
            said.append(Reading(exit_, prediction, 0.5, 0.5, 0.5))
            assert fires(ExitCheck(exit_, "patience", patience), said) == (counter >= patience)


def test_an_unknown_rule_is_named() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'max_prob'"):
        fires(ExitCheck(0, "maxprob"), [Reading(0, 0, 1, 0, 1)])
