"""DynaSplit's offline set and online pick, against all configurations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from splitexit.decision import ExitCheck, Plan, Setting
from splitexit.energy import Model
from splitexit.errors import InputError
from splitexit.outlook import Outlook
from splitexit.policies.dynasplit import LEVELS, Dynasplit
from splitexit.results import column, to_table
from splitexit.sim import simulate
from tests import random_settings, synthetic

RNG = np.random.default_rng(0)


def prepared(setting: Setting, **arguments: object) -> Dynasplit:
    policy = Dynasplit(**arguments)
    policy.prepare(setting, RNG)
    return policy


def plans(setting: Setting, levels: tuple[float, ...]) -> list[Plan]:
    """Every pair and staying local, without exits and with all on the device at every level."""
    pairs = [(None, None), *((s, c) for s, codecs in setting.codecs.items() for c in codecs)]
    found = []
    for split, codec in pairs:
        last = setting.spec.num_stages - 1 if split is None else split
        exits = range(last)  # one behind every stage
        found.append(Plan(split=split, codec=codec))
        for level in levels if last else ():
            found.append(Plan(tuple(ExitCheck(e, "max_prob", level) for e in exits), split, codec))
    return found


def joules(setting: Setting, every: Outlook, row: int, link: random_settings.LinkEstimate, wait_s: float) -> float:
    """Computing, and for the share that is sent, the radio of one such request; a first one, with all of its tail."""
    model = setting.energy
    assert isinstance(model, Model)
    sent, found = every.sent[row], (model.power.compute_w - model.power.idle_w) * every.device_s[row]
    if not sent:
        return found
    radio, bits, reply_s = model.radio, 8 * every.size_bytes[row] / sent, link.rtt_s + wait_s + every.edge_s[row] / sent
    moving = radio.send_j(bits, bits / link.rate_bps) + model.receive_j
    tail = radio.tail_w * (min(radio.tail_s, reply_s) + radio.tail_s)
    return found + sent * (moving + tail + radio.promotion_w * radio.promotion_s * (1 + (reply_s > radio.tail_s)))


@pytest.mark.parametrize("seed", range(200))
def test_the_pick_is_brute_force_over_all_configurations(seed: int) -> None:
    """The least energy among those that are accurate and fast enough; else the fastest of the accurate ones."""
    rng = np.random.default_rng(seed)
    setting, lose = random_settings.setting(rng), float(rng.choice([0.0, 0.02, 0.2]))
    levels = (0.3, 0.6, 0.9)
    every = Outlook.of(plans(setting, levels), setting)
    accurate = every.accuracy >= every.accuracy.max() - lose
    every = Outlook.of([plan for plan, enough in zip(every.plans, accurate, strict=True) if enough], setting)
    for _ in range(5):
        limit_s = float(rng.exponential(0.05))
        policy = prepared(setting, thresholds=list(levels), lose=lose, qos_ms=1e3 * limit_s)
        observation = random_settings.observation(rng)
        load, link = observation.edge_load, observation.link
        wait_s = 0.0 if load is None else load.wait_s
        latency_s = every.latency_s(link, wait_s)
        cost_j = np.array([joules(setting, every, row, link, wait_s) for row in range(len(every))])
        found = every.plans.index(policy.decide(observation))
        if (latency_s <= limit_s).any():
            assert latency_s[found] <= limit_s
            assert cost_j[found] == pytest.approx(cost_j[latency_s <= limit_s].min(), rel=1e-9)
        else:
            assert latency_s[found] == pytest.approx(latency_s.min(), rel=1e-9)


def test_limits() -> None:
    """No bandwidth and a far edge: local. All the time in the world: the least energy, so the first exit."""
    rng = np.random.default_rng(1)
    for _ in range(30):
        setting = random_settings.setting(rng)
        slow = random_settings.observation(rng, link=random_settings.LinkEstimate(1e-3, 0.0))
        far = random_settings.observation(rng, link=random_settings.LinkEstimate(1e9, 1e6))
        policy = prepared(setting, thresholds=[], lose=1.0)
        assert policy.decide(slow) == policy.decide(far) == Plan()
        eager = prepared(setting, thresholds=[0.0], lose=1.0, qos_ms=1e9).decide(slow)
        first_s = setting.device_s(1) + setting.device.exits[0].mean
        assert [check.exit for check in eager.exits][:1] == ([0] if first_s < setting.local_s() else [])


def test_a_looser_limit_never_takes_more_energy() -> None:
    rng = np.random.default_rng(2)
    for _ in range(40):
        setting, observation = random_settings.setting(rng), random_settings.observation(rng, edge_load=None)
        every = Outlook.of(plans(setting, LEVELS), setting)
        energies = []
        for limit_ms in (20, 50, 100, 1000):
            row = every.plans.index(prepared(setting, qos_ms=limit_ms).decide(observation))
            if every.latency_s(observation.link)[row] <= limit_ms / 1e3:
                energies.append(joules(setting, every, row, observation.link, 0.0))
        assert energies == sorted(energies, reverse=True)


def test_in_the_simulator_it_keeps_the_limit_where_it_can(tmp_path: Path) -> None:
    """With a deadline that the image's way meets and the device alone does not, requests go the image's way."""
    world = synthetic.experiment(
        tmp_path,
        takes=synthetic.calibration(synthetic.spec(), stage=0.06),
        edge__hardware="workstation-gpu",
        devices__energy={"radio": "lte", "compute_w": 5.0, "idle_w": 1.6},
        devices__arrivals={"name": "periodic", "rate_hz": 0.2},
        devices__deadline_ms=100.0,
        requests=50,
        policies={
            "tight": {"name": "dynasplit", "thresholds": [], "lose": 1.0},
            "loose": {"name": "dynasplit", "thresholds": [], "lose": 1.0, "qos_ms": 1000.0},
        },
    )
    tight, loose = (to_table(simulate(world, label, 0)) for label in ("tight", "loose"))
    assert column(tight, "deadline_met").all()
    assert (column(tight, "split") == 0).all()
    assert (column(loose, "split") == -1).all(), "its radio takes more than its processor"


def test_without_figures_of_energy_it_is_refused(tmp_path: Path) -> None:
    world = synthetic.experiment(tmp_path, policies={"d": {"name": "dynasplit"}}, devices__policy="d")
    with pytest.raises(InputError, match="'d': energy cannot be weighed: nobody published"):
        world.decider("d", 0, 0)
