"""SPINN's scheduler against brute force, and what it and dynamic Edgent make of what they measure."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitexit.calibration import Distribution
from splitexit.decision import ExitCheck, Plan, Setting
from splitexit.errors import InputError, ScenarioError
from splitexit.experiment import Experiment
from splitexit.policies._adaptive import PROBE_EVERY, Adaptive, uplink_bps
from splitexit.policies.edgent_dynamic import EdgentDynamic
from splitexit.policies.neurosurgeon import Neurosurgeon
from splitexit.policies.spinn import Spinn
from splitexit.results import column, to_table
from splitexit.scenario import load
from splitexit.sim import simulate
from tests import instances, synthetic

GRID = (0.4, 0.8)


@pytest.mark.parametrize("batch", range(instances.BATCHES))
def test_spinn_is_the_lexicographic_optimum(batch: int) -> None:
    """Limits in order, the last given up first; objectives in order, within 1 % of the best."""
    for rng in instances.of_batch(batch):
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


@pytest.mark.parametrize("batch", range(instances.BATCHES))
def test_spinn_without_exits_and_for_latency_is_neurosurgeon(batch: int) -> None:
    for rng in instances.of_batch(batch):
        of = replace(instances.setting(rng), link=instances.any_link(rng))
        spinn = instances.prepared(Spinn(limits=[], exits=[]), of)
        other = instances.prepared(Neurosurgeon(), of)
        assert instances.observe(spinn, of.link) == instances.observe(other, of.link)


def test_spinn_follows_a_busy_edge_and_a_slow_device() -> None:
    """Times scale with measured / expected: with a device ten times as slow the edge does more, and the reverse."""
    model = synthetic.spec(4)
    of = instances.chain(model)
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


# What is measured


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
        policy.learn(instances.transfer(of, rate * rng.normal(1.0, 0.1)))
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
    plan = instances.transfer(of, 1.0).plan
    expected = instances.drive(plan, of, 0, of.link).outcome
    for _ in range(1000):
        a, b, c = rng.normal(1.0, 0.1, 3)
        rates = {"device_s": expected.device_s * b, "edge_compute_s": expected.edge_compute_s * c}
        policy.learn(instances.transfer(of, of.link.rate_bps * a, edge_reading=said, **rates))
    assert policy.replans == 0


def test_spinn_waits_out_a_busy_queue_alone() -> None:
    of = instances.chain(synthetic.spec(4), rate_bps=1e9)
    of = replace(of, edge=of.edge.slowed(0.1))
    policy = instances.prepared(Spinn(limits=[], exits=[]), of)
    assert instances.observe(policy, of.link).split == 0
    for _ in range(30):
        told = instances.drive(Plan(split=0, codec="raw"), of, 0, of.link, wait_s=1.0).outcome
        policy.learn(replace(told, edge_reading=of.calibration.readings(3)[0]))
    assert policy.replans == 1
    assert instances.observe(policy, of.link).split is None


def test_when_nothing_is_sent_one_request_in_so_many_looks_whether_it_pays_again() -> None:
    of = instances.chain(synthetic.spec(4), rate_bps=1e4)
    policy = instances.prepared(EdgentDynamic(), of, device=of.device.slowed(10.0), deadline_s=1.0)
    plans = [instances.observe(policy, of.link) for _ in range(3 * PROBE_EVERY)]
    assert [n for n, plan in enumerate(plans, 1) if plan.split is not None] == [50, 100, 150]
    for _ in range(2):
        policy.learn(instances.transfer(of, 1e6))
    assert policy.replans == 1
    assert instances.observe(policy, of.link).split is not None


def test_a_payload_that_was_given_up_says_that_the_link_is_slow() -> None:
    of = instances.chain(synthetic.spec(4), rate_bps=1e9)
    policy = instances.prepared(EdgentDynamic(), of)
    for _ in range(5):
        policy.learn(instances.transfer(of, 1e9, answered_by="fallback", transfer_s=1.0))
    assert (policy.replans, exp(policy._levels[0])) == (1, pytest.approx(8 * 5000, rel=0.1))


def test_a_refusal_says_nothing_of_the_link() -> None:
    """It is back sooner than any payload could be through."""
    of = steady()
    policy = instances.prepared(EdgentDynamic(), of)
    for _ in range(20):
        policy.learn(instances.transfer(of, 1e9, answered_by="fallback", transfer_s=of.link.rtt_s * 1.001))
    assert policy.replans == 0


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Adaptive]:
    """The adaptive policies of all simulated devices, as they come."""
    found: list[Adaptive] = []
    begin = Adaptive._begin
    monkeypatch.setattr(Adaptive, "_begin", lambda self, levels: (found.append(self), begin(self, levels)))
    return found


@pytest.mark.parametrize("kind", ["edgent_dynamic", "spinn"])
def test_one_event_in_the_simulator_is_one_new_plan(kind: str, tmp_path: Path, plans: list[Adaptive]) -> None:
    """The link has a third of its rate from 20 s on; times vary by 20 %. Everything is sent before and after."""
    spread = Distribution((0.08, 0.1, 0.12))
    of = synthetic.experiment(
        tmp_path,
        takes=synthetic.calibration(synthetic.spec(), stage=spread, head=0.001),
        requests=300,
        edge__hardware="workstation-cpu",
        events=[{"kind": "bandwidth", "at_s": 20, "factor": 0.3, "direction": "up"}],
        devices__arrivals={"name": "periodic", "rate_hz": 5.0},
        uplink={"name": "constant", "mbps": 1.0, "delay_ms": 5.0},
        policies={"edgent_dynamic": "edgent_dynamic", "spinn": {"name": "spinn", "limits": [], "exits": []}},
    )
    rows = simulate(of, kind, 0)
    assert [policy.replans for policy in plans] == [1]
    assert {row.split >= 0 for row in rows} == {True}
    rate_bps = np.exp(plans[0]._levels[0])
    assert rate_bps == pytest.approx(0.3e6, rel=0.1)


@pytest.mark.parametrize("kind", ["edgent_dynamic", "spinn"])
def test_a_steady_scenario_needs_one_plan(kind: str, plans: list[Adaptive]) -> None:
    """The quickstart: measured times with their outliers, random arrivals, payloads of a few hundred bytes."""
    of = Experiment.open(load(Path(__file__).parents[1] / "scenarios" / "quickstart.yaml"))
    simulate(of, kind, 0, 300)
    assert [policy.replans for policy in plans] == [0]


def test_a_transfer_that_was_all_round_trip_says_little() -> None:
    of = instances.chain(synthetic.spec(4))
    short = instances.transfer(of, 1e9, payload_bytes=100)
    assert [*uplink_bps(short, of, 1e9)] == []
    assert [*uplink_bps(short, of, 1e4)] == [pytest.approx(800 / (0.1 * short.transfer_s))]
    assert [*uplink_bps(instances.transfer(of, 1e6), of, 1e9)] == [pytest.approx(1e6)]
    assert [*uplink_bps(replace(short, payload_bytes=0), of, 1e4)] == []
