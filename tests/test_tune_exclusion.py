"""Class exclusion on a whole recording: as the rule does it sample by sample; its β, found on one split alone."""

from __future__ import annotations

import json
from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest

from splitexit.cli import run
from splitexit.confidence import fires, narrow
from splitexit.decision import ExitCheck, Reading
from splitexit.errors import InputError, UnknownNameError, UsageError
from splitexit.recording import PARTS, ExitReadings, Part, Recording
from splitexit.results import column, to_table
from splitexit.sim import simulate
from splitexit.tune.effects import Costs, Goal
from splitexit.tune.exclusion import METHODS, STEPS, ExclusionTuner, Narrowed, Odds
from tests import learned, synthetic

MODEL = synthetic.spec(4)
TAKES = synthetic.calibration(MODEL, stage=0.010, head=0.001)
COSTS = Costs.of(MODEL, TAKES)
RULES = ("exclusion", "exclusion_strict")


def recording(samples: int = 400, seed: int = 0) -> Recording:
    """Exits that agree with each other, and are the surer the deeper they are."""
    rng = np.random.default_rng(seed)

    def part(name: str) -> Part:
        label = rng.integers(0, 10, samples).astype(np.uint16)
        shared, exits = rng.normal(size=(samples, 10)), []
        for e in range(4):
            logits = (2 * shared + rng.normal(size=shared.shape) - 4).astype(np.float32)
            logits[np.arange(samples), label] += 3 + e
            exits.append(ExitReadings.of_logits(logits, keep=True))
        pairs = learned.recording(MODEL, samples).parts[name].pairs
        return Part(name, np.arange(samples, dtype=np.uint32), label, tuple(exits), pairs)

    return Recording({name: part(name) for name in PARTS}, 10, {"digests": {}})


SAYS = recording()


def one(rule: str, levels: list[float], row: int) -> tuple[int, list[Reading]]:
    """Where one sample leaves, and what every exit up to there says, as a device does it."""
    before: Reading | None = None
    said: list[Reading] = []
    for e, level in enumerate(levels):
        check = ExitCheck(e, rule, level)
        before = narrow(check, SAYS.test.readings(e)[row], before)
        said.append(before)
        if fires(check, said):
            return e, said
    said.append(narrow(ExitCheck(len(levels)), SAYS.test.readings(len(levels))[row], before))
    return len(levels), said


@pytest.mark.parametrize("levels", [[0.1, 0.1, 0.1], [0.5, 0.02, 0.9], [0.0, 0.3, 0.0], [0.99, 0.0, 0.6]], ids=str)
@pytest.mark.parametrize("rule", RULES)
def test_all_samples_at_once_are_as_one_by_one(rule: str, levels: list[float]) -> None:
    odds = Odds.of(SAYS.test, rule)
    left, kept = odds.leave(np.array(levels)), [*odds.remaining(np.array(levels))]
    confidence = odds.confidence(np.array(levels))
    seen: list[list[tuple[bool, int]]] = [[], [], []]
    for row, label in enumerate(SAYS.test.label.tolist()):
        exit_, said = one(rule, levels, row)
        assert (exit_, said[-1].prediction == label) == (left.exit[row], left.right[row])
        assert confidence[row] == pytest.approx(said[-1].max_prob, abs=1e-6)
        for e, reading in enumerate(said[:3]):
            assert [c for c in range(10) if not reading.ruled_out >> c & 1] == np.flatnonzero(kept[e][:, row]).tolist()
            seen[e].append((bool(reading.ruled_out >> label & 1), 10 - reading.ruled_out.bit_count()))
    effect = odds.effect(np.array(levels), COSTS)
    assert len(set(left.exit.tolist())) > 1
    for e, of_exit in enumerate(seen):
        assert effect.wrongly_excluded[e] == pytest.approx(np.mean([wrong for wrong, _ in of_exit]))
        assert effect.classes_left[e] == pytest.approx(np.mean([count for _, count in of_exit]))


@pytest.mark.parametrize("rule", RULES)
def test_nothing_is_excluded_at_zero(rule: str) -> None:
    odds = Odds.of(SAYS.test, rule)
    effect = odds.effect(odds.never, COSTS)
    assert effect.shares == (0.0, 0.0, 0.0, 1.0)
    assert effect.classes_left == (10.0, 10.0, 10.0)
    assert effect.wrongly_excluded == (0.0, 0.0, 0.0)
    assert effect.accuracy == np.mean(SAYS.test.exits[-1].prediction == SAYS.test.label)
    tied = [replace(said, logits=np.zeros((400, 10), np.float32)) for said in SAYS.test.exits]
    rounded = Odds.of(replace(SAYS.test, exits=tuple(tied)), rule)
    assert rounded.effect(odds.never, COSTS).accuracy == effect.accuracy, "what was read counts, not the stored logits"


def test_small_probabilities_do_not_vanish() -> None:
    """All sigmoids are below what 64 bits can hold; the classes are told apart all the same."""
    logits = np.array([[-2000.0, -2001.0, -2010.0]], np.float32)
    said = ExitReadings.of_logits(logits, keep=True)
    part = Part("test", np.arange(1), np.array([0], np.uint16), (said, said), {})
    odds = Odds.of(part, "exclusion")
    for level, count in ((0.9 * np.exp(-1), 2.0), (1.1 * np.exp(-1), 1.0), (0.9 * np.exp(-10), 3.0)):
        assert odds.effect(np.array([level]), Costs(np.ones(2), np.ones(2))).classes_left == (count,)


def test_strict_exclusion_is_for_good() -> None:
    levels = np.array([0.3, 0.02, 0.05])
    first, second, third = Odds.of(SAYS.test, "exclusion_strict").remaining(levels)
    assert not (second & ~first).any()
    assert not (third & ~second).any()
    assert third.any(axis=0).all()
    first, second, _ = Odds.of(SAYS.test, "exclusion").remaining(levels)
    assert (second & ~first).any(), "else this recording shows nothing"


@pytest.mark.parametrize("seed", range(4))
def test_a_higher_level_costs_less(seed: int) -> None:
    odds = Odds.of(recording(200, seed).test, "exclusion")
    costs = [odds.effect(np.full(3, level), COSTS).cost for level in (0.0, *STEPS)]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] == pytest.approx(440 / 410)
    assert costs[-1] < 0.5


@pytest.mark.parametrize("points", [0.0, 0.01, 0.05])
@pytest.mark.parametrize("method", ["common", "greedy"])
@pytest.mark.parametrize("rule", RULES)
def test_little_accuracy_is_lost(rule: str, method: str, points: float) -> None:
    part = SAYS.calibration
    whole = np.mean(part.exits[-1].prediction == part.label)
    fit = ExclusionTuner(part, rule, COSTS).fit(method, Goal("lose", points))
    assert fit.reached.accuracy >= whole - points
    assert fit.reached == Odds.of(part, rule).effect(np.array(fit.thresholds), COSTS)
    assert ExclusionTuner(part, rule, COSTS).fit(method, Goal("accuracy", whole - points)).thresholds == fit.thresholds


def test_the_authors_search_by_hand() -> None:
    """Exit 2 first, then 1, then 0, each as far as the accuracy stays above the floor; never below 0.01."""
    part = SAYS.calibration
    odds, whole = Odds.of(part, "exclusion"), np.mean(part.exits[-1].prediction == part.label)
    tuner = ExclusionTuner(part, "exclusion", COSTS)
    found = tuner.fit("in-turn", Goal("lose", 0.02)).thresholds
    for e in (2, 1, 0):
        levels = np.array([0.0] * e + list(found[e:]))
        assert odds.effect(levels, COSTS).accuracy > whole - 0.02
        levels[e] += 0.01
        assert odds.effect(levels, COSTS).accuracy <= whole - 0.02
    assert tuner.fit("in-turn", Goal("lose", 0.0)).thresholds == (0.01, 0.01, 0.01)
    assert tuner.fit("in-turn", Goal("lose", 1.1)).thresholds == (0.99, 0.99, 0.99)


@pytest.mark.parametrize("points", [0.01, 0.03])
@pytest.mark.parametrize("rule", RULES)
def test_greedy_is_not_dearer_than_the_others(rule: str, points: float) -> None:
    tuner = ExclusionTuner(SAYS.calibration, rule, COSTS)
    in_turn, greedy, common = (
        tuner.fit(method, Goal("lose", points)).reached for method in ("in-turn", "greedy", "common")
    )
    assert greedy.cost < common.cost
    assert greedy.cost <= in_turn.cost


@pytest.mark.parametrize("method", ["common", "greedy"])
def test_within_a_budget(method: str) -> None:
    tuner = ExclusionTuner(SAYS.calibration, "exclusion", COSTS)
    fit = tuner.fit(method, Goal("macs", 0.8))
    assert 0.6 < fit.reached.cost <= 0.8
    assert tuner.fit(method, Goal("seconds", 0.03)).reached.seconds <= 0.03
    assert tuner.fit(method, Goal("macs", 2.0)).reached.accuracy >= fit.reached.accuracy
    with pytest.raises(UsageError, match="out of reach: the cheapest thresholds of this method cost"):
        tuner.fit(method, Goal("macs", 0.1))


def test_what_does_not_go_together_is_refused() -> None:
    tuner = ExclusionTuner(SAYS.calibration, "exclusion", COSTS)
    with pytest.raises(UnknownNameError, match="unknown method of rule exclusion 'greed'; did you mean 'greedy'"):
        tuner.fit("greed", Goal("lose", 0.01))
    for method in METHODS:
        with pytest.raises(UsageError, match="rule exclusion: it takes no a; give a budget or an accuracy"):
            tuner.fit(method, a=1.0)
    with pytest.raises(UsageError, match="for a budget take greedy"):
        tuner.fit("in-turn", Goal("macs", 0.5))
    with pytest.raises(UsageError, match="needs a calibration"):
        ExclusionTuner(SAYS.calibration, "exclusion", Costs.of(MODEL, None)).fit("greedy", Goal("seconds", 1.0))
    with pytest.raises(UnknownNameError, match="exclusion rule"):
        Odds.of(SAYS.test, "max_prob")
    with pytest.raises(InputError, match="no early exit"):
        Odds.of(replace(SAYS.test, exits=SAYS.test.exits[-1:]), "exclusion")


@pytest.mark.parametrize("rule", RULES)
def test_a_scenario_with_the_policy_does_what_was_promised(tmp_path: Path, rule: str) -> None:
    """Through YAML and the simulator, over every test sample once: the same exits and the same accuracy."""
    fit = ExclusionTuner(SAYS.calibration, rule, COSTS).fit("greedy", Goal("lose", 0.03))
    effect = Odds.of(SAYS.test, rule).effect(fit.levels, COSTS)
    world = synthetic.experiment(
        tmp_path, model=MODEL, says=SAYS, takes=TAKES, requests=400, policies={"tuned": fit.policy()}
    )
    rows = to_table(simulate(world, "tuned", 0))
    found = np.bincount(column(rows, "exit"), minlength=4) / 400
    assert tuple(found.tolist()) == effect.shares
    assert np.mean(column(rows, "prediction") == column(rows, "label")) == pytest.approx(effect.accuracy)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = synthetic.write_bundle(tmp_path / "bundle", MODEL, SAYS, TAKES)
    asked = ["tune", str(bundle), "--rule", "exclusion", "--method", "greedy", "--lose", "3"]
    assert run([*asked, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    fit = ExclusionTuner(SAYS.calibration, "exclusion", COSTS).fit("greedy", Goal("lose", 0.03))
    effect = Odds.of(SAYS.test, "exclusion").effect(fit.levels, COSTS)
    assert document["policy"] == {"name": "threshold", "rule": "exclusion", "thresholds": list(fit.thresholds)}
    assert isinstance(fit.reached, Narrowed)
    assert document["calibration"]["wrongly_excluded"] == list(fit.reached.wrongly_excluded)
    assert document["test"]["classes_left"] == list(effect.classes_left)
    assert 0.0 < document["test"]["balance"] < log(4)
    assert run(asked) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "rule exclusion, method greedy for at most 3 points less accuracy"
    (place,) = (number for number, line in enumerate(lines) if "classes (test)" in line)
    assert [lines[place + 1 + e].split()[:2] for e in range(3)] == [
        [str(e), f"{fit.reached.classes_left[e]:.2f}"] for e in range(3)
    ]
    assert all(len(line) <= 80 for line in lines[:-2])


def test_without_logits_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = synthetic.write_bundle(tmp_path / "bundle", MODEL, synthetic.recording(MODEL), TAKES)
    assert run(["tune", str(bundle), "--rule", "exclusion"]) == 2
    assert "rule exclusion: the recording holds no logits; `splitexit record BUNDLE" in capsys.readouterr().err
