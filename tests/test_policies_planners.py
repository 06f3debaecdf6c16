"""Edgent, SPINN and JALAD, against brute force over every configuration, and at their limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from math import exp, inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitexit.decision import ExitCheck, LinkEstimate, Outcome, Plan, Setting
from splitexit.errors import InputError, ScenarioError
from splitexit.experiment import Experiment
from splitexit.policies import Policy
from splitexit.policies._adaptive import PROBE_EVERY, Adaptive
from splitexit.policies.edgent import Edgent, end
from splitexit.policies.edgent_dynamic import EdgentDynamic
from splitexit.policies.jalad import Jalad
from splitexit.policies.neurosurgeon import Neurosurgeon
from splitexit.policies.spinn import Spinn
from splitexit.results import column, to_table
from splitexit.scenario import load
from splitexit.sim import simulate
from tests import instances, synthetic

BATCHES, BATCH = 4, 50


def of_batch(batch: int) -> Iterator[np.random.Generator]:
    """Of the 200 instances, those of one batch."""
    return (np.random.default_rng(seed) for seed in range(batch * BATCH, (batch + 1) * BATCH))


def mean_s(plan: Plan, of: Setting, link: LinkEstimate, wait_s: float = 0.0) -> float:
    """Expected response time."""
    return float(np.mean([result.response_s for result in instances.expected(plan, of, link, wait_s)]))


def accuracy(plan: Plan, of: Setting) -> float:
    return float(np.mean([result.right for result in instances.expected(plan, of, of.link)]))


def any_link(rng: np.random.Generator) -> LinkEstimate:
    return LinkEstimate(10 ** rng.uniform(4, 8), float(rng.exponential(0.03)))


def needs_s(plan: Plan, of: Setting, expected_s: float) -> float:
    """How far off the deadline must be: nobody waits for a reply when there is just time for an answer of one's own."""
    return expected_s + (of.fallback_s[plan.split] if plan.split is not None else 0.0)


# Edgent


@pytest.mark.parametrize("batch", range(BATCHES))
def test_edgent_takes_the_deepest_exit_that_is_in_time(batch: int) -> None:
    for rng in of_batch(batch):
        of, link = instances.setting(rng), any_link(rng)
        wait_s, left_s = float(rng.exponential(0.01)), 10 ** rng.uniform(-2.5, 0)
        found = instances.observe(instances.prepared(Edgent(), of), link, wait_s, left_s)
        times = {plan: mean_s(plan, of, link, wait_s) for _, plan in instances.cut_short(of)}
        in_time = [(e, plan) for e, plan in instances.cut_short(of) if needs_s(plan, of, times[plan]) <= left_s]
        deepest = max((e for e, _ in in_time), default=None)
        best_s = min(times[plan] for e, plan in in_time if e == deepest) if in_time else min(times.values())
        assert mean_s(found, of, link, wait_s) == pytest.approx(best_s, rel=1e-9)
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
        return [end(p, of.spec) for p, link, left_s in plans if needs_s(p, of, mean_s(p, of, link)) <= left_s]

    longer = depths([(of.link, left_s) for left_s in np.geomspace(1e-3, 10.0, 25)])
    faster = depths([(replace(of.link, rate_bps=rate), of.deadline_s) for rate in np.geomspace(1e3, 1e10, 25)])
    assert longer == sorted(longer)
    assert longer[-1] == of.spec.final_exit
    assert faster == sorted(faster)


def test_edgent_takes_the_fastest_pair_where_nothing_is_in_time() -> None:
    of = instances.setting(np.random.default_rng(0))
    found = instances.observe(instances.prepared(Edgent(), of), of.link, 0.0, -1.0)
    assert mean_s(found, of, of.link) == min(mean_s(plan, of, of.link) for _, plan in instances.cut_short(of))


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


@pytest.mark.parametrize("batch", range(BATCHES))
def test_the_map_holds_the_largest_reward_of_every_state(batch: int) -> None:
    for rng in of_batch(batch):
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
    """exp(accuracy) + 1 / T in time, else 0; and T."""
    expected_s = mean_s(plan, of, link)
    in_time = needs_s(plan, of, expected_s) <= of.deadline_s
    return (exp(accuracy(plan, of)) + 1 / expected_s if in_time else 0.0), expected_s


def test_a_constant_link_keeps_the_plan_of_its_state() -> None:
    """And that is what brute force chooses for the very rate, which is the middle state."""
    of = instances.setting(np.random.default_rng(8))
    policy = instances.prepared(EdgentDynamic(), of)
    plan = max((plan for _, plan in instances.cut_short(of)), key=lambda plan: reward(plan, of, of.link)[0])
    for _ in range(200):
        assert instances.observe(policy, of.link) in (plan, policy._map[20][1])
        policy.learn(transfer(of, of.link.rate_bps))
    assert policy.replans == 0


def transfer(of: Setting, rate_bps: float, payload_bytes: int = 5000, **more: Any) -> Outcome:
    """What a device learns of an offload over a link of this rate."""
    bits = 8.0 * (payload_bytes + of.edge.rpc.uplink_overhead_bytes)
    split, codec = next((s, codecs[0]) for s, codecs in of.codecs.items())
    plan = Plan(split=split, codec=codec)
    seconds = of.link.rtt_s + bits / rate_bps
    told = {"answered_by": "edge", "transfer_s": seconds, "response_s": 2 * seconds} | more
    return Outcome(plan=plan, readings=(), payload_bytes=payload_bytes, **told)


@cache
def steady() -> Setting:
    """One instance with something to send."""
    return instances.setting(np.random.default_rng(8))


@pytest.mark.parametrize("kind", [EdgentDynamic, Spinn])
@pytest.mark.parametrize("factor", [0.05, 0.5, 2.0, 20.0])
def test_one_step_of_the_bandwidth_is_one_new_plan(kind: type[Adaptive], factor: float) -> None:
    """Under 10 % of noise, 200 transfers before and after."""
    of, rng = steady(), np.random.default_rng(1)
    policy = instances.prepared(kind(), of)
    when = []
    for number in range(400):
        rate = of.link.rate_bps * (factor if number >= 200 else 1.0)
        policy.learn(transfer(of, rate * rng.normal(1.0, 0.1)))
        when += [number] * (policy.replans - len(when))
    assert len(when) == 1
    assert 200 < when[0] <= 204
    assert exp(policy._levels[0]) == pytest.approx(of.link.rate_bps * factor, rel=0.25)


@pytest.mark.parametrize("kind", [EdgentDynamic, Spinn])
@pytest.mark.parametrize("seed", range(5))
def test_noise_is_no_change(kind: type[Adaptive], seed: int) -> None:
    """1,000 transfers with 10 % of stationary noise, on everything that is measured."""
    of, rng = steady(), np.random.default_rng(seed)
    policy = instances.prepared(kind(), of)
    said = of.calibration.readings(of.spec.final_exit)[0]
    plan = transfer(of, 1.0).plan
    expected = instances.drive(plan, of, 0, of.link).outcome
    for _ in range(1000):
        a, b, c = rng.normal(1.0, 0.1, 3)
        rates = {"device_s": expected.device_s * b, "edge_compute_s": expected.edge_compute_s * c}
        policy.learn(transfer(of, of.link.rate_bps * a, edge_reading=said, **rates))
    assert policy.replans == 0


# SPINN


GRID = (0.4, 0.8)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_spinn_is_the_lexicographic_optimum(batch: int) -> None:
    """Limits in order, the last given up first; objectives in order, within 1 % of the best."""
    for rng in of_batch(batch):
        of = instances.setting(rng)
        table = [(plan, figures(plan, of)) for plan in configurations(of)]
        limits = any_limits(rng, table)
        objectives = list(rng.permutation(["latency_ms", "server_ms", "bytes", "accuracy", "throughput_rps"])[:2])
        policy = instances.prepared(
            Spinn(
                limits=[f"{m} {sign} {bound!r}" for m, sign, bound in limits], objectives=objectives, thresholds=GRID
            ),
            of,
        )
        found = figures(instances.observe(policy, of.link), of)
        left = table
        for metric, sign, bound in limits:
            kept = [row for row in left if holds(row[1][metric], sign, bound)]
            if not kept:
                break  # this limit and those after it
            left = kept
            assert holds(found[metric], sign, bound)
        for objective in objectives:
            worth = -1.0 if objective in ("accuracy", "throughput_rps") else 1.0
            best = min(worth * row[1][objective] for row in left)
            slack = 0.01 * abs(best) if objective == objectives[0] else 0.0
            assert worth * found[objective] <= best + slack + 1e-9 * abs(best)
            left = [row for row in left if worth * row[1][objective] <= best + slack]


def holds(value: float, sign: str, bound: float) -> bool:
    return value <= bound * (1 + 1e-9) if sign == "<=" else value >= bound * (1 - 1e-9)


def configurations(of: Setting) -> list[Plan]:
    """Every split with one threshold for all exits before it."""
    cuts = [(None, None), *((s, c) for s, codecs in of.codecs.items() for c in codecs)]
    return [
        Plan(tuple(ExitCheck(e, "max_prob", level) for e in before(of, split)), split, codec)
        for level in GRID
        for split, codec in cuts
    ]


def before(of: Setting, split: int | None) -> list[int]:
    limit = of.spec.num_stages if split is None else split
    return [e for e in range(of.spec.final_exit) if of.exit_stages[e] <= limit]


def figures(plan: Plan, of: Setting) -> dict[str, float]:
    """All metrics, sample by sample."""
    results = instances.expected(plan, of, of.link)
    device_s, edge_s, size = (
        float(np.mean(values))
        for values in zip(*((r.outcome.device_s, r.outcome.edge_compute_s, r.size_bytes) for r in results), strict=True)
    )
    return {
        "latency_ms": 1e3 * float(np.mean([r.response_s for r in results])),
        "device_ms": 1e3 * device_s,
        "server_ms": 1e3 * edge_s,
        "bytes": size,
        "throughput_rps": 1 / max(device_s, edge_s, 8 * size / of.link.rate_bps),
        "accuracy": float(np.mean([r.right for r in results])),
    }


def any_limits(rng: np.random.Generator, table: list[tuple[Plan, dict[str, float]]]) -> list[tuple[str, str, float]]:
    """Bounds among what there is, so that some can be met together and some cannot."""
    signs = {"accuracy": ">=", "latency_ms": "<=", "device_ms": "<=", "throughput_rps": ">="}
    metrics = list(rng.permutation(list(signs))[: int(rng.integers(0, 4))])
    return [(m, signs[m], table[int(rng.integers(len(table)))][1][m]) for m in metrics]


@pytest.mark.parametrize("batch", range(BATCHES))
def test_spinn_without_exits_and_for_latency_is_neurosurgeon(batch: int) -> None:
    for rng in of_batch(batch):
        of = replace(instances.setting(rng), link=any_link(rng))
        spinn = instances.prepared(Spinn(limits=[], exits=[]), of)
        other = instances.prepared(Neurosurgeon(), of)
        assert instances.observe(spinn, of.link) == instances.observe(other, of.link)


def test_spinn_follows_a_busy_edge_and_a_slow_device() -> None:
    """Times scale with measured / expected: with a device ten times as slow the edge does more, and the reverse."""
    model = synthetic.spec(4)
    of = setting_of(model)
    sent = {}
    for slow in ("device_s", "edge_compute_s"):
        policy = instances.prepared(Spinn(limits=[], exits=[]), of)
        for _ in range(30):
            plan = Plan(split=1, codec="raw")
            told = instances.drive(plan, of, 0, of.link).outcome
            factors = {slow: 10.0 * getattr(told, slow)}
            policy.learn(replace(told, edge_reading=of.calibration.readings(3)[0], **factors))
        assert policy.replans == 1
        sent[slow] = instances.observe(policy, of.link).split
    assert sent == {"device_s": 0, "edge_compute_s": None}


def setting_of(model: Any, rate_bps: float = 8e6) -> Setting:
    """All stages alike on both sides; fp32 features can be sent anywhere and shrink with depth."""
    pairs = {(split, "raw"): 4000 >> split for split in range(model.num_stages)}
    part = synthetic.recording(model, pairs=pairs).calibration
    takes = synthetic.calibration(model, stage=0.01, head=0.0001, codec=0.0, pairs=list(pairs))
    spec = instances.setting(np.random.default_rng(0))
    codecs = dict.fromkeys(range(model.num_stages), ("raw",))
    link = LinkEstimate(rate_bps, 0.01)
    return replace(spec, spec=model, device=takes, edge=takes, codecs=codecs, calibration=part, link=link)


def test_spinn_waits_out_a_busy_queue_alone() -> None:
    of = setting_of(synthetic.spec(4), rate_bps=1e9)
    of = replace(of, edge=of.edge.slowed(0.1))
    policy = instances.prepared(Spinn(limits=[], exits=[]), of)
    assert instances.observe(policy, of.link).split == 0
    for _ in range(30):
        told = instances.drive(Plan(split=0, codec="raw"), of, 0, of.link, wait_s=1.0).outcome
        policy.learn(replace(told, edge_reading=of.calibration.readings(3)[0]))
    assert policy.replans == 1
    assert instances.observe(policy, of.link).split is None


def test_when_nothing_is_sent_one_request_in_so_many_looks_whether_it_pays_again() -> None:
    of = setting_of(synthetic.spec(4), rate_bps=1e4)
    policy = instances.prepared(EdgentDynamic(), of, device=of.device.slowed(10.0), deadline_s=1.0)
    plans = [instances.observe(policy, of.link) for _ in range(3 * PROBE_EVERY)]
    assert [n for n, plan in enumerate(plans, 1) if plan.split is not None] == [50, 100, 150]
    for _ in range(2):
        policy.learn(transfer(of, 1e6))
    assert policy.replans == 1
    assert instances.observe(policy, of.link).split is not None


def test_a_payload_that_was_given_up_says_that_the_link_is_slow() -> None:
    of = setting_of(synthetic.spec(4), rate_bps=1e9)
    policy = instances.prepared(EdgentDynamic(), of)
    for _ in range(5):
        policy.learn(transfer(of, 1e9, answered_by="fallback", transfer_s=1.0))
    assert (policy.replans, exp(policy._levels[0])) == (1, pytest.approx(8 * 5000, rel=0.1))


def test_a_refusal_says_nothing_of_the_link() -> None:
    """It is back sooner than any payload could be through."""
    of = steady()
    policy = instances.prepared(EdgentDynamic(), of)
    for _ in range(20):
        policy.learn(transfer(of, 1e9, answered_by="fallback", transfer_s=of.link.rtt_s * 1.001))
    assert policy.replans == 0


def outage(folder: Path, **spinn: Any) -> Experiment:
    """No link at all from 5 s to 15 s."""
    return synthetic.experiment(
        folder,
        requests=300,
        takes=synthetic.calibration(synthetic.spec(), stage=0.05, head=0.001),
        edge__hardware="workstation-cpu",
        events=[{"kind": "outage", "at_s": 5, "for_s": 10}],
        devices__arrivals={"name": "periodic", "rate_hz": 5.0},
        policies={"spinn": {"name": "spinn", "limits": [], "exits": [0], **spinn}},
    )


def test_spinn_answers_everything_while_the_edge_is_gone(tmp_path: Path) -> None:
    """Within its timeout and what the device takes alone; the most confident exit that was read answers."""
    of = outage(tmp_path, timeout_ms=150.0, thresholds=[1.0])
    table = to_table(simulate(of, "spinn", 0))
    fell_back = column(table, "answered_by") == "fallback"
    assert len(table) == 300
    assert 0 < fell_back.sum() < 20, "it notices and stays local"
    assert column(table, "response_s").max() <= 0.150 + of.setting().local_s() + 0.01
    sent = column(table, "answered_by") == "edge"
    arrival_s = column(table, "arrival_s")
    assert sent[arrival_s < 4.5].all()
    assert sent[arrival_s > 30].mean() > 0.5, "and comes back"


def test_spinn_falls_back_on_what_it_has_read() -> None:
    of = instances.setting(np.random.default_rng(1))
    plans = [plan for plan in instances.prepared(Spinn(timeout_ms=80.0), of)._outlook.plans if plan.split is not None]
    assert {plan.timeout_s for plan in plans} == {0.08}
    assert all(len(plan.exits) == len(before(of, plan.split)) for plan in plans)


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"limits": ["latency_ms < 80"]}, "limit 'latency_ms < 80': expected a metric, <= or >=, and a number"),
        ({"limits": ["latency <= 80"]}, "metrics are latency_ms, throughput_rps"),
        ({"limits": ["accuracy >= 0.9.9"]}, "limit 'accuracy >= 0.9.9'"),
        ({"objectives": ["latency"]}, "found 'latency'; expected 'latency_ms'"),
        ({"objectives": []}, "expected at least one"),
        ({"timeout_ms": 0}, "expected a number greater than 0"),
        ({"limits": [{"metric": "latency_ms"}]}, "expected text"),
    ],
)
def test_an_agreement_that_is_none_is_refused_in_one_line(tmp_path: Path, policy: dict[str, Any], says: str) -> None:
    path = synthetic.write_scenario(tmp_path, policies={"bad": {"name": "spinn", **policy}})
    with pytest.raises(ScenarioError) as caught:
        load(path)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_exits_that_the_model_lacks_are_refused() -> None:
    of = instances.setting(np.random.default_rng(1))
    with pytest.raises(InputError, match=r"exits \[0, 9\]: the model has early exits"):
        instances.prepared(Spinn(exits=[0, 9]), of)


def test_spinn_may_leave_early_on_the_edge(tmp_path: Path) -> None:
    of = synthetic.experiment(
        tmp_path,
        policies={"spinn": {"name": "spinn", "edge_exits": True, "limits": [], "thresholds": [0.4]}},
        devices__hardware="raspberry-pi-3b-plus",
        edge__hardware="workstation-cpu",
    )
    plans = of.decider("spinn", 0, 0).policy._outlook.plans
    assert {len(plan.edge_exits) for plan in plans if plan.split == 1} == {1}


# JALAD


@pytest.mark.parametrize("batch", range(BATCHES))
def test_jalad_is_the_fastest_that_keeps_the_bound(batch: int) -> None:
    for rng in of_batch(batch):
        of, link, wait_s = instances.setting(rng), any_link(rng), float(rng.exponential(0.01))
        loss = float(rng.choice([0.0, 0.1, 0.125, 0.25, 1.0]))
        found = instances.observe(instances.prepared(Jalad(loss=loss), of), link, wait_s)
        whole = accuracy(Plan(), of)
        plans = [Plan(), *(Plan(split=s, codec=c) for s, codecs in of.codecs.items() for c in codecs)]
        kept = [plan for plan in plans if whole - accuracy(plan, of) <= loss + 1e-9]
        assert found in kept
        assert mean_s(found, of, link, wait_s) == pytest.approx(
            min(mean_s(p, of, link, wait_s) for p in kept), rel=1e-9
        )


@pytest.mark.parametrize("batch", range(BATCHES))
def test_jalad_without_loss_and_with_whole_features_is_neurosurgeon(batch: int) -> None:
    for rng in of_batch(batch):
        of = instances.setting(rng)
        jalad = instances.prepared(Jalad(loss=0.0, codecs=["raw"]), of)
        other = instances.prepared(Neurosurgeon(codecs=["raw"]), of)
        for _ in range(5):
            link, wait_s = any_link(rng), float(rng.exponential(0.01))
            assert instances.observe(jalad, link, wait_s) == instances.observe(other, link, wait_s)


def test_fewer_bits_on_a_slower_link() -> None:
    """Bits by codec; the fewer the smaller and the less accurate."""
    model = synthetic.spec(2)
    of = setting_of(model)
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
