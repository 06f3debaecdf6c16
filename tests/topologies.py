"""Random scenarios drawn from everything that a scenario may say, on one made-up bundle."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from splitexit.calibration import Distribution, Rpc
from splitexit.experiment import Experiment
from splitexit.scenario import dump, load
from tests import synthetic

PAIRS = {(0, "jpeg"): 900, (1, "uint8"): 4000, (2, "raw"): 8000, (3, "uint8"): 2000}
POLICIES: dict[str, Any] = {
    "local": "local",
    "image": {"name": "offload", "split": 0, "codec": "jpeg"},
    "features": {"name": "offload", "split": 1, "codec": "uint8"},
    "deep": {"name": "offload", "split": 3, "codec": "uint8"},
    "early": {"name": "threshold", "threshold": 0.6, "split": 2, "codec": "raw"},
    "both": {"name": "threshold", "threshold": 0.5, "exits": [0], "split": 1, "codec": "uint8", "edge_exits": True},
    "neurosurgeon": "neurosurgeon",
    "random": "random",
    "oracle": "oracle",
}


def write_bundle(folder: Path) -> None:
    """Four stages of varying times; features may leave behind any of the first three."""
    model = synthetic.spec(stages=4)
    takes = synthetic.calibration(
        model,
        Distribution((0.002, 0.004, 0.009)),
        head=0.0005,
        codec=0.001,
        pairs=list(PAIRS),
        rpc=Rpc(60, 100, Distribution((0.0005, 0.002))),
    )
    says = synthetic.recording(model, samples=60, pairs=PAIRS)
    synthetic.write_bundle(folder / "bundle", model, says, replace(takes, batch={1: 1.0, 2: 1.4, 4: 2.2, 8: 4.0}))


def opened(folder: Path, content: dict[str, Any], name: str = "scenario") -> Experiment:
    """A scenario of `draw`, beside the bundle."""
    path = folder / f"{name}.yaml"
    path.write_text(dump(content))
    return Experiment.open(load(path))


def draw(seed: int) -> dict[str, Any]:
    """A scenario; the same for the same seed."""
    dice = Random(seed)
    points = {f"cell{k}": _point(dice) for k in range(dice.choice([0, 0, 1, 2]))}
    groups = {f"group{k}": _group(dice, list(points)) for k in range(dice.choice([1, 1, 2, 3]))}
    content = {
        "bundle": "bundle",
        "requests": dice.randint(10, 40),
        "seed": seed,
        "groups": groups,
        "access_points": points,
        "uplink": _link(dice),
        "downlink": _link(dice),
        "edge": _tier(dice),
        "policies": copy.deepcopy(POLICIES),
        "events": _events(dice, groups, points),
    }
    if dice.random() < 0.4:
        content["cloud"] = {"split": 2, "uplink": _link(dice), "downlink": _link(dice), **_tier(dice)}
    return content


def _link(dice: Random) -> dict[str, Any]:
    delay_ms = dice.choice([0.0, 1.0, 8.0])
    kind = dice.random()
    if kind < 0.2:
        return {"name": "fading", "bandwidth_mhz": dice.choice([1.0, 5.0]), "snr_db": 10.0, "delay_ms": delay_ms}
    link = {"name": "constant", "mbps": dice.choice([0.5, 2.0, 20.0, 1000.0]), "delay_ms": delay_ms}
    return link | {"jitter_ms": 2.0} if delay_ms and kind > 0.7 else link


def _point(dice: Random) -> dict[str, Any]:
    return {
        "count": dice.choice([1, 1, 2]),
        "sharing": dice.choice(["fifo", "processor"]),
        "uplink": _link(dice),
        "downlink": _link(dice),
    }


def _group(dice: Random, points: list[str]) -> dict[str, Any]:
    rate_hz = dice.choice([2.0, 20.0, 60.0])
    arrivals = [
        {"name": "poisson", "rate_hz": rate_hz},
        {"name": "periodic", "rate_hz": rate_hz},
        {"name": "closed", "think_ms": dice.choice([0.0, 20.0])},
    ]
    group: dict[str, Any] = {
        "count": dice.randint(1, 4),
        "hardware": dice.choice(["host", "host", "raspberry-pi-4"]),
        "arrivals": dice.choice(arrivals),
        "policy": dice.choice(list(POLICIES)),
        "deadline_ms": dice.choice([20.0, 60.0, 150.0, 1000.0, 60_000.0]),
        "pipeline": dice.random() < 0.6,
        "retries": dice.choice([0, 0, 1, 2]),
    }
    where = dice.random()
    if points and where < 0.6:
        return group | {"access_point": dice.choice(points)}
    return group | {"uplink": _link(dice)} if where > 0.8 else group


def _tier(dice: Random) -> dict[str, Any]:
    tier: dict[str, Any] = {
        "workers": dice.choice([1, 1, 2, 4]),
        "servers": dice.choice([1, 1, 2, 3]),
        "balancer": dice.choice(["round-robin", "least-loaded"]),
    }
    if dice.random() < 0.4:
        tier["queue"] = dice.choice([0, 1, 5])
    if dice.random() < 0.4:
        tier["batching"] = {"max_size": dice.choice([1, 2, 4, 8]), "max_wait_ms": dice.choice([0.0, 3.0, 15.0])}
        if "queue" in tier:  # jobs that wait for company count
            tier["queue"] += tier["batching"]["max_size"] - 1
    return tier


def _events(dice: Random, groups: dict[str, Any], points: dict[str, Any]) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    down_s = 0.0
    for _ in range(dice.choice([0, 0, 1, 3])):
        down_s += dice.choice([0.0, 0.1, 0.3])
        events.append({"kind": "edge-down", "at_s": down_s, "for_s": (for_s := dice.choice([0.05, 0.2, 0.5]))})
        down_s += for_s
    own = [label for label, group in groups.items() if "access_point" not in group]
    for _ in range(dice.choice([0, 0, 1, 2])):
        event = {"at_s": dice.choice([0.0, 0.2, 0.7]), "direction": dice.choice(["up", "down", "both"])}
        event |= {"kind": "outage"} if dice.random() < 0.5 else {"kind": "bandwidth", "factor": dice.choice([0.1, 3.0])}
        event |= {"for_s": dice.choice([0.1, 0.5])} if dice.random() < 0.8 else {}
        label = dice.choice([None, *own, *points])
        events.append(event | ({"on": label} if label else {}))
    for _ in range(dice.choice([0, 0, 1, 2])):
        event = {"at_s": dice.choice([0.0, 0.2]), "on": dice.choice(list(groups))}
        event |= {"for_s": dice.choice([0.2, 0.5])} if dice.random() < 0.8 else {}
        if dice.random() < 0.5 or groups[str(event["on"])]["arrivals"]["name"] == "closed":
            events.append(event | {"kind": "leave", "share": dice.choice([0.5, 1.0])})
        else:
            events.append(event | {"kind": "burst", "factor": dice.choice([0.3, 4.0])})
    return events
