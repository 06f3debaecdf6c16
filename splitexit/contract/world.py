"""A made-up world to try policies in: structure and chance, no torch, no files that stay.

Nothing that is measured in it means anything; it only has to be a world in which every kind of thing happens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from splitexit.bundle import Exit, ModelSpec, Stage
from splitexit.calibration import Calibration, Distribution, Rpc
from splitexit.experiment import Experiment
from splitexit.recording import PARTS, ExitReadings, PairReadings, Part, Recording
from splitexit.scenario import dump, load

CLASSES = 10
PAIRS = {(0, "jpeg"): 900, (1, "uint8"): 400}
"""(split, codec) -> mean payload in bytes."""


def spec(stages: int = 3) -> ModelSpec:
    """One exit behind every stage; 100 MACs and one layer each."""
    return ModelSpec(
        name="synthetic",
        backbone={"name": "synthetic"},
        input_shape=(3, 32, 32),
        num_classes=CLASSES,
        class_names=tuple(f"class {k}" for k in range(CLASSES)),
        stages=tuple(Stage(100, 1, (4, 8, 8)) for _ in range(stages)),
        exits=tuple(Exit(k + 1, 10, 1, {"name": "pooled"}) for k in range(stages)),
    )


def recording(
    model: ModelSpec, samples: int = 200, pairs: Mapping[tuple[int, str], int] | None = None, seed: int = 0
) -> Recording:
    """Random logits that grow surer with depth; `pairs` maps (split, codec) to a mean payload size in bytes."""
    rng = np.random.default_rng(seed)
    pairs = PAIRS if pairs is None else pairs
    return Recording(
        {name: _part(name, model, samples, pairs, rng) for name in PARTS}, CLASSES, {"digests": {}, "command": "test"}
    )


def _part(
    name: str, model: ModelSpec, samples: int, pairs: Mapping[tuple[int, str], int], rng: np.random.Generator
) -> Part:
    label = rng.integers(0, CLASSES, samples).astype(np.uint16)

    def readings(exit_: int) -> ExitReadings:
        logits = rng.normal(size=(samples, CLASSES)).astype(np.float32)
        logits[np.arange(samples), label] += 1.0 + exit_
        return ExitReadings.of_logits(logits)

    recorded = {
        (split, codec): PairReadings(
            rng.integers(size // 2, size * 3 // 2 + 1, samples).astype(np.uint32),
            {e: readings(e) for e in model.exits_after(split)},
        )
        for (split, codec), size in pairs.items()
    }
    exits = tuple(readings(e) for e in range(len(model.exits)))
    return Part(name, np.arange(samples, dtype=np.uint32), label, exits, recorded)


def calibration(
    model: ModelSpec,
    stage: Distribution | float = 0.010,
    head: float = 0.0,
    codec: float = 0.0,
    pairs: Sequence[tuple[int, str]] = tuple(PAIRS),
    rpc: Rpc | None = None,
) -> Calibration:
    """Every stage takes `stage` seconds, every head `head`, encoding and decoding `codec`."""
    times = stage if isinstance(stage, Distribution) else Distribution.constant(stage)
    codecs = {pair: Distribution.constant(codec) for pair in pairs}
    return Calibration(
        machine={"name": "synthetic"},
        stages=tuple(times for _ in model.stages),
        exits=tuple(Distribution.constant(head) for _ in model.exits),
        encode=codecs,
        decode=codecs,
        rpc=rpc or Rpc(0, 100, Distribution.constant(0.0)),
    )


def write_bundle(folder: Path, model: ModelSpec, says: Recording, takes: Calibration) -> Path:
    """The three files that a simulation needs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(json.dumps(model.to_json()))
    says.save(folder / "recording.parquet")
    takes.save(folder / "calibration.json")
    return folder


@cache
def made_up() -> Experiment:
    """A device on a link of 8 Mbit/s and a faster edge, ten requests a second, a deadline that some miss."""
    link = {"name": "constant", "mbps": 8.0, "delay_ms": 5.0}
    arrivals = {"name": "poisson", "rate_hz": 10.0}
    devices = {"hardware": "host", "arrivals": arrivals, "policy": "local", "deadline_ms": 60.0}
    content = {"bundle": "bundle", "requests": 200, "devices": devices, "uplink": link, "downlink": link}
    with TemporaryDirectory() as name:
        folder, model = Path(name), spec()
        write_bundle(folder / "bundle", model, recording(model), calibration(model))
        (folder / "made-up.yaml").write_text(dump(content | {"edge": {"hardware": "workstation-cpu"}}))
        return Experiment.open(load(folder / "made-up.yaml"))
