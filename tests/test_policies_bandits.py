"""Bandits over splits: hand cases, limits, sublinear regret, what is learned from whom, and a changing edge."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitexit.bench.bandit_replay import FREE_LINK, Replay, Table, play
from splitexit.bundle import Exit
from splitexit.decision import EdgeLoad, LinkEstimate, Observation, Outcome, Plan, Reading, Setting, Utility
from splitexit.errors import InputError
from splitexit.experiment import Experiment
from splitexit.inference import Answer
from splitexit.policies import POLICIES
from splitexit.policies.ans import Ans
from splitexit.policies.hi_lcb import HiLcb
from splitexit.policies.i_splitee import ISplitEE
from splitexit.policies.splitee import SplitEE
from splitexit.policies.splitee_s import SplitEES, SplitEESOracle
from splitexit.recording import ExitReadings, PairReadings, Part
from splitexit.sim import simulate
from tests import synthetic

CODEC = "uint8"


def said(confidence: Any, right: Any = None) -> ExitReadings:
    """Readings with these confidences; the label is 1 and `right` says who found it."""
    sure = np.asarray(confidence, np.float32)
    prediction = np.ones(len(sure), np.uint16) if right is None else np.asarray(right).astype(np.uint16)
    return ExitReadings(prediction, sure, np.zeros_like(sure), np.zeros_like(sure))


def part_of(confidences: Any, context: Any = None, right: Any = None) -> Part:
    """Samples with these confidences (n, exits); every split was recorded without loss."""
    sure = np.asarray(confidences, np.float32)
    n, exits = sure.shape
    rights = np.ones(sure.shape) if right is None else np.asarray(right)
    pairs = {(s, CODEC): PairReadings(np.full(n, 100, np.uint32), {}, lossless=True) for s in range(1, exits)}
    columns = tuple(said(sure[:, e], rights[:, e]) for e in range(exits))
    return Part("test", np.arange(n, dtype=np.uint32), np.ones(n, np.uint16), columns, pairs, context)


def setting_of(part: Part, **changes: Any) -> Setting:
    """Of a model with one exit behind every stage."""
    model = synthetic.spec(len(part.exits))
    takes = synthetic.calibration(model, pairs=list(part.pairs))
    codecs = {split: (codec,) for split, codec in part.pairs}
    return replace(Setting(model, takes, takes, codecs, part, FREE_LINK, Utility(), math.inf), **changes)


def prepared(of: type[Any], setting: Setting, **arguments: Any) -> Any:
    policy = of(**arguments)
    policy.prepare(setting, np.random.default_rng(0))
    return policy


def arm_of(policy: SplitEE) -> dict[int, int]:
    return {arm.exit: number for number, arm in enumerate(policy.known_arms)}


def stream(samples: int = 4000, exits: int = 12, seed: int = 0) -> Part:
    """Samples of different difficulty, surer with depth: the final exit nearly always is."""
    rng = np.random.default_rng(seed)
    depth = np.linspace(-0.5, 3.0, exits)
    z = depth + rng.normal(0, 1.2, (samples, 1)) + rng.normal(0, 0.5, (samples, exits))
    return part_of(0.5 + 0.5 / (1.0 + np.exp(-1.5 * z)))


def regret(of: type[Any], part: Part, requests: int, seed: int, **arguments: Any) -> np.ndarray[Any, Any]:
    """Cumulative regret to the best fixed arm."""
    setting = setting_of(part)
    policy = prepared(of, setting, **arguments)
    table = Table.of(policy, part, setting.spec.final_exit)
    order = np.random.default_rng(seed).integers(0, len(part), requests)
    played = play(policy, setting, part, order.tolist(), arm_of(policy))
    best = table.fixed.reward.mean(axis=0).max()
    return np.cumsum(best - table.of_played(order, *played).reward)


class TestHandCases:
    """policies.md A, tests (a) to (d); λ1 = .08, λ2 = .02, o = .5, α = .75."""

    @pytest.mark.parametrize(("own", "far", "reward", "cost"), [(0.90, 0.99, 0.64, 0.26), (0.50, 0.95, 0.19, 0.76)])
    def test_layer_three(self, own: float, far: float, reward: float, cost: float) -> None:
        """(a), by learning from a replay as much as by the formula; the γ of both places is one."""
        part = part_of([[0.6, 0.6, own, far]])
        setting = setting_of(part)
        policy = prepared(SplitEE, setting, alpha=0.75, arms=[2])
        assert policy.reward(0, own, far) == pytest.approx(reward)
        answer = Replay(policy, setting, part).request(0)
        assert policy._totals[0, 0] == pytest.approx(reward)
        table = Table.of(policy, part, 3)
        scores = table.of_played(np.array([0]), np.array([0]), np.array([answer.answered_by == "edge"]))
        assert (scores.reward[0], scores.cost[0]) == (pytest.approx(reward), pytest.approx(cost))

    def test_the_side_variant_pays_for_every_head(self) -> None:
        arms = prepared(SplitEES, setting_of(stream(50))).known_arms
        assert [arm.cost for arm in arms] == pytest.approx([0.1 * (i + 1) for i in range(12)])
        assert [len(arm.plan.exits) for arm in arms] == [*range(1, 12), 11]

    def test_without_costs_all_arms_are_alike(self) -> None:
        """(b): λ1 = λ2 = o = 0 and α > 1."""
        part = stream(500)
        policy = prepared(SplitEE, setting_of(part), alpha=1.1, lambda1=0.0, lambda2=0.0, offload=0.0)
        means = Table.of(policy, part, 11).fixed.reward.mean(axis=0)
        assert means == pytest.approx(np.full(12, part.exits[-1].max_prob.mean()))

    @pytest.mark.parametrize("side", [SplitEE, SplitEES, SplitEESOracle])
    @pytest.mark.parametrize("offload", [0.1, 0.4, 1e6])
    def test_it_ends_up_with_the_best_arm(self, side: type[SplitEE], offload: float) -> None:
        """(c): the arm that is played in the end is brute force's; with o → ∞ it is L, unless one never sends."""
        part = stream(400)
        setting = setting_of(part)
        policy = prepared(side, setting, offload=offload, alpha=0.75, c=0.1, lambda1=0.05)
        rewards = np.array(
            [
                [
                    c - policy.mu * arm.cost
                    if c >= 0.75 or arm.exit == 11
                    else final - policy.mu * (arm.cost + offload)
                    for arm, c in zip(policy.known_arms, row, strict=True)
                ]
                for row, final in zip(
                    np.array([e.max_prob for e in part.exits]).T, part.exits[-1].max_prob, strict=True
                )
            ]
        ).mean(axis=0)
        order = np.random.default_rng(1).integers(0, len(part), 4000).tolist()
        arms = play(policy, setting, part, order, arm_of(policy)).arms
        assert np.bincount(arms[-500:]).argmax() == rewards.argmax()
        assert (rewards.argmax() == 11) == (offload == 1e6)

    def test_an_arm_that_never_sends_beats_the_last_one(self) -> None:
        """(c), its exception."""
        part = part_of([[0.5, 0.9, 0.95], [0.6, 0.8, 0.9]])
        assert Table.of(prepared(SplitEE, setting_of(part), offload=1e6), part, 2).best == 1

    def test_alpha_zero_never_sends(self) -> None:
        """(d)."""
        part = stream(200)
        policy = prepared(SplitEE, setting_of(part), alpha=0.0)
        assert not play(policy, setting_of(part), part, range(200), arm_of(policy)).sent.any()


class TestRegret:
    def test_it_is_sublinear_and_side_observations_help(self) -> None:
        """(e): R(20k)/R(2k) < 5 for both, and less regret with side observations; always-final's grows tenfold."""
        part, last = stream(), {}
        for of in (SplitEE, SplitEES):
            found = regret(of, part, 20_000, 0)
            assert found[-1] / found[1999] < 5.0, of
            last[of] = found[-1]
        assert 0.0 < last[SplitEES] < last[SplitEE]
        table = Table.of(prepared(SplitEE, setting_of(part)), part, 11)
        means = table.fixed.reward.mean(axis=0)
        assert 20_000 * (means.max() - means[-1]) > 5 * last[SplitEE]

    def test_a_smaller_c_explores_less(self) -> None:
        part = stream()
        assert regret(SplitEE, part, 6000, 0, c=0.3)[-1] < 0.7 * regret(SplitEE, part, 6000, 0)[-1]

    def test_the_deployable_variant_is_close_to_the_oracle(self) -> None:
        """What it guesses of C_L costs little."""
        part = stream()
        guessed, known = (regret(of, part, 8000, 0)[-1] for of in (SplitEES, SplitEESOracle))
        assert guessed == pytest.approx(known, rel=0.6)


class TestLearning:
    def test_every_arm_is_played_once_first(self) -> None:
        part = stream(50)
        policy = prepared(SplitEE, setting_of(part))
        assert play(policy, setting_of(part), part, range(12), arm_of(policy)).arms.tolist() == list(range(12))

    def test_a_late_reply_is_waited_for_by_playing_on(self) -> None:
        policy = prepared(SplitEE, setting_of(stream(50)))
        assert {policy.decide(Observation()) for _ in range(5)} == {policy.known_arms[0].plan}

    def test_a_lost_reply_earns_what_the_device_said_and_costs_the_offload(self) -> None:
        policy = prepared(SplitEE, setting_of(stream(50)))
        reading = Reading(0, 1, 0.6, 0.0, 0.0)
        policy.learn(Outcome(policy.known_arms[0].plan, (reading,), 1.0, "fallback", 100))
        assert policy._totals[0, 0] == pytest.approx(0.6 - 0.1 - 0.5)

    def test_of_a_lost_reply_only_arms_learn_that_would_have_left(self) -> None:
        policy = prepared(SplitEES, setting_of(stream(50)))
        readings = tuple(Reading(e, 1, sure, 0.0, 0.0) for e, sure in enumerate((0.5, 0.8, 0.6)))
        policy.learn(Outcome(policy.known_arms[2].plan, readings, 1.0, "fallback", 100))
        assert policy._counts[0, :4].tolist() == [0, 1, 1, 0]
        assert policy._totals[0, 1] == pytest.approx(0.8 - 0.2)
        assert policy.observed.tolist() == [1, 0]

    def test_side_observations_are_known_or_guessed(self) -> None:
        """Arm 2 answers (0.9); arm 0 would have sent (0.5), arm 1 would have left (0.8)."""
        policy = prepared(SplitEES, setting_of(stream(50)))
        final = tuple(Reading(e, 1, sure, 0.0, 0.0) for e, sure in enumerate([*([0.91] * 11), 0.97]))
        policy.learn(Outcome(policy.known_arms[11].plan, final, 1.0, "device"))
        before = policy._totals[0].copy()
        readings = tuple(Reading(e, 1, sure, 0.0, 0.0) for e, sure in enumerate((0.5, 0.8, 0.9)))
        policy.learn(Outcome(policy.known_arms[2].plan, readings, 1.0, "device"))
        earned = policy._totals[0] - before
        assert earned[:3] == pytest.approx([0.97 - 0.1 - 0.5, 0.8 - 0.2, 0.9 - 0.3])
        assert policy.observed.tolist() == [12, 1]

    def test_without_anything_heard_the_guess_is_its_own_confidence(self) -> None:
        policy = prepared(SplitEES, setting_of(stream(50)))
        readings = tuple(Reading(e, 1, sure, 0.0, 0.0) for e, sure in enumerate((0.5, 0.9)))
        policy.learn(Outcome(policy.known_arms[1].plan, readings, 1.0, "device"))
        assert policy._totals[0, 0] == pytest.approx(0.9 - 0.1 - 0.5)

    def test_alpha_is_fitted_with_labels(self) -> None:
        """Exit 0 is right exactly where it is surer than 0.85: that is the threshold, whatever it says of itself."""
        rng = np.random.default_rng(0)
        sure = np.column_stack([rng.uniform(0.5, 1.0, 3000), np.full(3000, 0.99)])
        part = part_of(sure, right=np.column_stack([sure[:, 0] >= 0.85, np.ones(3000)]))
        policy = prepared(SplitEE, setting_of(part), alpha="fitted", lambda1=0.4, offload=0.1)
        assert policy.threshold == 0.85
        assert policy.known_arms[0].plan.exits[-1].threshold == 0.85


class TestArms:
    def test_a_split_without_the_codec_is_left_out_or_refused(self) -> None:
        part = stream(50, 4)
        setting = setting_of(part, codecs={1: (CODEC,), 3: ("raw",)})
        assert [arm.exit for arm in prepared(SplitEE, setting).known_arms] == [0, 3]
        with pytest.raises(InputError, match="'uint8' at split 3 is not calibrated"):
            prepared(SplitEE, setting, arms=[0, 2])
        with pytest.raises(InputError, match=r"arms \[4\]: expected exits of 0\.\.3"):
            prepared(SplitEE, setting, arms=[4])
        with pytest.raises(InputError, match="codec 'fp16' is on offer at the split of no exit"):
            prepared(SplitEE, setting, codec="fp16")

    def test_depth_by_multiply_accumulates(self) -> None:
        part = stream(50, 4)
        model = synthetic.spec(4)
        uneven = replace(
            model, stages=tuple(replace(s, macs=m) for s, m in zip(model.stages, (10, 10, 20, 40), strict=True))
        )
        policy = prepared(SplitEE, setting_of(part, spec=uneven), cost="macs", lambda2=0.0)
        assert [arm.cost for arm in policy.known_arms] == pytest.approx([0.04, 0.08, 0.16, 0.32])

    def test_exits_that_add_up_are_all_read(self) -> None:
        """And paid for."""
        part = stream(50, 4)
        model = synthetic.spec(4)
        exits = (*model.exits[:1], *(replace(e, additive=True) for e in model.exits[1:3]), Exit(4, 10, 1, {}))
        policy = prepared(SplitEE, setting_of(part, spec=replace(model, exits=exits)))
        assert [check.exit for check in policy.known_arms[2].plan.exits] == [0, 1, 2]
        assert policy.known_arms[2].cost == pytest.approx(0.08 * 3 + 0.02 * 3)
        answer: Answer = Replay(policy, setting_of(part, spec=replace(model, exits=exits)), part).request(0)
        assert answer.reading is not None


class TestContexts:
    def test_every_distortion_has_its_own_best_arm(self) -> None:
        """Clean images leave at once; blurred ones are sure only at the last exit."""
        clean, blurred = [[0.95, 0.96, 0.97]] * 200, [[0.35, 0.4, 0.9]] * 200
        context = np.array([""] * 200 + ["blur=1"] * 200)
        part = part_of(clean + blurred, context)
        setting = setting_of(part)
        policy = prepared(ISplitEE, setting, lambda1=0.1, c=0.1)
        order = np.random.default_rng(0).integers(0, 400, 1500)
        arms = play(policy, setting, part, order.tolist(), arm_of(policy)).arms[-500:]
        of_clean = order[-500:] < 200
        assert np.bincount(arms[of_clean]).argmax() == 0
        assert np.bincount(arms[~of_clean]).argmax() == 2

    def test_an_unknown_context_counts_as_undistorted(self) -> None:
        policy = prepared(ISplitEE, setting_of(part_of([[0.9, 0.9]], np.array(["noise=1"]))))
        assert policy.contexts == {"": 0, "noise=1": 1}
        plain = policy.decide(Observation(context=None))
        assert policy.decide(Observation(context="fog")) is plain
        assert policy.decide(Observation(context="noise=1")) is not plain

    def test_the_simulator_tells_the_context(self, tmp_path: Path) -> None:
        model = synthetic.spec()
        recording = synthetic.recording(model)
        for of in recording.parts.values():
            of.context = np.array(["", "noise=1"] * 100)
        world = synthetic.experiment(tmp_path, says=recording, policies={"i": "i_splitee"}, devices__policy="i")
        assert world.recording.test.context_of(1) == "noise=1"
        policy = world.decider("i", 0, 0).policy
        assert isinstance(policy, ISplitEE)
        assert len(policy.contexts) == 2
        assert len(simulate(world, "i", 0, 100)) == 100


@pytest.fixture
def world(tmp_path: Path) -> Experiment:
    return synthetic.experiment(tmp_path, requests=400)


SENDS: dict[str, Any] = {"alpha": 1.1, "arms": [0]}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("splitee", SENDS),
        ("splitee_s", SENDS),
        ("i_splitee", SENDS),
        ("hi_lcb", {"cost": 0.0}),
        ("ans", {"alpha": 5.0}),
    ],
)
def test_an_outage_stops_nobody(tmp_path: Path, name: str, arguments: dict[str, Any]) -> None:
    """No reply comes for a while; every request is answered all the same."""
    outage = [{"kind": "outage", "at_s": 2.0, "for_s": 5.0}]
    policies = {name: {"name": name, **arguments}}
    world = synthetic.experiment(tmp_path, policies=policies, devices__policy=name, events=outage)
    rows = simulate(world, name, 0, 100)
    assert len(rows) == 100
    assert any(row.answered_by == "fallback" for row in rows)


class TestHiLcb:
    COST = 0.3

    def test_it_finds_the_confidence_from_which_it_is_right_often_enough(self) -> None:
        """It is right three times in ten below 0.6, always above: from there on it need not send."""
        rng = np.random.default_rng(0)
        sure = np.column_stack([rng.uniform(0.0, 1.0, 4000), np.ones(4000)])
        right = np.where(sure[:, 0] < 0.6, rng.random(4000) < 0.3, True)
        part = part_of(sure, right=np.column_stack([right, np.ones(4000)]))
        setting = setting_of(part)
        policy = prepared(HiLcb, setting, cost=self.COST)
        play(policy, setting, part, rng.integers(0, 4000, 6000).tolist(), {0: 0, 1: 1})
        threshold = policy.decide(Observation(link=FREE_LINK, edge_load=None)).exits[-1].threshold
        assert threshold == pytest.approx(0.6, abs=0.07)

    def test_agreement_with_the_edge_is_all_it_sees(self) -> None:
        """Both are always wrong, but alike: it comes to trust the device."""
        rng = np.random.default_rng(0)
        sure = np.column_stack([rng.uniform(0.0, 1.0, 500), np.ones(500)])
        part = part_of(sure, right=np.zeros((500, 2)))
        policy = prepared(HiLcb, setting_of(part), cost=self.COST)
        sent = play(policy, setting_of(part), part, rng.integers(0, 500, 4000).tolist(), {0: 0, 1: 1}).sent
        assert sent[:10].all()
        assert sent[-500:].mean() < 0.1

    def test_its_cost_is_the_worth_of_the_time(self, world: Experiment) -> None:
        """Where that takes longer than a right answer is worth nothing is sent, on a free link everything."""
        policy = prepared(HiLcb, world.setting())
        setting = world.setting()
        link = LinkEstimate(8e6, 0.010)
        expected_s = setting.offload_s(1, CODEC, link, 0.005) - setting.device_s(1)
        assert policy._cost(Observation(link=link, edge_load=EdgeLoad(1, 0.005))) == pytest.approx(expected_s)
        slow = policy.decide(Observation(link=LinkEstimate(8e6, 2.0), edge_load=None))
        assert slow.exits[-1].threshold == 0.0
        fast = policy.decide(Observation(link=FREE_LINK, edge_load=None))
        assert fast.exits[-1].threshold > 1.0

    def test_a_miss_counts_where_the_deadline_would_pass(self, world: Experiment) -> None:
        strict = replace(world.setting(), utility=Utility(1.0, 0.0, 0.5), deadline_s=0.1)
        policy = prepared(HiLcb, strict)
        assert policy._cost(Observation(link=LinkEstimate(8e6, 1.0), edge_load=None)) == 0.5
        assert policy._cost(Observation(link=LinkEstimate(8e9, 0.0), edge_load=None)) == 0.0

    def test_the_final_exit_is_refused(self, world: Experiment) -> None:
        with pytest.raises(InputError, match=r"exit 2: expected one before the final exit, 0\.\.1"):
            prepared(HiLcb, world.setting(), exit=2)


class TestAns:
    """A network of six stages; the edge's speed changes at half time, and with it the best split."""

    BYTES = (9000, 6000, 4000, 2500, 1200, 600)

    def setting(self) -> Setting:
        model = synthetic.spec(6)
        pairs = {(s, CODEC): size for s, size in enumerate(self.BYTES) if s}
        says = synthetic.recording(model, 50, pairs)
        takes = synthetic.calibration(model, stage=0.030, pairs=list(pairs))
        codecs = {split: (codec,) for split, codec in pairs}
        link = LinkEstimate(1.0, 9.0)  # a wrong belief, which it does not look at
        return Setting(model, takes, takes, codecs, says.calibration, link, Utility(), 2.0)

    def delays(self, setting: Setting, stage_s: float) -> dict[Plan, float]:
        """Behind the device: 8 Mbit/s, 5 ms, and so much for each stage."""
        return {
            Plan(split=s, codec=CODEC): 0.005 + 8 * setting.payload_bytes(s, CODEC) / 8e6 + stage_s * (6 - s)
            for s in setting.codecs
        }

    def run(self, policy: Ans, delays: dict[Plan, float], requests: int, rng: np.random.Generator) -> list[Plan]:
        plans = []
        for _ in range(requests):
            plan = policy.decide(Observation())
            plans.append(plan)
            delay_s = delays.get(plan, 0.0) * float(rng.normal(1.0, 0.05))
            answered = "device" if plan.split is None else "edge"
            policy.learn(Outcome(plan, (), 0.0, answered, 0, delay_s))
        return plans

    def best(self, setting: Setting, delays: dict[Plan, float]) -> Plan:
        total = {plan: delay_s + setting.device_s(plan.split or 0) for plan, delay_s in delays.items()}
        total[Plan()] = setting.local_s()
        return min(total, key=lambda plan: total[plan])

    @pytest.mark.parametrize(("first_s", "then_s"), [(0.002, 0.045), (0.045, 0.002)])
    def test_it_finds_the_best_split_again(self, first_s: float, then_s: float) -> None:
        setting, rng = self.setting(), np.random.default_rng(0)
        policy, found = prepared(Ans, setting), []
        for stage_s in (first_s, then_s):
            delays = self.delays(setting, stage_s)
            plans = self.run(policy, delays, 1000, rng)[-300:]
            found.append(self.best(setting, delays))
            assert sum(plan == found[-1] for plan in plans) > 0.8 * len(plans), stage_s
        assert found[0] != found[1]

    def test_staying_local_does_not_stop_the_learning(self) -> None:
        """An edge out of reach, and then one that is fast: forced samples find out."""
        setting, rng = self.setting(), np.random.default_rng(0)
        policy = prepared(Ans, setting)
        away, near = self.delays(setting, 0.5), self.delays(setting, 0.001)
        stayed = self.run(policy, away, 600, rng)
        assert sum(plan == Plan() for plan in stayed[100:]) > 450
        assert {n + 1 for n, plan in enumerate(stayed) if plan != Plan()} >= {k * k for k in range(1, 25)}
        assert self.run(policy, near, 8000, rng)[-1] == self.best(setting, near)

    def test_a_lost_reply_counts_as_the_deadline(self) -> None:
        setting = self.setting()
        policy = prepared(Ans, setting, discount=1.0)
        plan = policy.decide(Observation())
        policy.learn(Outcome(plan, (), 0.1, "fallback", 900, 0.05))
        x = policy._features[policy._number[plan.split, CODEC]]
        assert policy._moment == pytest.approx(x * 2.0 / setting.local_s())

    def test_no_codec_is_refused(self) -> None:
        with pytest.raises(InputError, match="none of the codecs"):
            prepared(Ans, self.setting(), codecs=["raw"])


@pytest.mark.parametrize("name", ["splitee", "splitee_s", "i_splitee", "ans", "hi_lcb"])
def test_yaml_describes_every_parameter(name: str) -> None:
    from splitexit.scenario.signature import signature_model

    fields = signature_model(POLICIES.load(name)).model_fields.values()
    assert fields
    assert all(field.description for field in fields), [field.alias for field in fields if not field.description]
