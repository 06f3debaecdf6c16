"""Class exclusion: which classes remain, and what an exit then says."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from splitexit.confidence import fires, mask, narrow, reading, reading_among, remaining, restrict
from splitexit.decision import ExitCheck, Observation, Plan, Reading
from splitexit.errors import InputError
from splitexit.inference import Decider, infer, infer_on_edge
from splitexit.policies import Policy
from splitexit.steps import Encode, NoReply, Payload, ReadExit, Send
from tests.test_inference import MODEL, SETTING

PAPER, STRICT = ExitCheck(0, "exclusion", 0.5), ExitCheck(0, "exclusion_strict", 0.5)


def logits_of(*probabilities: float) -> np.ndarray:
    """Logits whose sigmoids these are."""
    p = np.array(probabilities)
    return np.log(p / (1 - p)).astype(np.float32)


def says(*probabilities: float) -> Reading:
    return reading(0, logits_of(*probabilities))


@pytest.mark.parametrize("classes", [2, 7, 8, 9, 43])
def test_a_mask_comes_back(classes: int) -> None:
    excluded = np.random.default_rng(classes).random(classes) < 0.5
    np.testing.assert_array_equal(remaining(mask(excluded), classes), ~excluded)
    assert mask(excluded) == sum(1 << c for c in np.flatnonzero(excluded).tolist())


@pytest.mark.parametrize("check", [PAPER, STRICT])
def test_the_hand_case(check: ExitCheck) -> None:
    """p = .9 .5 .4 .05 and β = 1/2: above .45 lie the first two."""
    said = narrow(check, says(0.9, 0.5, 0.4, 0.05), None)
    assert said.ruled_out == 0b1100
    assert said.prediction == 0
    assert said.logits is not None
    np.testing.assert_array_equal(np.isneginf(said.logits), [False, False, True, True])
    odds = np.exp(logits_of(0.9, 0.5))
    assert said.max_prob == pytest.approx(odds[0] / odds.sum(), rel=1e-6)
    assert not fires(check, [said])


def test_the_best_class_comes_back_in_the_paper_and_not_in_strict() -> None:
    """Class 3 was ruled out; the next exit finds it the likeliest."""
    before = narrow(PAPER, says(0.9, 0.8, 0.7, 0.05), None)
    assert before.ruled_out == 0b1000
    later = says(0.6, 0.2, 0.1, 0.9)
    again = narrow(PAPER, later, before)
    assert again.ruled_out == 0b0110
    assert again.prediction == 3
    strict = narrow(STRICT, later, before)
    assert strict.ruled_out == 0b1110
    assert strict.prediction == 0
    assert fires(STRICT, [before, strict])
    assert (strict.max_prob, strict.entropy, strict.margin) == (1.0, 0.0, 1.0)


def test_strict_keeps_all_where_nothing_would_remain() -> None:
    before = narrow(STRICT, says(0.9, 0.8, 0.01, 0.01), None)
    assert narrow(STRICT, says(0.1, 0.1, 0.9, 0.9), before).ruled_out == before.ruled_out == 0b1100


@pytest.mark.parametrize("rule", ["exclusion", "exclusion_strict"])
def test_a_threshold_of_zero_excludes_nothing(rule: str) -> None:
    """Not even what a sigmoid cannot tell from zero; and one of 1 leaves the best class alone."""
    said = reading(0, np.array([40.0, -200.0, 3.0], dtype=np.float32))
    assert narrow(ExitCheck(0, rule, 0.0), said, None) is said
    alone = narrow(ExitCheck(0, rule, 1.0), says(0.9, 0.5, 0.2), None)
    assert alone.prediction == 0
    assert fires(ExitCheck(0, rule, 1.0), [alone])


@pytest.mark.parametrize("rule", ["exclusion", "exclusion_strict"])
def test_something_always_remains(rule: str) -> None:
    """Over random chains of exits; strict never lets a class return."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        before: Reading | None = None
        for exit_ in range(4):
            check = ExitCheck(exit_, rule, float(rng.random()))
            said = narrow(check, reading(exit_, rng.normal(0, 3, 12).astype(np.float32)), before)
            assert said.logits is not None
            left = remaining(said.ruled_out, 12)
            assert left.any()
            assert left[said.prediction]
            assert said.prediction == np.argmax(said.logits)
            if before is not None and rule == "exclusion_strict":
                assert said.ruled_out & before.ruled_out == before.ruled_out
            before = said


def test_restricting_twice_changes_nothing() -> None:
    said = restrict(says(0.9, 0.5, 0.4, 0.05), 0b0011)
    assert said.prediction == 2
    assert restrict(said, 0b0011) is said
    assert said.logits is not None
    same = reading_among(0, said.logits[2:], 0b0011, 4)
    assert (same.prediction, same.max_prob, same.entropy) == (said.prediction, said.max_prob, said.entropy)


def test_without_logits_it_says_how_to_get_them() -> None:
    bare = replace(says(0.9, 0.5), logits=None)
    with pytest.raises(InputError, match="--logits"):
        narrow(PAPER, bare, None)


class Excluding(Policy):
    """One plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def decide(self, observation: Observation) -> Plan:
        return self.plan


SAID = {  # of a model with three exits: nothing is sure, but the first rules out class 1, where the others see it first
    0: logits_of(*(0.7, 0.01, *[0.6] * 8)),
    1: logits_of(*(0.3, 0.9, *[0.2] * 8)),
    2: logits_of(*(0.4, 0.9, 0.8, *[0.2] * 7)),
}


def drive(plan: Plan, replies: bool = True) -> tuple[Reading, list[object]]:
    """Through the device's loop, and the edge's where something is sent."""
    asked: list[object] = []
    steps = infer(Decider(Excluding(plan), SETTING), 1.0)
    value: object = None
    try:
        while True:
            step = steps.send(value)
            asked.append(step)
            if isinstance(step, ReadExit):
                value = (reading(step.exit, SAID[step.exit]), 0.001)
            elif isinstance(step, Encode):
                value = Payload(100, 0.0, 0.0, 0.0)
            elif isinstance(step, Send):
                value = NoReply(step.timeout_s)
                if replies:
                    return on_edge(step), asked
    except StopIteration as done:
        assert done.value.reading is not None
        return done.value.reading, asked


def on_edge(send: Send) -> Reading:
    steps, value = infer_on_edge(MODEL, send.split, send.edge_exits, send.prior), None
    try:
        while True:
            step = steps.send(value)
            assert isinstance(step, ReadExit)
            value = (reading(step.exit, SAID[step.exit]), 0.001)
    except StopIteration as done:
        answer: Reading = done.value
        return answer


def test_the_final_exit_chooses_among_the_rest() -> None:
    """On the device, and on the edge, where the mask comes with the features and takes its bytes."""
    here, _ = drive(Plan(exits=(PAPER,)))
    assert (here.exit, here.prediction, here.ruled_out) == (2, 2, 0b10)
    there, asked = drive(Plan(exits=(PAPER,), split=1, codec="raw"))
    assert (there.exit, there.prediction, there.ruled_out) == (2, 2, 0b10)
    send = asked[-1]
    assert isinstance(send, Send)
    assert send.payload.size_bytes == 100 + 3
    assert send.prior is not None
    assert send.prior.ruled_out == 0b10


def test_exits_on_the_edge_go_on_with_the_mask() -> None:
    """There class 1 is the best and returns, by the paper's rule; strictly it does not."""
    behind = (ExitCheck(1, "exclusion", 0.5),)
    there, _ = drive(Plan(exits=(PAPER,), split=1, codec="raw", edge_exits=behind))
    assert (there.exit, there.prediction) == (1, 1)
    strict = (ExitCheck(1, "exclusion_strict", 0.5),)
    there, _ = drive(Plan(exits=(STRICT,), split=1, codec="raw", edge_exits=strict))
    assert (there.exit, there.prediction) == (2, 2)


def test_without_a_reply_the_reading_there_is_answers() -> None:
    alone, _ = drive(Plan(exits=(PAPER,), split=1, codec="raw"), replies=False)
    assert (alone.exit, alone.prediction, alone.ruled_out) == (0, 0, 0b10)


def test_nothing_is_sent_along_where_nothing_is_ruled_out() -> None:
    _, asked = drive(Plan(exits=(ExitCheck(0, "exclusion", 0.0),), split=1, codec="raw"))
    send = asked[-1]
    assert isinstance(send, Send)
    assert (send.prior, send.payload.size_bytes) == (None, 100)
    assert math.isfinite(send.timeout_s)
