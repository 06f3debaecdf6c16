"""Edgent and JALAD, against brute force over every configuration, and at their limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import exp, inf
from pathlib import Path

import numpy as np
import pytest

from splitexit.decision import LinkEstimate, Outcome, Plan, Setting
from splitexit.policies import Policy
from splitexit.policies.edgent import Edgent, end
from splitexit.policies.edgent_dynamic import EdgentDynamic
from splitexit.policies.jalad import Jalad
from splitexit.policies.neurosurgeon import Neurosurgeon
from splitexit.policies.spinn import Spinn
from splitexit.results import column, to_table, utilities
from splitexit.sim import simulate
from tests import instances, synthetic


def needs_s(plan: Plan, of: Setting, expected_s: float) -> float:
    """How far off the deadline must be: nobody waits for a reply when there is just time for an answer of one's own."""
    return expected_s + (of.fallback_s[plan.split] if plan.split is not None else 0.0)


# Edgent


@pytest.mark.parametrize("batch", range(instances.BATCHES))
def test_edgent_takes_the_deepest_exit_that_is_in_time(batch: int) -> None:
    for rng in instances.of_batch(batch):
        of, link = instances.setting(rng), instances.any_link(rng)
        wait_s, left_s = float(rng.exponential(0.01)), 10 ** rng.uniform(-2.5, 0)
        found = instances.observe(instances.prepared(Edgent(), of), link, wait_s, left_s)
        times = {plan: instances.mean_s(plan, of, link, wait_s) for _, plan in instances.cut_short(of)}
        in_time = [(e, plan) for e, plan in instances.cut_short(of) if needs_s(plan, of, times[plan]) <= left_s]
        deepest = max((e for e, _ in in_time), default=None)
        best_s = min(times[plan] for e, plan in in_time if e == deepest) if in_time else min(times.values())
        assert instances.mean_s(found, of, link, wait_s) == pytest.approx(best_s, rel=1e-9)
        if in_time:
            assert end(found, of.spec) == deepest
            assert needs_s(found, of, best_s) <= left_s + 1e-12


@pytest.mark.parametrize("seed", range(20))
def test_edgent_goes_deeper_with_time_and_bandwidth(seed: int) -> None:
    rng = np.random.default_rng(seed)
    of = instances.setting(rng)
    policy = instances.prepared(Edgent(), of)

    def depths(choices: Sequence[tuple[LinkEstimate, float]]) -> list[int]:
        """Only of those that are in time."""
        plans = [(instances.observe(policy, link, 0.0, left_s), link, left_s) for link, left_s in choices]
        return [end(p, of.spec) for p, link, left_s in plans if needs_s(p, of, instances.mean_s(p, of, link)) <= left_s]

    longer = depths([(of.link, left_s) for left_s in np.geomspace(1e-3, 10.0, 25)])
    faster = depths([(replace(of.link, rate_bps=rate), of.deadline_s) for rate in np.geomspace(1e3, 1e10, 25)])
    assert longer == sorted(longer)
    assert longer[-1] == of.spec.final_exit
    assert faster == sorted(faster)


def test_edgent_takes_the_fastest_pair_where_nothing_is_in_time() -> None:
    of = instances.setting(np.random.default_rng(0))
    found = instances.observe(instances.prepared(Edgent(), of), of.link, 0.0, -1.0)
    assert instances.mean_s(found, of, of.link) == min(
        instances.mean_s(plan, of, of.link) for _, plan in instances.cut_short(of)
    )


def test_edgent_meets_in_the_simulator_what_it_promised(tmp_path: Path) -> None:
    """Nothing varies and nobody waits: a deadline that any exit meets is met by every request."""
    takes = synthetic.calibration(synthetic.spec(), stage=0.03, head=0.001)
    for deadline_ms in (40.0, 75.0, 120.0):
        of = synthetic.experiment(
            tmp_path / str(deadline_ms),
            takes=takes,
            requests=50,
            devices__arrivals={"name": "periodic", "rate_hz": 0.5},
            devices__deadline_ms=deadline_ms,
            policies={"edgent": {"name": "edgent"}},
            edge__hardware="workstation-cpu",
        )
        table = to_table(simulate(of, "edgent", 0))
        assert column(table, "deadline_met").all(), deadline_ms
        assert len(set(column(table, "exit"))) == 1


# Edgent, dynamic


@pytest.mark.parametrize("batch", range(instances.BATCHES))
def test_the_map_holds_the_largest_reward_of_every_state(batch: int) -> None:
    for rng in instances.of_batch(batch):
        of = instances.setting(rng)
        policy = instances.prepared(EdgentDynamic(), of)
        plans = [plan for _, plan in instances.cut_short(of)]
        assert len(policy._map) == 41
        for state in rng.choice(41, 2, replace=False):
            link = replace(of.link, rate_bps=of.link.rate_bps * 10 ** ((int(state) - 20) / 10))
            chosen = policy._map[state][0]
            rewards, times = zip(*(reward(plan, of, link) for plan in plans), strict=True)
            if max(rewards) > 0:
                assert reward(chosen, of, link)[0] == pytest.approx(max(rewards), rel=1e-9)
            else:
                assert reward(chosen, of, link)[1] == pytest.approx(min(times), rel=1e-9)


def reward(plan: Plan, of: Setting, link: LinkEstimate) -> tuple[float, float]:
    """exp(instances.accuracy) + 1 / T in time, else 0; and T."""
    results = instances.expected(plan, of, link)
    expected_s, right = (
        float(np.mean(values)) for values in zip(*((r.response_s, r.right) for r in results), strict=True)
    )
    in_time = needs_s(plan, of, expected_s) <= of.deadline_s
    return (exp(right) + 1 / expected_s if in_time else 0.0), expected_s


@pytest.mark.parametrize("batch", range(instances.BATCHES))
def test_static_and_dynamic_agree_on_a_constant_link(batch: int) -> None:
    """With the same objective, at the scenario's deadline."""
    for rng in instances.of_batch(batch):
        of = instances.setting(rng)
        static, dynamic = instances.prepared(Edgent(), of), instances.prepared(EdgentDynamic(objective="deepest"), of)
        for _ in range(5):
            assert instances.observe(dynamic, of.link) == instances.observe(static, of.link, left_s=of.deadline_s)
            dynamic.learn(instances.transfer(of, of.link.rate_bps) if of.codecs else Outcome(Plan(), (), 0.1, "device"))


def test_a_constant_link_keeps_the_plan_of_its_state() -> None:
    """And that is what brute force chooses for the very rate, which is the middle state."""
    of = instances.setting(np.random.default_rng(8))
    policy = instances.prepared(EdgentDynamic(), of)
    plan = max((plan for _, plan in instances.cut_short(of)), key=lambda plan: reward(plan, of, of.link)[0])
    for _ in range(200):
        assert instances.observe(policy, of.link) in (plan, policy._map[20][1])
        policy.learn(instances.transfer(of, of.link.rate_bps))
    assert policy.replans == 0


# JALAD


@pytest.mark.parametrize("batch", range(instances.BATCHES))
def test_jalad_is_the_fastest_that_keeps_the_bound(batch: int) -> None:
    for rng in instances.of_batch(batch):
        of, link, wait_s = instances.setting(rng), instances.any_link(rng), float(rng.exponential(0.01))
        loss = float(rng.choice([0.0, 0.1, 0.125, 0.25, 1.0]))
        found = instances.observe(instances.prepared(Jalad(loss=loss), of), link, wait_s)
        whole = instances.accuracy(Plan(), of)
        plans = [Plan(), *(Plan(split=s, codec=c) for s, codecs in of.codecs.items() for c in codecs)]
        kept = [plan for plan in plans if whole - instances.accuracy(plan, of) <= loss + 1e-9]
        assert found in kept
        assert instances.mean_s(found, of, link, wait_s) == pytest.approx(
            min(instances.mean_s(p, of, link, wait_s) for p in kept), rel=1e-9
        )


@pytest.mark.parametrize("batch", range(instances.BATCHES))
def test_jalad_without_loss_and_with_whole_features_is_neurosurgeon(batch: int) -> None:
    for rng in instances.of_batch(batch):
        of = instances.setting(rng)
        jalad = instances.prepared(Jalad(loss=0.0, codecs=["raw"]), of)
        other = instances.prepared(Neurosurgeon(codecs=["raw"]), of)
        for _ in range(5):
            link, wait_s = instances.any_link(rng), float(rng.exponential(0.01))
            assert instances.observe(jalad, link, wait_s) == instances.observe(other, link, wait_s)


def test_fewer_bits_on_a_slower_link() -> None:
    """Bits by codec; the fewer the smaller and the less accurate."""
    model = synthetic.spec(2)
    of = instances.chain(model)
    sizes = {"affine": 8000, "affine:bits=4": 4000, "affine:bits=2": 2000}
    pairs = {(0, codec): size for codec, size in sizes.items()}
    rng = np.random.default_rng(0)
    part = synthetic.recording(model, pairs=pairs).calibration
    for codec, wrong in (("affine", 0.0), ("affine:bits=4", 0.05), ("affine:bits=2", 0.3)):
        part.pairs[0, codec].exits[1].prediction = np.where(
            rng.random(len(part)) < wrong, 99, part.exits[1].prediction
        ).astype(np.uint16)
    takes = synthetic.calibration(model, stage=0.0, pairs=list(pairs))
    encode = {(0, "affine"): 0.0, (0, "affine:bits=4"): 0.01, (0, "affine:bits=2"): 0.02}
    device = synthetic.calibration(model, stage=0.1, pairs=list(pairs))
    device = replace(device, encode={pair: type(device.stages[0]).constant(s) for pair, s in encode.items()})
    of = replace(of, device=device, edge=takes, codecs={0: tuple(sizes)}, calibration=part)

    def bits(loss: float, rate_bps: float) -> str | None:
        return instances.observe(instances.prepared(Jalad(loss=loss), of), LinkEstimate(rate_bps, 0.0)).codec

    assert [bits(1.0, rate) for rate in (1e8, 2e6, 5e5, 1e4)] == ["affine", "affine:bits=4", "affine:bits=2", None]
    assert [bits(0.1, rate) for rate in (1e8, 2e6, 5e5, 1e4)] == ["affine", "affine:bits=4", "affine:bits=4", None]
    assert {bits(0.0, rate) for rate in (1e8, 2e6)} == {"affine"}


# Limits


def planners() -> list[Policy]:
    return [Edgent(), EdgentDynamic(), Spinn(limits=[], exits=[]), Jalad(loss=1.0)]


@pytest.mark.parametrize("number", range(4))
def test_limits(number: int) -> None:
    """Without a link, or with an endless round trip, nothing is sent; where the edge costs nothing, everything is."""
    instances_ = [instances.setting(np.random.default_rng(seed), heads_s=1e-4) for seed in range(20)]
    for of in (replace(of, deadline_s=1e9) for of in instances_ if of.codecs):
        check_limits(number, of)


def check_limits(number: int, of: Setting) -> None:
    worst = (LinkEstimate(1e-3, 0.0), LinkEstimate(1e9, 1e6))
    for link in worst:
        policy = instances.prepared(planners()[number], of, link=link)
        assert instances.observe(policy, link, left_s=inf).split is None, link
    if number in (0, 3):
        policy = instances.prepared(planners()[number], of)
        assert instances.observe(policy, LinkEstimate(1e9, 0.0), wait_s=1e6, left_s=inf).split is None
    link = LinkEstimate(1e15, 0.0)
    free = {pair: time.scaled(0.0) for pair, time in of.device.encode.items()}
    policy = instances.prepared(
        planners()[number],
        of,
        link=link,
        edge=replace(of.edge.slowed(1e-9), rpc=of.edge.rpc),
        device=replace(of.device, encode=free),
    )
    assert instances.observe(policy, link, left_s=inf).split == min(of.codecs)


def test_none_beats_the_oracle_without_contention(tmp_path: Path) -> None:
    """On any single request, queues being empty."""
    own = {name: {"name": name} for name in ("edgent", "edgent_dynamic", "spinn", "jalad")}
    of = synthetic.experiment(
        tmp_path,
        requests=120,
        devices__arrivals={"name": "periodic", "rate_hz": 0.5},
        utility={"accuracy": 1.0, "latency_per_s": 4.0, "miss": 0.5},
        policies=own | {"oracle": "oracle"},
    )
    best = utilities(to_table(simulate(of, "oracle", 0)), of.scenario.utility)
    for label in own:
        assert (utilities(to_table(simulate(of, label, 0)), of.scenario.utility) <= best + 1e-9).all(), label
