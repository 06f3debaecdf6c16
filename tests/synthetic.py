"""A made-up bundle for tests that need structure, not accuracy: no torch, any times, any readings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from splitexit.bundle import ModelSpec
from splitexit.calibration import Calibration
from splitexit.contract.world import CLASSES, calibration, recording, spec, write_bundle
from splitexit.experiment import Experiment
from splitexit.recording import Recording
from splitexit.scenario import dump, load

__all__ = [
    "CLASSES",
    "SCENARIO",
    "calibration",
    "experiment",
    "recording",
    "spec",
    "write_bundle",
    "write_scenario",
]

SCENARIO: dict[str, Any] = {
    "name": "synthetic",
    "bundle": "bundle",
    "requests": 300,
    "seed": 0,
    "devices": {
        "hardware": "host",
        "arrivals": {"name": "poisson", "rate_hz": 10.0},
        "policy": "local",
        "deadline_ms": 1000.0,
    },
    "uplink": {"name": "constant", "mbps": 8.0, "delay_ms": 5.0},
    "downlink": {"name": "constant", "mbps": 8.0, "delay_ms": 5.0},
    "edge": {"hardware": "host", "workers": 1},
    "policies": {
        "local": {"name": "local"},
        "offload": {"name": "offload", "split": 0, "codec": "jpeg"},
        "split": {"name": "offload", "split": 1, "codec": "uint8"},
        "threshold": {"name": "threshold", "threshold": 0.6, "split": 1, "codec": "uint8"},
        "neurosurgeon": {"name": "neurosurgeon"},
        "random": {"name": "random"},
        "oracle": {"name": "oracle"},
    },
}


def write_scenario(folder: Path, **changes: Any) -> Path:
    """SCENARIO as a file; a change like devices__hardware="x" reaches into a mapping."""
    content = json.loads(json.dumps(SCENARIO))
    for key, value in changes.items():
        *parents, last = key.split("__")
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = value
    path = folder / "scenario.yaml"
    path.write_text(dump(content))
    return path


def experiment(
    folder: Path,
    *,
    model: ModelSpec | None = None,
    says: Recording | None = None,
    takes: Calibration | None = None,
    **changes: Any,
) -> Experiment:
    """A scenario on a synthetic bundle, opened."""
    model = model or spec()
    write_bundle(folder / "bundle", model, says or recording(model), takes or calibration(model))
    return Experiment.open(load(write_scenario(folder, **changes)))
