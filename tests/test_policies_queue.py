"""The queue-aware policy: its expected response times are the simulator's, and its choice the least of them."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest

from splitexit import queueing
from splitexit.calibration import Rpc
from splitexit.decision import EdgeLoad, LinkEstimate, Observation, Plan, Setting, Utility
from splitexit.policies.queue_aware import QueueAware
from splitexit.results import column, to_table
from splitexit.sim import simulate
from tests import random_settings, synthetic
from tests.theory import stations

RNG = np.random.default_rng(0)


def prepared(setting: Setting, **arguments: object) -> QueueAware:
    policy = QueueAware(**({"epoch_s": 0.0} | arguments))
    policy.prepare(setting, RNG)
    return policy


def seen(now_s: float, link: LinkEstimate, load: EdgeLoad | None = None, waiting: int = 0) -> Observation:
    return Observation(now_s=now_s, queue_length=waiting, link=link, edge_load=load)


def after(policy: QueueAware, rate_hz: float, link: LinkEstimate, load: EdgeLoad | None = None) -> Plan:
    """The plan at a steady rate of arrival."""
    plans = [policy.decide(seen(k / rate_hz, link, load)) for k in range(3)]
    return plans[-1]


def response_s(setting: Setting, plan: Plan, rate_hz: float, link: LinkEstimate, others: float) -> tuple[float, float]:
    """T_device or T_edge by hand, for services that never vary, one worker; and the busiest place's load."""
    if plan.split is None or plan.codec is None:
        s = setting.local_s()
        return queueing.m_g_1_wait_s(rate_hz, s, s * s) + s, rate_hz * s
    pair = plan.split, plan.codec
    device = setting.device_s(plan.split) + setting.device.encode[pair].mean
    edge = setting.edge.decode[pair].mean + setting.edge_s(plan.split)
    air = 8 * (setting.calibration.pair(*pair).payload_bytes + setting.edge.rpc.uplink_overhead_bytes) / link.rate_bps
    load = others + rate_hz * edge
    waits = (
        queueing.m_g_1_wait_s(rate_hz, device, device**2)
        + queueing.m_g_1_wait_s(rate_hz, air.mean(), (air**2).mean())
        + (inf if load >= 1 else edge * load / (1 - load))
    )
    return waits + device + air.mean() + link.rtt_s + edge, max(rate_hz * device, rate_hz * air.mean(), load)


@pytest.mark.parametrize("seed", range(200))
def test_the_choice_is_brute_force(seed: int) -> None:
    """Every option, at random rates, links and reports of others; also where nothing can keep up."""
    rng = np.random.default_rng(seed)
    setting = random_settings.setting(rng)
    for _ in range(5):
        link, rate_hz = random_settings.link(rng), 10 ** rng.uniform(-2, 3)
        number = int(rng.integers(0, 9))
        policy = prepared(setting)
        found = after(policy, rate_hz, link, EdgeLoad(number, 0.0))
        others = queueing.load_of(number, 1) * np.exp(-2 / rate_hz / policy.memory_s)
        options = [Plan(), *(Plan(split=s, codec=c) for s, codecs in setting.codecs.items() for c in codecs)]
        expected = {plan: response_s(setting, plan, rate_hz, link, others) for plan in options}
        least = min(expected.values())
        if least[0] < inf:
            assert expected[found][0] == pytest.approx(least[0], rel=1e-6)
        else:
            assert expected[found][1] == pytest.approx(least[1], rel=1e-6)


@pytest.mark.parametrize(("device_load", "edge_load"), [(0.3, 0.6), (0.6, 0.3), (0.1, 0.8)])
def test_its_formula_is_what_the_simulator_does(tmp_path: Path, device_load: float, edge_load: float) -> None:
    """Exponential services at device and edge: two stations in a row with Poisson arrivals (Burke 1956), within 3 %."""
    rate_hz, device_s, edge_s = 20.0, device_load / 20, edge_load / 20
    model = synthetic.spec(2)
    takes = synthetic.calibration(model, pairs=[(1, "raw")], rpc=Rpc(0, 1, stations.NOTHING))
    takes = replace(takes, stages=(stations.exponential(device_s), stations.exponential(edge_s)))
    world = synthetic.experiment(
        tmp_path,
        model=model,
        says=synthetic.recording(model, pairs={(1, "raw"): 2}),
        takes=takes,
        requests=40_000,
        devices__arrivals={"name": "poisson", "rate_hz": rate_hz},
        devices__deadline_ms=3.6e6,
        uplink=stations.FREE,
        downlink=stations.FREE,
        policies={"send": {"name": "offload", "split": 1, "codec": "raw"}, "local": {"name": "local"}},
    )
    setting = world.setting()
    [sent] = [one for one in prepared(setting)._services if one.plan.split == 1]
    expected_s, busiest = sent.response_s(rate_hz, setting.link, 0.0, QueueAware()._edge)
    table = to_table(simulate(world, "send", 0))
    assert busiest == pytest.approx(max(device_load, edge_load), rel=1e-3)
    assert float((column(table, "done_s") - column(table, "arrival_s")).mean()) == pytest.approx(expected_s, rel=0.03)


QUICK, NEVER = LinkEstimate(1e12, 0.0), LinkEstimate(1e-6, 0.0)


def model(edge_faster: float = 10.0, workers: int = 1) -> Setting:
    """Three stages of 10 ms on the device; the image costs nothing to send over a quick link."""
    spec = synthetic.spec(3)
    device = synthetic.calibration(spec)
    says = synthetic.recording(spec)
    return Setting(
        spec,
        device,
        device.slowed(1 / edge_faster),
        says.codecs(),
        says.calibration,
        QUICK,
        Utility(),
        1.0,
        edge_workers=workers,
    )


def test_limits() -> None:
    """No bandwidth, a far edge, a crowded one: all on the device. Nobody there: the image is sent."""
    assert after(prepared(model()), 1.0, QUICK).split == 0
    assert after(prepared(model()), 1.0, NEVER) == Plan()
    assert after(prepared(model()), 1.0, LinkEstimate(1e12, inf)) == Plan()
    assert after(prepared(model(), memory_s=1e9), 1.0, QUICK, EdgeLoad(10**9, 0.0)) == Plan()


def test_a_device_that_cannot_keep_up_sends_though_it_is_faster_alone() -> None:
    """30 ms here, 45 ms there: stays, until the queue here costs more than the way there."""
    far = LinkEstimate(1e12, 0.042)
    setting = model()
    assert after(prepared(setting, splits=[0]), 1.0, far) == Plan()
    assert after(prepared(setting, splits=[0]), 30.0, far).split == 0


def test_what_waits_counts_as_having_come() -> None:
    """A device that is busy takes requests up at its own pace; the queue behind them says that more come."""
    setting, far = model(), LinkEstimate(1e12, 0.042)
    policy = prepared(setting, splits=[0])
    plans = [policy.decide(seen(0.03 * k, far, waiting=2 * k)) for k in range(4)]
    assert plans[-1].split == 0


def test_more_workers_hold_the_same_crowd_at_less_wait() -> None:
    link, crowd = LinkEstimate(1e12, 0.015), EdgeLoad(3, 0.0)
    plans = [after(prepared(model(3.0, workers), splits=[0], memory_s=1e9), 0.1, link, crowd) for workers in (1, 16)]
    assert [plan.split for plan in plans] == [None, 0]


def test_silence_is_not_a_crowd_for_ever() -> None:
    """One report of a crowd keeps the device away; some memories later it tries again."""
    policy, crowd = prepared(model(), memory_s=2.0), EdgeLoad(50, 0.0)
    plans = [policy.decide(seen(0.1 * k, QUICK, crowd)) for k in range(200)]
    assert plans[1] == Plan()
    assert plans[-1].split == 0


def test_its_own_requests_are_no_crowd() -> None:
    """It loads the edge by two fifths itself: the reports of that are not taken for others."""
    setting = model(1.5)
    policy, rate_hz = prepared(setting, splits=[0], memory_s=5.0), 20.0
    rng = np.random.default_rng(0)
    load, report, sent = setting.edge_s(0) * rate_hz, None, []
    for k in range(1200):
        sent.append(policy.decide(seen(k / rate_hz, QUICK, report)).split == 0)
        if sent[-1]:
            report = EdgeLoad(int(rng.geometric(1 - load) - 1), 0.0)  # how many are in M/M/1
    assert np.mean(sent[600:]) > 0.95
    assert policy._others(1200 / rate_hz) == pytest.approx(0.0, abs=0.15)


def test_a_choice_stands_for_an_epoch() -> None:
    policy = prepared(model(), epoch_s=1.0)
    links = [QUICK, NEVER, NEVER, NEVER]
    plans = [policy.decide(seen(now_s, link)) for now_s, link in zip((0.0, 0.5, 0.99, 1.0), links, strict=True)]
    assert [plan.split for plan in plans] == [0, 0, 0, None]


def test_only_the_splits_that_are_asked_for() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        setting = random_settings.setting(rng)
        policy = prepared(setting, splits=[0])
        plan = after(policy, 5.0, random_settings.link(rng))
        assert plan.split in (None, 0)
