"""Bundles whose early exits learn a confidence beside their classes: a made-up recording, and a head to build with."""

from __future__ import annotations

import numpy as np

from splitexit.bundle import ModelSpec
from splitexit.recording import PARTS, ExitReadings, PairReadings, Part, Recording


def recording(model: ModelSpec, samples: int = 300, seed: int = 0) -> Recording:
    """Random logits, which are kept, and at early exits a confidence that is a little higher where they are right."""
    rng = np.random.default_rng(seed)
    return Recording({name: _part(name, model, samples, rng) for name in PARTS}, model.num_classes, {"digests": {}})


def _part(name: str, model: ModelSpec, samples: int, rng: np.random.Generator) -> Part:
    label = rng.integers(0, model.num_classes, samples).astype(np.uint16)

    def says(exit_: int) -> ExitReadings:
        outputs = rng.normal(size=(samples, model.num_classes + (exit_ != model.final_exit))).astype(np.float32)
        outputs[np.arange(samples), label] += 1.0 + exit_
        if exit_ != model.final_exit:
            outputs[:, -1] += outputs[:, :-1].argmax(axis=1) == label
        return ExitReadings.of_outputs(outputs, model.num_classes, keep=True)

    pairs = {
        (split, codec): PairReadings(
            rng.integers(200, 900, samples).astype(np.uint32), {e: says(e) for e in model.exits_after(split)}
        )
        for split, codec in ((0, "jpeg"), (1, "uint8"))
    }
    exits = tuple(says(e) for e in range(len(model.exits)))
    return Part(name, np.arange(samples, dtype=np.uint32), label, exits, pairs)
