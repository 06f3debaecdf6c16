"""What plans are expected to do, against every sample driven through `infer`, and against the simulator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splitexit.confidence import RULES, fires
from splitexit.decision import ExitCheck, LinkEstimate, Observation, Plan, Setting
from splitexit.errors import ArtifactError, InputError, PolicyError, UnknownNameError
from splitexit.experiment import Experiment
from splitexit.outlook import Outlook, fired, follow, undominated
from splitexit.policies import Policy
from splitexit.recording import Recording
from splitexit.results import column, to_table
from splitexit.sim import simulate
from tests import instances, synthetic

LEVELS = {
    "max_prob": (0.2, 1.0),
    "entropy": (0.1, 1.4),
    "margin": (0.0, 1.0),
    "confidence": (0.2, 0.8),
    "patience": (0.0, 2.5),
    "max_logit": (0.0, 4.0),
}


def any_check(rng: np.random.Generator, exit_: int) -> ExitCheck:
    rule = str(rng.choice(sorted(LEVELS)))
    return ExitCheck(exit_, rule, float(rng.uniform(*LEVELS[rule])))


def any_plan(rng: np.random.Generator, of: Setting) -> Plan:
    """Random exits with random rules on both sides of a random cut."""
    pairs = [(None, None), *((s, c) for s, codecs in of.codecs.items() for c in codecs if c != "fp16")]
    while True:
        split, codec = pairs[int(rng.integers(len(pairs)))]
        read = [e for e in range(len(of.spec.exits)) if rng.random() < 0.7]
        limit = of.spec.num_stages if split is None else split
        here = tuple(any_check(rng, e) for e in read if of.exit_stages[e] <= limit)
        there = tuple(any_check(rng, e) for e in read if of.exit_stages[e] > limit)
        plan = Plan(here, split, codec, there)
        try:
            plan.check(of.spec)
        except PolicyError:
            continue  # an exit that adds to one that is not read
        return plan


@pytest.mark.parametrize("batch", range(3))
def test_an_outlook_is_the_mean_over_all_samples(batch: int) -> None:
    """300 random plans: any rule, exits on either side, exits that add up, codecs with and without loss."""
    for seed in range(20 * batch, 20 * batch + 20):
        check_outlook(np.random.default_rng(seed))


def check_outlook(rng: np.random.Generator) -> None:
    of = instances.setting(rng, samples=20)
    plans = [any_plan(rng, of) for _ in range(5)]
    link, wait_s = LinkEstimate(10 ** rng.uniform(4, 8), float(rng.exponential(0.05))), float(rng.exponential(0.05))
    outlook = Outlook.of(plans, of)
    for row, plan in enumerate(plans):
        results = instances.expected(plan, of, link, wait_s)
        assert outlook.latency_s(link, wait_s)[row] == pytest.approx(np.mean([r.response_s for r in results]), rel=1e-9)
        assert outlook.accuracy[row] == pytest.approx(np.mean([r.right for r in results]))
        assert outlook.sent[row] == pytest.approx(np.mean([r.answered_by == "edge" for r in results]))
        assert outlook.size_bytes[row] == pytest.approx(np.mean([r.size_bytes for r in results]))
        assert outlook.shares[row] == pytest.approx(
            np.bincount([r.exit for r in results], minlength=len(of.spec.exits)) / len(results)
        )
        stops, at = follow(plan, of)
        assert [stops[k].exit for k in at] == [r.exit for r in results]


def test_a_slower_side_counts_in_full() -> None:
    of = instances.setting(np.random.default_rng(3))
    outlook = Outlook.of([plan for _, plan in instances.cut_short(of)], of)
    once = outlook.latency_s(of.link)
    np.testing.assert_allclose(outlook.latency_s(of.link, device=3.0) - once, 2.0 * outlook.device_s, atol=1e-12)
    np.testing.assert_allclose(outlook.latency_s(of.link, edge=3.0) - once, 2.0 * outlook.edge_s, atol=1e-12)


@pytest.mark.parametrize("rule", sorted(LEVELS))
def test_rules_hold_for_many_samples_as_for_one(rule: str) -> None:
    of = instances.setting(np.random.default_rng(4), samples=50)
    part, rng = of.calibration, np.random.default_rng(5)
    for _ in range(20):
        check = ExitCheck(0, rule, float(np.float32(rng.uniform(*LEVELS[rule]))))
        found = fired(check, part.exits[0], [part.exits[0].prediction])
        assert found.tolist() == [fires(check, [said]) for said in part.readings(0)]


def test_a_threshold_is_compared_in_double_precision() -> None:
    """0.9 in single precision is less than 0.9: a reading of that does not fire."""
    of = instances.setting(np.random.default_rng(4))
    said = of.calibration.exits[0]
    said.max_prob[:] = np.float32(0.9)
    check = ExitCheck(0, "max_prob", 0.9)
    assert fired(check, said, []).any() == fires(check, [of.calibration.readings(0)[0]]) is False


def test_what_cannot_be_foretold_is_refused() -> None:
    of = instances.setting(np.random.default_rng(1))
    assert set(RULES) - set(LEVELS) == {"exclusion", "exclusion_strict"}
    for rule, error in (("exclusion", InputError), ("sure", UnknownNameError)):
        with pytest.raises(error, match=rule):
            Outlook.of([Plan(exits=(ExitCheck(0, rule, 0.5),))], of)
    of.calibration.exits[0].logits = None
    with pytest.raises(InputError, match="--logits"):
        Outlook.of([Plan(exits=(ExitCheck(0, "max_logit", 0.5),))], of)
    with pytest.raises(PolicyError, match="exit 9"):
        Outlook.of([Plan(exits=(ExitCheck(9),))], of)
    with pytest.raises(ArtifactError, match="splitexit record"):
        Outlook.of([Plan(split=0, codec="jpeg")], of)


def test_a_plan_is_worked_out_once_for_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    of = instances.setting(np.random.default_rng(2))
    plans = [plan for _, plan in instances.cut_short(of)]
    first = Outlook.of(plans, of)
    monkeypatch.setattr("splitexit.outlook.follow", None)
    np.testing.assert_array_equal(Outlook.of(plans[::-1], of).accuracy, first.accuracy[::-1])


class Fixed(Policy):
    """One plan, from outside."""

    plan = Plan()

    def decide(self, observation: Observation) -> Plan:
        return self.plan


PLANS = (
    Plan(),
    Plan(exits=(ExitCheck(0, "max_prob", 0.5), ExitCheck(1, "entropy", 0.9))),
    Plan(split=0, codec="jpeg"),
    Plan(exits=(ExitCheck(0, "margin", 0.2),), split=1, codec="uint8", edge_exits=(ExitCheck(1, "max_prob", 0.6),)),
)


def world(folder: Path, **changes: object) -> Experiment:
    """Nobody waits for anybody, and the test split is the calibration split."""
    model = synthetic.spec()
    part = synthetic.recording(model).calibration
    return synthetic.experiment(
        folder,
        model=model,
        says=Recording({"calibration": part, "test": replace(part, name="test")}, model.num_classes, {"digests": {}}),
        requests=len(part),
        devices__arrivals={"name": "periodic", "rate_hz": 0.1},
        devices__deadline_ms=9000.0,
        policies={"fixed": {"name": "tests.test_outlook:Fixed"}},
        **changes,
    )


@pytest.mark.parametrize("plan", PLANS)
def test_the_simulator_finds_what_was_expected(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last digits where nothing varies."""
    monkeypatch.setattr(Fixed, "plan", plan)
    of = world(tmp_path)
    outlook, table = Outlook.of([plan], of.setting()), to_table(simulate(of, "fixed", 0))
    assert column(table, "response_s").mean() == pytest.approx(outlook.latency_s(of.setting().link)[0], abs=1e-9)
    assert (column(table, "prediction") == column(table, "label")).mean() == outlook.accuracy[0]
    assert column(table, "payload_bytes").mean() == pytest.approx(outlook.size_bytes[0])


@pytest.mark.parametrize("plan", PLANS)
def test_times_that_vary_stay_within_the_interval(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from splitexit.calibration import Distribution
    from splitexit.stats import student

    monkeypatch.setattr(Fixed, "plan", plan)
    takes = synthetic.calibration(synthetic.spec(), stage=Distribution((0.005, 0.008, 0.02, 0.05)), head=0.001)
    of = world(tmp_path, takes=takes)
    means = [column(to_table(simulate(of, "fixed", seed)), "response_s").mean() for seed in range(12)]
    found = student(means, 0.99)
    assert found.low <= Outlook.of([plan], of.setting()).latency_s(of.setting().link)[0] <= found.high


def test_the_front_is_what_brute_force_finds() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        costs = rng.integers(0, 6, (int(rng.integers(1, 30)), 3)).astype(float)
        kept = {tuple(costs[row]) for row in undominated(costs)}
        for row in map(tuple, costs):
            beaten = any(all(a <= b for a, b in zip(c, row, strict=True)) and c != row for c in map(tuple, costs))
            assert (row in kept) != beaten


def test_what_nothing_beats() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        costs = rng.integers(0, 4, (int(rng.integers(1, 30)), 3)).astype(float)
        found = np.isin(np.arange(len(costs)), undominated(costs))
        for row, kept in enumerate(found):
            beaten = [(o <= costs[row]).all() and (o < costs[row]).any() for o in costs]
            twin = any((costs[:row] == costs[row]).all(axis=1))
            assert kept == (not any(beaten) and not twin)
