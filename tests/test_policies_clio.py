"""CLIO's sender: the longest prefix in time, against trying them all; and in the simulator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splitexit.calibration import Distribution, Rpc
from splitexit.decision import EdgeLoad, LinkEstimate, Observation, Plan, Setting
from splitexit.errors import InputError
from splitexit.experiment import Experiment
from splitexit.policies.clio import Clio
from splitexit.sim import simulate
from tests import synthetic

WHOLE = "progressive:channels=8"
PREFIXES = [*(f"{WHOLE},send={n}" for n in (1, 2, 3)), WHOLE]
BYTES = dict(zip(PREFIXES, (500, 1000, 2000, 4000), strict=True))
OTHER = {(0, "jpeg"): 900, (1, "uint8"): 400}


def world(folder: Path, split: int = 1, seed: int = 0, **changes: object) -> Experiment:
    """Four prefixes at one split, and times drawn anew."""
    model, rng = synthetic.spec(), np.random.default_rng(seed)
    sizes = {**OTHER, **{(split, codec): size for codec, size in BYTES.items()}}
    says = synthetic.recording(model, pairs=sizes, seed=seed)
    takes = synthetic.calibration(model, float(rng.uniform(0.001, 0.02)), 0.001, 0.002, pairs=list(sizes))
    takes = replace(takes, rpc=Rpc(150, 100, Distribution.constant(0.001)))
    policies = {"clio": {"name": "clio"}, "short": {"name": "clio", "split": split, "codecs": [PREFIXES[0]]}}
    return synthetic.experiment(folder, model=model, says=says, takes=takes, policies=policies, **changes)


def prepared(setting: Setting, **arguments: object) -> Clio:
    policy = Clio(**arguments)  # type: ignore[arg-type]
    policy.prepare(setting, np.random.default_rng(0))
    return policy


def brute_force(setting: Setting, split: int, seen: Observation) -> Plan:
    """Every prefix by the definition, part by part."""
    best, most = Plan(), 0.0
    for codec in PREFIXES:
        parts_s = [part.mean for part in setting.device.stages[:split]]
        parts_s += [part.mean for part in setting.edge.stages[split:]]
        parts_s += [setting.device.encode[split, codec].mean, setting.edge.decode[split, codec].mean]
        size = float(setting.calibration.pairs[split, codec].payload_bytes.mean()) + 150
        parts_s += [setting.edge.exits[-1].mean, seen.link.rtt_s, 8 * size / seen.link.rate_bps]
        parts_s += [seen.edge_load.wait_s if seen.edge_load else 0.0]
        parts_s += [setting.device.exits[split - 1].mean]  # the head right at the split, to answer alone
        if sum(parts_s) <= seen.deadline_left_s and size > most:
            best, most = Plan(split=split, codec=codec), size
    return best


@pytest.mark.parametrize("seed", range(5))
def test_the_longest_prefix_that_fits(tmp_path: Path, seed: int) -> None:
    """Two hundred states each; every answer occurs."""
    split = 1 + seed % 2
    setting, rng, seen = world(tmp_path, split, seed).setting(), np.random.default_rng(seed), set[str | None]()
    policy = prepared(setting)
    for _ in range(200):
        link = LinkEstimate(float(10 ** rng.uniform(4.5, 7)), float(rng.uniform(0.001, 0.05)))
        load = None if rng.random() < 0.3 else EdgeLoad(1, float(rng.exponential(0.02)))
        left_s = float(rng.uniform(-0.05, 0.6))
        state = Observation(link=link, edge_load=load, deadline_left_s=left_s)
        plan = policy.decide(state)
        assert plan == brute_force(setting, split, state)
        seen.add(plan.codec)
    assert seen == {None, *PREFIXES}


def test_more_time_or_a_faster_link_never_shortens_it(tmp_path: Path) -> None:
    setting = world(tmp_path).setting()
    policy = prepared(setting)

    def sent(rate_bps: float, left_s: float) -> int:
        state = Observation(link=LinkEstimate(rate_bps, 0.01), edge_load=None, deadline_left_s=left_s)
        codec = policy.decide(state).codec
        return 0 if codec is None else BYTES[codec]

    rates, times = np.geomspace(1e4, 1e8, 60), np.linspace(0, 1, 60)
    for grid in ([sent(rate, 0.2) for rate in rates], [sent(3e5, left_s) for left_s in times]):
        assert grid == sorted(grid)
        assert {0, 4000} <= set(grid)


def test_a_narrow_link_shortens_what_is_sent(tmp_path: Path) -> None:
    """In the simulator: whole payloads over a wide link, prefixes in time over a narrow one, none over a dead one."""
    sent = {}
    for mbps in (8.0, 0.25, 0.01):
        folder = tmp_path / str(mbps)
        folder.mkdir()
        narrow = {"name": "constant", "mbps": mbps, "delay_ms": 5.0}
        made = world(folder, uplink=narrow, devices__deadline_ms=150.0, devices__arrivals__rate_hz=1.0)
        rows = simulate(made, "clio", 0, 60)
        sent[mbps] = {row.codec for row in rows}
        assert all(row.deadline_met for row in rows)
    assert sent[8.0] == {WHOLE}
    assert sent[0.25] & set(PREFIXES[:3])
    assert sent[0.01] == {""}


def test_only_the_codecs_that_are_named(tmp_path: Path) -> None:
    setting = world(tmp_path).setting()
    policy = prepared(setting, split=1, codecs=["uint8", PREFIXES[0]])
    wide = Observation(link=LinkEstimate(1e9, 0.0), edge_load=None, deadline_left_s=1.0)
    assert policy.decide(wide).codec == PREFIXES[0]


def test_what_does_not_fit_is_said_in_one_line(tmp_path: Path) -> None:
    setting = world(tmp_path).setting()
    without = replace(setting, codecs={0: ("jpeg",), 1: ("uint8",)})
    twice = replace(setting, codecs={1: setting.codecs[1], 2: setting.codecs[1]})
    several = replace(setting, codecs={1: (*setting.codecs[1], "progressive:channels=4")})
    cases: list[tuple[Setting, dict[str, object], str]] = [
        (without, {}, "nowhere; train, record and calibrate"),
        (without, {"split": 1}, "no progressive codec at split 1"),
        (twice, {}, "at the splits 1, 2; choose one"),
        (several, {}, "several progressive codecs"),
        (setting, {"codecs": ["uint8"]}, "codecs without split"),
        (setting, {"split": 7, "codecs": ["uint8"]}, "split 7"),
    ]
    for given, arguments, said in cases:
        with pytest.raises(InputError, match=said) as caught:
            prepared(given, **arguments)
        assert "\n" not in str(caught.value)
