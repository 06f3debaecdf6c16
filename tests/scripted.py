"""Simulated worlds whose every time can be added up by hand: four stages, each part with a price of its own.

Requests come when the test says so, exits are as sure as the test says, and payloads are as large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitexit.bundle import ModelSpec
from splitexit.calibration import Calibration, Distribution, Pair, Rpc
from splitexit.experiment import Experiment
from splitexit.fleet import Group
from splitexit.inference import Decider
from splitexit.recording import PARTS, ExitReadings, PairReadings, Part, Recording
from splitexit.results import Completion
from splitexit.sim import simulate
from splitexit.workload import Workload
from tests import synthetic

STAGE_S = (0.0110, 0.0120, 0.0130, 0.0140)
HEAD_S = (0.0011, 0.0012, 0.0013, 0.0014)
ENCODE_S: dict[Pair, float] = {(0, "jpeg"): 0.0020, (1, "uint8"): 0.0021, (2, "raw"): 0.0022, (3, "uint8"): 0.0023}
DECODE_S: dict[Pair, float] = {(0, "jpeg"): 0.0030, (1, "uint8"): 0.0031, (2, "raw"): 0.0032, (3, "uint8"): 0.0033}
SIZES = {(0, "jpeg"): 900, (1, "uint8"): 4000, (2, "raw"): 8000, (3, "uint8"): 2000}
RPC_S, OVERHEAD, REPLY = 0.0007, 60, 100
BATCH = {1: 1.0, 2: 1.5, 4: 2.0}

UP_BPS, UP_DELAY_S, DOWN_BPS, DOWN_DELAY_S = 8e6, 0.005, 4e6, 0.004
LINKS: dict[str, Any] = {
    "uplink": {"name": "constant", "mbps": UP_BPS / 1e6, "delay_ms": 1e3 * UP_DELAY_S},
    "downlink": {"name": "constant", "mbps": DOWN_BPS / 1e6, "delay_ms": 1e3 * DOWN_DELAY_S},
}
CLOUD_UP_BPS, CLOUD_UP_DELAY_S, CLOUD_DOWN_BPS, CLOUD_DOWN_DELAY_S = 16e6, 0.0060, 20e6, 0.0065
CLOUD: dict[str, Any] = {
    "split": 2,
    "uplink": {"name": "constant", "mbps": CLOUD_UP_BPS / 1e6, "delay_ms": 1e3 * CLOUD_UP_DELAY_S},
    "downlink": {"name": "constant", "mbps": CLOUD_DOWN_BPS / 1e6, "delay_ms": 1e3 * CLOUD_DOWN_DELAY_S},
}
CLOUD_BACK_S = 8 * REPLY / CLOUD_DOWN_BPS + CLOUD_DOWN_DELAY_S
DOWN_S = 8 * REPLY / DOWN_BPS + DOWN_DELAY_S
"""A reply on its way."""


def on_air_s(pair: Pair) -> float:
    """A payload alone on the uplink, without the delay."""
    return 8 * (SIZES[pair] + OVERHEAD) / UP_BPS


def up_s(pair: Pair) -> float:
    """From the device to a server's door."""
    return on_air_s(pair) + UP_DELAY_S + RPC_S


def cloud_up_s(pair: Pair) -> float:
    """From the edge to the cloud's door."""
    return 8 * (SIZES[pair] + OVERHEAD) / CLOUD_UP_BPS + CLOUD_UP_DELAY_S + RPC_S


def run_s(first: int, last: int) -> float:
    """Stages first+1..last."""
    return sum(STAGE_S[first:last])


def send_s(pair: Pair) -> float:
    """What the device does before a payload leaves."""
    return run_s(0, pair[0]) + ENCODE_S[pair]


def serve_s(pair: Pair) -> float:
    """What an edge does that answers by the final exit."""
    return DECODE_S[pair] + run_s(pair[0], 4) + HEAD_S[3]


def recording(model: ModelSpec, sure_from: Sequence[int]) -> Recording:
    """Sample k is sure (probability 1), and right, from exit sure_from[k] on, everywhere; before, it is neither."""
    depth = np.asarray(sure_from)

    def readings(exit_: int) -> ExitReadings:
        logits = np.zeros((len(depth), model.num_classes), np.float32)
        logits[:, 1] = np.where(depth <= exit_, 60.0, 0.0)
        return ExitReadings.of_logits(logits)

    pairs = {
        (split, codec): PairReadings(
            np.full(len(depth), size, np.uint32), {e: readings(e) for e in model.exits_after(split)}
        )
        for (split, codec), size in SIZES.items()
    }
    exits = tuple(readings(e) for e in range(len(model.exits)))
    numbers, label = np.arange(len(depth), dtype=np.uint32), np.ones(len(depth), np.uint16)
    return Recording(
        {name: Part(name, numbers, label, exits, pairs) for name in PARTS},
        model.num_classes,
        {"digests": {}, "command": "test"},
    )


def calibration() -> Calibration:
    """The prices above."""

    def priced(seconds: Mapping[Pair, float]) -> dict[Pair, Distribution]:
        return {pair: Distribution.constant(value) for pair, value in seconds.items()}

    return Calibration(
        machine={"name": "scripted"},
        stages=tuple(map(Distribution.constant, STAGE_S)),
        exits=tuple(map(Distribution.constant, HEAD_S)),
        encode=priced(ENCODE_S),
        decode=priced(DECODE_S),
        rpc=Rpc(OVERHEAD, REPLY, Distribution.constant(RPC_S)),
        batch=BATCH,
    )


@dataclass(frozen=True)
class Scripted(Experiment):
    """An experiment with given arrival times."""

    script: tuple[Sequence[float], ...] = ()
    """Of every device."""
    slowness: float = 1.0
    """By how much devices are slower than edge and cloud."""

    def device_calibration(self, group: Group | None = None) -> Calibration:
        """Stages and heads take longer."""
        usual = super().device_calibration(group)
        stages, exits = ([part.scaled(self.slowness) for part in parts] for parts in (usual.stages, usual.exits))
        return replace(usual, stages=tuple(stages), exits=tuple(exits))

    def workload(self, seed: int, device: int, requests: int | None = None) -> Workload:
        """The device's requests at its times."""
        times = self.script[device]
        return replace(super().workload(seed, device, len(times)), arrival_s=list(times))

    def decider(self, label: str, seed: int, device: int) -> Decider:
        """Of the policy that the device has, where the label is `each`: the one numbered like it."""
        labels = list(self.scenario.policies)
        return super().decider(labels[device % len(labels)] if label == "each" else label, seed, device)


def scripted(
    folder: Path, script: Sequence[Sequence[float]], sure_from: Sequence[int] = (9,), **changes: Any
) -> Scripted:
    """Devices with these arrival times and samples; `sure_from` 9 stands for never."""
    model = synthetic.spec(stages=4)
    policies = {f"{codec}@{split}": {"name": "offload", "split": split, "codec": codec} for split, codec in SIZES}
    content = {
        "requests": 1,
        "devices__count": len(script),
        "devices__deadline_ms": 10_000.0,
        "policies": policies | {"local": "local"},
    }
    opened = synthetic.experiment(
        folder, model=model, says=recording(model, sure_from), takes=calibration(), **(content | LINKS | changes)
    )
    return Scripted(opened.scenario, opened.bundle, opened.recording, opened.host, script=tuple(script))


def rows_of(experiment: Experiment, policy: str) -> list[Completion]:
    """One run's rows, by device and request."""
    return sorted(simulate(experiment, policy, 0), key=lambda row: (row.device, row.request))


def one(folder: Path, policy: str = "uint8@1", at_s: float = 1.0, **changes: Any) -> Completion:
    """The row of a single request."""
    (row,) = rows_of(scripted(folder, [[at_s]], **changes), policy)
    return row


def near(value: float) -> Any:
    """To 1e-9 s."""
    return pytest.approx(value, rel=0, abs=1e-9)


def exit_behind(split: int, codec: str, **more: Any) -> dict[str, Any]:
    """A policy that reads every exit behind the split."""
    return {
        "name": "threshold",
        "threshold": 0.9,
        "exits": [],
        "split": split,
        "codec": codec,
        "edge_exits": True,
    } | more
