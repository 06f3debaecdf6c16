"""Policies that cut the network: brute force over random models and links, limits, and what must agree."""

from __future__ import annotations

from math import inf
from pathlib import Path

import numpy as np
import pytest

from splitexit.decision import EdgeLoad, LinkEstimate, Observation, Plan, Setting
from splitexit.policies import Policy
from splitexit.policies.dads import Dads
from splitexit.policies.neurosurgeon import Neurosurgeon
from tests import random_settings, synthetic

RNG = np.random.default_rng(0)
"""For `prepare`; none of these policies draws from it."""


def prepared(policy: Policy, setting: Setting) -> Policy:
    policy.prepare(setting, RNG)
    return policy


def plans(setting: Setting) -> list[Plan]:
    """Everything that can be done without exits."""
    return [Plan(), *(Plan(split=s, codec=c) for s, codecs in setting.codecs.items() for c in codecs)]


def delay_s(setting: Setting, plan: Plan, link: LinkEstimate, wait_s: float) -> float:
    """T(p, κ) of policies.md §0."""
    if plan.split is None or plan.codec is None:
        return setting.local_s()
    return setting.offload_s(plan.split, plan.codec, link, wait_s)


def wait_s(observation: Observation) -> float:
    return 0.0 if observation.edge_load is None else observation.edge_load.wait_s


@pytest.mark.parametrize("seed", range(200))
def test_dads_on_a_chain_is_neurosurgeon(seed: int) -> None:
    rng = np.random.default_rng(seed)
    setting = random_settings.setting(rng)
    cut, scan = prepared(Dads(), setting), prepared(Neurosurgeon(), setting)
    for _ in range(20):
        observation = random_settings.observation(rng)
        assert cut.decide(observation) == scan.decide(observation)


@pytest.mark.parametrize("seed", range(200))
def test_throughput_is_brute_force(seed: int) -> None:
    """Busiest of device, uplink and edge."""
    rng = np.random.default_rng(seed)
    setting = random_settings.setting(rng)
    policy = prepared(Dads(objective="throughput"), setting)

    def busiest_s(plan: Plan, link: LinkEstimate) -> float:
        if plan.split is None or plan.codec is None:
            return setting.local_s()
        pair = (plan.split, plan.codec)
        return max(
            setting.device_s(plan.split) + setting.device.encode[pair].mean,
            8 * setting.payload_bytes(*pair) / link.rate_bps,
            setting.edge.decode[pair].mean + setting.edge_s(plan.split),
        )

    for _ in range(10):
        observation = random_settings.observation(rng)
        least_s = min(busiest_s(plan, observation.link) for plan in plans(setting))
        assert busiest_s(policy.decide(observation), observation.link) == pytest.approx(least_s, rel=1e-12)


SLOW_LINK, FAST_LINK = LinkEstimate(1e-3, 0.0), LinkEstimate(1e15, 0.0)


@pytest.mark.parametrize("name", ["neurosurgeon", "dads"])
def test_limits_of_the_cut(tmp_path: Path, name: str) -> None:
    """No bandwidth, a far edge, a crowded one: all on the device. A free link and a faster edge: the image is sent."""
    model = synthetic.spec(3)
    takes = synthetic.calibration(model)
    world = synthetic.experiment(tmp_path, edge__hardware="workstation-gpu", devices__hardware="raspberry-pi-4")
    policy = world.decider(name, 0, 0).policy if name in world.scenario.policies else prepared(Dads(), world.setting())

    def decide(link: LinkEstimate, wait: float = 0.0) -> Plan:
        return policy.decide(Observation(link=link, edge_load=EdgeLoad(0, wait), now_s=0.0, queue_length=0))

    assert takes
    assert decide(SLOW_LINK) == Plan()
    assert decide(LinkEstimate(1e15, inf)) == Plan()
    assert decide(FAST_LINK, inf) == Plan()
    assert decide(FAST_LINK).split == 0


def test_adaptive_changes_with_the_rate_of_arrival() -> None:
    """As seldom as it likes, the least delay; when the uplink of that cut would be asked for too much, the other."""
    rng = np.random.default_rng(3)
    tried = 0
    for _ in range(200):
        setting, link = random_settings.setting(rng), random_settings.link(rng)
        least, most = prepared(Dads(), setting), prepared(Dads(objective="throughput"), setting)
        fixed = {"link": link, "edge_load": None, "queue_length": 0}
        at_rest, pressed = (p.decide(Observation(now_s=0.0, **fixed)) for p in (least, most))
        for gap_s, expected in ((1e9, at_rest), (1e-9, pressed)):
            policy = prepared(Dads(objective="adaptive"), setting)
            found = [policy.decide(Observation(now_s=k * gap_s, **fixed)) for k in range(3)]
            assert found == [at_rest, expected, expected]
        tried += at_rest != pressed
    assert tried >= 20
