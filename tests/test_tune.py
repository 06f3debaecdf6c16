"""Thresholds: found on one split alone, with the shares and costs that were asked for; the command."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf, log, nan
from pathlib import Path

import numpy as np
import pytest

from splitexit.cli import run
from splitexit.confidence import NARROWING, RULES, SOFTMAX_RULES, fires
from splitexit.decision import ExitCheck
from splitexit.errors import InputError, UnknownNameError, UsageError
from splitexit.experiment import Experiment
from splitexit.recording import Part
from splitexit.results import column, to_table
from splitexit.scenario import dump, load
from splitexit.sim import simulate
from splitexit.tune import temperature
from splitexit.tune.effects import Costs, Effect, Fit, Goal
from splitexit.tune.rules import view
from splitexit.tune.thresholds import MULTIPLES, NEVER, Seen, Tuner, balanced, shares, sign
from tests import learned, synthetic

MODEL = synthetic.spec(4)
SAYS = learned.recording(MODEL, samples=400)
TAKES = synthetic.calibration(MODEL, stage=0.010, head=0.001)
COSTS = Costs.of(MODEL, TAKES)
MEASURES = [*SOFTMAX_RULES, "confidence"]
"""Rules on float32 measures: no two samples are alike."""


def tuner(rule: str = "max_prob") -> Tuner:
    return Tuner(SAYS.calibration, rule, COSTS)


def on_test(fit: Fit) -> Effect:
    return view(SAYS.test, fit.rule).effect(fit.levels, COSTS)


def test_costs_by_hand() -> None:
    """Four stages of 100 MACs and 10 ms with heads of 10 MACs and 1 ms; without early exits 410 MACs."""
    np.testing.assert_allclose(COSTS.macs, np.array([110, 220, 330, 440]) / 410)
    np.testing.assert_allclose(COSTS.seconds, [0.011, 0.022, 0.033, 0.044])
    assert np.isnan(Costs.of(MODEL, None).seconds).all()


@pytest.mark.parametrize("rule", sorted(set(RULES) - NARROWING))
def test_an_effect_is_what_the_rule_does_sample_by_sample(rule: str) -> None:
    """As the device does it: reading by reading, until the rule fires."""
    levels = {"patience": 1.0, "max_logit": 2.5, "entropy": 1.2, "confidence": 0.7}
    thresholds = [levels.get(rule, 0.5)] * 3
    left, right = np.zeros(4), np.zeros(4)
    for row in range(len(SAYS.test)):
        said = [SAYS.test.readings(e)[row] for e in range(4)]
        checks = [ExitCheck(e, rule, t) for e, t in enumerate(thresholds)]
        leaves = next((e for e in range(3) if fires(checks[e], said[: e + 1])), 3)
        left[leaves] += 1
        right[leaves] += said[leaves].prediction == SAYS.test.label[row]
    found = Seen.of(SAYS.test, rule).effect(sign(rule) * np.array(thresholds), COSTS)
    assert len(set(left)) > 1
    assert found.shares == tuple(left / 400)
    assert found.accuracy == pytest.approx(right.sum() / 400)
    np.testing.assert_allclose(found.accuracies, [r / n if n else nan for r, n in zip(right, left, strict=True)])
    assert found.cost == pytest.approx(float(left @ [110, 220, 330, 440]) / 400 / 410)
    assert found.seconds == pytest.approx(float(left @ [0.011, 0.022, 0.033, 0.044]) / 400)


@pytest.mark.parametrize("a", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("rule", MEASURES)
def test_shares_match_those_wanted_to_one_sample(rule: str, a: float) -> None:
    reached = tuner(rule).fit("balanced", a=a).reached
    assert np.abs(np.array(reached.shares) - shares(a, 4)).max() <= 1 / 400 + 1e-12


def test_shares_are_in_proportion() -> None:
    np.testing.assert_allclose(shares(2.0, 3), [1 / 7, 2 / 7, 4 / 7])
    np.testing.assert_allclose(shares(1e300, 4), [0, 0, 0, 1], atol=1e-200)
    assert shares(0.0, 4).tolist() == [1, 0, 0, 0]
    assert shares(inf, 4).tolist() == [0, 0, 0, 1]


def test_the_equally_sure_leave_together() -> None:
    """Two of six are to leave at exit 0, where three are equally sure: three leave, and one less at exit 1."""
    sure = np.array([[5, 5, 5, 1, 2, 3], [9, 9, 9, 4, 6, 5]], float)
    assert balanced(sure, [1 / 3, 1 / 3, 1 / 3]).tolist() == [5, 6]
    assert balanced(sure, [0, 0, 1]).tolist() == [inf, inf]
    assert balanced(sure, [1, 0, 0]).tolist() == [1, inf]


def test_equal_shares_are_balanced() -> None:
    assert tuner().fit("balanced").reached.balance == pytest.approx(1.0, abs=1e-3)
    assert tuner().fit("balanced", a=0.0).reached.balance == 0.0
    half = Effect(1, 1, 1, (0.5, 0.5, 0.0, 0.0), (1, 1, nan, nan))
    assert half.balance == pytest.approx(log(2) / log(4))


@pytest.mark.parametrize("rule", MEASURES)
def test_the_mean_rule_costs_more_the_stricter_it_is(rule: str) -> None:
    """A larger multiple is stricter, of the entropy laxer; both ends are reached, and the test split follows."""
    fits = [tuner(rule).fit("mean", a=a) for a in np.linspace(0, 12, 60)]
    for costs in ([fit.reached.cost for fit in fits], [on_test(fit).cost for fit in fits]):
        assert costs == sorted(costs, reverse=rule == "entropy")
        assert sorted([costs[0], costs[-1]]) == pytest.approx([110 / 410, 440 / 410])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("method", MULTIPLES)
def test_one_knob_goes_from_the_fastest_to_the_most_careful(method: str, seed: int) -> None:
    """Bag-of-Features exits: largest logit against multiples of a mean; on any recording the cost does not fall."""
    says = learned.recording(MODEL, samples=200, seed=seed)
    fits = [Tuner(says.calibration, "max_logit", COSTS).fit(method, a=a) for a in np.linspace(0, 60, 80)]
    for part in (says.calibration, says.test):
        costs = [Seen.of(part, "max_logit").effect(fit.levels, COSTS).cost for fit in fits]
        assert costs == sorted(costs)
        assert costs[0] == pytest.approx(110 / 410, rel=0.02), "a largest logit below 0 is rare"
        assert costs[-1] == pytest.approx(440 / 410)


def shifted(exit_: int, by: float) -> Part:
    """The calibration split with all logits of an exit so much higher."""
    part = SAYS.calibration
    logits = part.exits[exit_].logits
    assert logits is not None
    changed = replace(part.exits[exit_], logits=logits + by)
    return replace(part, exits=(*part.exits[:exit_], changed, *part.exits[exit_ + 1 :]))


def test_the_mean_of_all_logits_by_hand() -> None:
    means = [said.logits.mean(dtype=float) for said in SAYS.calibration.exits[:-1] if said.logits is not None]
    fit = tuner("max_logit").fit("mean-logit", a=7.0)
    assert fit.thresholds == pytest.approx([7.0 * mean for mean in means])
    assert fit.policy()["thresholds"] == list(fit.thresholds)
    assert 0.4 < tuner("max_logit").fit("mean-logit", Goal("macs", 0.6)).reached.cost <= 0.6
    with pytest.raises(UsageError, match="is for the rule max_logit; for entropy take the method mean"):
        tuner("entropy").fit("mean-logit", a=1.0)
    with pytest.raises(InputError, match=r"the logits of exit 1 are -0.8.* take the method mean"):
        Tuner(shifted(1, -1.0), "max_logit", COSTS).fit("mean-logit", a=1.0)


def test_calibration_errors_of_those_who_leave() -> None:
    """By hand from the thresholds, exit by exit; where nobody leaves there is none."""
    part, fit = SAYS.test, tuner().fit("balanced")
    found = view(part, "max_prob").ece(fit.levels)
    inside = np.ones(len(part), bool)
    for e, threshold in enumerate([*fit.thresholds, -1.0]):
        gone = inside & (part.exits[e].max_prob >= threshold)
        right = part.exits[e].prediction == part.label
        assert found[e] == pytest.approx(temperature.ece(part.exits[e].max_prob[gone], right[gone]))
        inside &= ~gone
    *none, last = view(part, "max_prob").ece(np.full(3, NEVER["max_prob"]))
    assert np.isnan(none).all()
    assert last == pytest.approx(temperature.ece(part.exits[3].max_prob, part.exits[3].prediction == part.label))


def test_the_mean_rule_by_hand() -> None:
    part = SAYS.calibration
    means = [said.max_prob[said.prediction == part.label].mean(dtype=float) for said in part.exits[:-1]]
    assert tuner().fit("mean", a=0.9).thresholds == pytest.approx([0.9 * mean for mean in means])


@pytest.mark.parametrize("budget", [0.3, 0.5, 0.8, 1.05])
@pytest.mark.parametrize("rule", MEASURES)
def test_a_budget_is_hit_by_shares(rule: str, budget: float) -> None:
    """To what one sample more or less at every exit costs."""
    fit = tuner(rule).fit("budgeted", Goal("macs", budget))
    assert fit.reached.cost == pytest.approx(budget, abs=COSTS.macs.sum() / 400)
    seconds = tuner(rule).fit("budgeted", Goal("seconds", 0.044 * budget / 1.1))
    assert seconds.reached.seconds == pytest.approx(0.044 * budget / 1.1, abs=COSTS.seconds.sum() / 400)


def test_a_budget_at_its_ends() -> None:
    first, last = (tuner().fit("budgeted", Goal("macs", value)) for value in (COSTS.macs[0], 5.0))
    assert first.reached.shares == (1.0, 0.0, 0.0, 0.0)
    assert last.reached.shares == on_test(last).shares == (0.0, 0.0, 0.0, 1.0)
    assert last.thresholds == (2.0, 2.0, 2.0)
    with pytest.raises(UsageError, match="leaving at the first exit alone costs 26.8% of the exit-free network"):
        tuner().fit("budgeted", Goal("macs", 0.2))


@pytest.mark.parametrize("method", ["common", "mean"])
def test_the_most_accurate_within_a_budget(method: str) -> None:
    budget = Goal("macs", 0.6)
    fit = tuner().fit(method, budget)
    assert fit.reached.cost <= 0.6
    made = tuner()
    others = [made._common(t) if method == "common" else made._multiple("mean", t) for t in np.linspace(0, 1.5, 30)]
    better = [o for o in others if o.reached.cost <= 0.6 and o.reached.accuracy > fit.reached.accuracy + 0.01]
    assert not better
    with pytest.raises(UsageError, match="the cheapest thresholds of this method cost 11.000 ms"):
        tuner().fit(method, Goal("seconds", 0.001))


@pytest.mark.parametrize("method", ["common", "mean"])
def test_of_the_equally_accurate_the_cheapest(method: str) -> None:
    """Where every exit is always right, the first one is enough, however large the budget."""
    part = SAYS.calibration
    right = replace(part, exits=tuple(replace(said, prediction=part.label) for said in part.exits))
    fit = Tuner(right, "max_prob", COSTS).fit(method, Goal("macs", 5.0))
    assert fit.reached.shares == (1.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("rule", MEASURES)
@pytest.mark.parametrize("method", ["common", "mean", "budgeted"])
def test_little_accuracy_is_lost(method: str, rule: str) -> None:
    """And the more may be lost, the less it costs."""
    whole = float((SAYS.calibration.exits[-1].prediction == SAYS.calibration.label).mean())
    fits = [tuner(rule).fit(method, Goal("lose", points)) for points in (0.0, 0.02, 0.1, 1.0)]
    for fit, points in zip(fits, (0.0, 0.02, 0.1, 1.0), strict=True):
        assert fit.reached.accuracy >= whole - points
    costs = [fit.reached.cost for fit in fits]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > costs[-1]
    same = tuner(rule).fit(method, Goal("accuracy", whole - 0.02))
    assert same.thresholds == fits[1].thresholds
    with pytest.raises(UsageError, match=r"no thresholds of this method are right in at least 100.00%"):
        tuner(rule).fit(method, Goal("accuracy", 1.0))


def test_patience_is_a_whole_number_for_all() -> None:
    fit = tuner("patience").fit("common", Goal("lose", 1.0))
    assert fit.thresholds == (1.0, 1.0, 1.0)
    assert fit.reached.shares[0] == 0.0
    never = tuner("patience")._common(3.0)
    assert never.reached.shares == (0.0, 0.0, 0.0, 1.0)
    with pytest.raises(UsageError, match="take the method common"):
        tuner("patience").fit("balanced")


def test_what_does_not_go_together_is_refused() -> None:
    goal = Goal("lose", 0.01)
    with pytest.raises(UnknownNameError, match="unknown method 'comon'; did you mean 'common'"):
        tuner().fit("comon", goal)
    with pytest.raises(UnknownNameError, match="unknown exit rule"):
        tuner("maxprob")
    with pytest.raises(UsageError, match="budgeted looks for a goal"):
        tuner().fit("balanced", goal)
    with pytest.raises(UsageError, match="a is for mean, mean-logit and balanced"):
        tuner().fit("budgeted", a=1.0)
    with pytest.raises(UsageError, match="a is for mean, mean-logit and balanced"):
        tuner().fit("mean", goal, a=1.0)
    with pytest.raises(UsageError, match="at least 0"):
        tuner().fit("mean", a=-1.0)
    with pytest.raises(UsageError, match="looks for a goal"):
        tuner().fit("common")
    with pytest.raises(UsageError, match="needs a calibration"):
        Tuner(SAYS.calibration, "max_prob", Costs.of(MODEL, None)).fit("common", Goal("seconds", 1.0))


def test_what_a_recording_lacks_is_named() -> None:
    plain = synthetic.recording(MODEL).calibration
    with pytest.raises(InputError, match="exit 0 learned none"):
        Tuner(plain, "confidence", COSTS)
    with pytest.raises(InputError, match="splitexit record BUNDLE --logits"):
        Tuner(plain, "max_logit", COSTS)
    with pytest.raises(InputError, match="no early exit"):
        Seen.of(synthetic.recording(synthetic.spec(1), pairs={}).calibration, "max_prob")
    with pytest.raises(InputError, match="no multiple of it"):
        Tuner(shifted(0, -100.0), "max_logit", COSTS).fit("mean", a=1.0)


@pytest.mark.parametrize(("rule", "method"), [("max_prob", "mean"), ("entropy", "budgeted"), ("patience", "common")])
def test_a_scenario_with_the_policy_does_what_was_promised(tmp_path: Path, rule: str, method: str) -> None:
    """Through YAML and the simulator, over every test sample once: the same exits and the same accuracy."""
    fit = tuner(rule).fit(method, Goal("lose", 0.05))
    world = synthetic.experiment(
        tmp_path, model=MODEL, says=SAYS, takes=TAKES, requests=400, policies={"tuned": fit.policy()}
    )
    rows = to_table(simulate(world, "tuned", 0))
    assert len(set(column(rows, "sample").tolist())) == 400
    found = np.bincount(column(rows, "exit"), minlength=4) / 400
    assert tuple(found.tolist()) == on_test(fit).shares
    assert np.mean(column(rows, "prediction") == column(rows, "label")) == pytest.approx(on_test(fit).accuracy)
    assert column(rows, "device_compute_s").mean() == pytest.approx(on_test(fit).seconds)


# The command.


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return synthetic.write_bundle(tmp_path / "bundle", MODEL, SAYS, TAKES)


def said(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    """Its output; its errors where it fails."""
    assert run([str(argument) for argument in ("tune", *arguments)]) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def test_it_prints_a_policy_for_a_scenario(capsys: pytest.CaptureFixture[str], bundle: Path) -> None:
    lines = said(capsys, bundle, "--method", "budgeted", "--budget", 0.5).splitlines()
    assert lines[0].startswith("rule max_prob, method budgeted, a = 0.")
    assert lines[0].endswith("for 0.5 of the exit-free network's cost")
    assert lines[-3] == "policies:"
    assert lines[-2].startswith("  tuned: {name: threshold, rule: max_prob, thresholds: [0.")
    assert lines[-1] == "paste these lines into a scenario, or have them written with --out FILE"
    (reached,) = (line.split() for line in lines if line.startswith("calibration"))
    assert float(reached[2].rstrip("%")) == pytest.approx(50.0, abs=0.7)


def test_the_file_is_part_of_a_scenario(capsys: pytest.CaptureFixture[str], bundle: Path) -> None:
    file = bundle.parent / "tuned.yaml"
    text = said(capsys, bundle, "--rule", "entropy", "--method", "balanced", "--out", file)
    assert text.splitlines()[-1] == str(file)
    content = {key: value for key, value in synthetic.SCENARIO.items() if key != "policies"}
    scenario = bundle.parent / "scenario.yaml"
    scenario.write_text(dump(content) + file.read_text())
    fit = tuner("entropy").fit("balanced")
    world = Experiment.open(load(scenario))
    assert world.decider("tuned", 0, 0).policy.decide(None).exits == tuple(  # type: ignore[arg-type]
        ExitCheck(e, "entropy", t) for e, t in enumerate(fit.thresholds)
    )


def test_json_says_the_same(capsys: pytest.CaptureFixture[str], bundle: Path) -> None:
    document = json.loads(said(capsys, bundle, "--method", "mean", "--lose", 2, "--json"))
    fit = tuner().fit("mean", Goal("lose", 0.02))
    assert document["thresholds"] == document["policy"]["thresholds"] == list(fit.thresholds)
    assert document["goal"] == {"kind": "lose", "value": 0.02}
    assert document["parameter"] == fit.parameter
    assert document["calibration"]["accuracy"] == fit.reached.accuracy
    assert document["test"]["cost"] == on_test(fit).cost
    assert document["test"]["balance"] == on_test(fit).balance
    leaving = view(SAYS.test, "max_prob").ece(fit.levels)
    assert document["ece"]["leaving"] == [None if np.isnan(error) else error for error in leaving]
    assert document["ece"]["bins"] == 15
    tempered = temperature.temper(SAYS.calibration, SAYS.test)
    assert document["ece"]["all"] == pytest.approx([of_exit.ece[0] for of_exit in tempered], abs=1e-4)
    floor = json.loads(said(capsys, bundle, "--accuracy", 80, "--json"))
    assert floor["goal"] == {"kind": "accuracy", "value": 0.8}
    assert 0.8 <= floor["calibration"]["accuracy"] < 0.83
    budget = json.loads(said(capsys, bundle, "--budget-ms", 20, "--json"))
    assert 0.011 < budget["calibration"]["seconds"] <= 0.020


def test_temperatures_are_only_reported(capsys: pytest.CaptureFixture[str], bundle: Path) -> None:
    lines = said(capsys, bundle, "--temperature").splitlines()
    assert len(lines) == 1 + 4 + 1
    assert lines[-1].endswith("ECE in 15 bins")
    document = json.loads(said(capsys, bundle, "--temperature", "--json"))
    assert len(document["exits"]) == 4
    assert "takes no budget" in said(capsys, bundle, "--temperature", "--budget", 1, code=2)


def test_without_logits_it_says_what_to_do(capsys: pytest.CaptureFixture[str], bundle: Path) -> None:
    synthetic.recording(MODEL).save(bundle / "recording.parquet")
    expected = "the recording holds no logits; `splitexit record BUNDLE --logits --fresh` stores them"
    assert expected in said(capsys, bundle, "--temperature", code=2)
    assert expected in said(capsys, bundle, "--rule", "max_logit", code=2)


def test_one_goal_at_a_time(capsys: pytest.CaptureFixture[str], bundle: Path) -> None:
    assert "give one of" in said(capsys, bundle, "--budget", 0.4, "--lose", 1, code=2)


def test_without_calibration_there_are_no_milliseconds(capsys: pytest.CaptureFixture[str], bundle: Path) -> None:
    (bundle / "calibration.json").unlink()
    assert json.loads(said(capsys, bundle, "--json"))["test"]["seconds"] is None
    assert "calibration.json: no such file" in said(capsys, bundle, "--budget-ms", 20, code=2)
