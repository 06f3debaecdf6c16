"""Policies that cut the network: brute force over random models and links, limits, and what must agree."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest

from splitexit.decision import EdgeLoad, LinkEstimate, Observation, Plan, Setting
from splitexit.energy import Model, Radio
from splitexit.errors import InputError
from splitexit.policies import Policy
from splitexit.policies.dads import Dads
from splitexit.policies.neurosurgeon import Neurosurgeon
from splitexit.results import column, to_table
from splitexit.sim import simulate
from splitexit.summary import Summariser
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


def energy_j(setting: Setting, plan: Plan, link: LinkEstimate, wait: float, gap_s: float) -> float:
    """E(p, κ) of policies.md §0 above idle power: computing, sending, the reply, tails and waking up."""
    model = setting.energy
    watts = model.power.compute_w - model.power.idle_w
    if plan.split is None or plan.codec is None:
        return watts * setting.local_s()
    pair, radio = (plan.split, plan.codec), model.radio
    bits = 8 * setting.payload_bytes(*pair)
    air_s = bits / link.rate_bps
    reply_s = link.rtt_s + wait + setting.edge.decode[pair].mean + setting.edge_s(plan.split)
    quiet_s = max(gap_s - air_s - reply_s, 0)
    return (
        watts * (setting.device_s(plan.split) + setting.device.encode[pair].mean)
        + (radio.alpha_up * link.rate_bps + radio.base_up) * air_s
        + (radio.alpha_down * 1e6 + radio.base_down) * 800 / 1e6
        + radio.tail_w * (min(radio.tail_s, reply_s) + min(radio.tail_s, quiet_s))
        + radio.promotion_w * radio.promotion_s * ((reply_s > radio.tail_s) + (quiet_s > radio.tail_s))
    )


@pytest.mark.parametrize("seed", range(200))
def test_the_least_energy_is_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    setting = random_settings.setting(rng)
    policy = prepared(Neurosurgeon(objective="energy"), setting)
    gap_s = float(rng.exponential(1.0))
    policy.decide(random_settings.observation(rng, now_s=0.0, queue_length=0))
    for k in range(1, 11):
        observation = random_settings.observation(rng, now_s=k * gap_s, queue_length=0)
        known = observation.link, wait_s(observation), gap_s
        least_j = min(energy_j(setting, plan, *known) for plan in plans(setting))
        assert energy_j(setting, policy.decide(observation), *known) == pytest.approx(least_j, rel=1e-9)


def test_before_the_second_request_a_whole_tail_is_expected() -> None:
    """Nothing is known of the next message, so the radio is thought to fall asleep before it."""
    rng = np.random.default_rng(5)
    for _ in range(50):
        setting = random_settings.setting(rng)
        observation = random_settings.observation(rng)
        found = prepared(Neurosurgeon(objective="energy"), setting).decide(observation)
        known = observation.link, wait_s(observation), 1e9
        assert energy_j(setting, found, *known) == min(energy_j(setting, plan, *known) for plan in plans(setting))


@pytest.mark.parametrize(
    ("radio", "rate_hz", "best"),
    [
        ("lte", 0.05, "local"),
        ("lte", 0.4, "local"),
        ("lte", 4.0, "image"),
        ("wifi", 0.05, "image"),
        ("wifi", 4.0, "image"),
    ],
)
def test_what_it_picks_is_what_the_simulator_charges_least_for(
    tmp_path: Path, radio: str, rate_hz: float, best: str
) -> None:
    """Energy per request of every fixed option, periodic requests, and of the policy once it knows their rate.

    The tail of LTE is only worth its energy where the next message comes soon.
    """
    world = synthetic.experiment(
        tmp_path,
        takes=synthetic.calibration(synthetic.spec(), stage=0.06),
        devices__energy={"radio": radio, "compute_w": 5.0, "idle_w": 1.6},
        devices__arrivals={"name": "periodic", "rate_hz": rate_hz},
        devices__deadline_ms=60e3,
        requests=60,
        policies={
            "energy": {"name": "neurosurgeon", "objective": "energy"},
            "local": {"name": "local"},
            "image": {"name": "offload", "split": 0, "codec": "jpeg"},
            "split": {"name": "offload", "split": 1, "codec": "uint8"},
        },
    )
    charged = Summariser(world).charged
    per_request = {
        label: float(column(charged(to_table(simulate(world, label, 0))), "energy_j")[5:-1].mean())
        for label in world.scenario.policies
    }
    chosen = per_request.pop("energy")
    assert min(per_request, key=per_request.__getitem__) == best
    assert chosen == pytest.approx(per_request[best], rel=1e-6)


def test_limits_of_energy(tmp_path: Path) -> None:
    """A slow link sends for ever; a link that takes no time leaves only what computing costs."""
    rng = np.random.default_rng(11)
    for _ in range(50):
        setting = random_settings.setting(rng)
        policy = prepared(Neurosurgeon(objective="energy"), setting)
        assert policy.decide(random_settings.observation(rng, link=SLOW_LINK)) == Plan()
    free = Model(setting.energy.power, Radio("free", *(0.0,) * 8, "test"))
    sending = [plan for plan in plans(setting) if plan.split is not None]
    policy = prepared(Neurosurgeon(objective="energy"), replace(setting, energy=free))
    found = policy.decide(random_settings.observation(rng, link=FAST_LINK))
    assert sending
    assert found.split == min(plan.split for plan in sending if plan.split is not None)


def test_energy_without_figures_is_refused_in_one_line(tmp_path: Path) -> None:
    policies = {"energy": {"name": "neurosurgeon", "objective": "energy"}}
    world = synthetic.experiment(tmp_path, policies=policies, devices__policy="energy")
    with pytest.raises(InputError, match="'energy': energy cannot be weighed: nobody published the power") as refused:
        world.decider("energy", 0, 0)
    assert "\n" not in str(refused.value)
    assert "devices.energy.compute_w" in str(refused.value)
    assert "devices.energy.radio" in str(refused.value)
