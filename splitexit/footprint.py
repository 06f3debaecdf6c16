"""What a plan keeps in the device's memory: weights, and the features between stages.

A lower bound: what the runtime itself takes, and features inside a stage, are not counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from splitexit.bundle import Bundle
from splitexit.decision import Plan
from splitexit.errors import ArtifactError

FLOAT_BYTES = 4
"""Features are computed in single precision."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of a bundle's parts.

    stages, heads  weights of every stage and exit head
    codecs         (split, codec id) -> weights of a learned codec, both sides
    features       fp32 bytes of the image and of what every stage puts out
    """

    stages: tuple[int, ...]
    heads: tuple[int, ...]
    codecs: dict[tuple[int, str], int]
    features: tuple[int, ...]

    @classmethod
    def of(cls, bundle: Bundle) -> Footprint:
        """Reads the headers of the weight files; raises ArtifactError."""
        spec = bundle.spec
        stages, heads = [0] * spec.num_stages, [0] * len(spec.exits)
        for name, size in _sizes(bundle.weights):
            kind, number = re.match(r"(\w+)\.(\d+)\.", name).groups()  # type: ignore[union-attr]  # ours are all so
            (stages if kind == "stages" else heads)[int(number)] += size
        codecs: dict[tuple[int, str], int] = {}
        for name, size in _sizes(bundle.codec_weights) if bundle.codec_weights.exists() else ():
            codec, split, _ = name.rsplit("/", 2)
            key = int(split[1:]), codec
            codecs[key] = codecs.get(key, 0) + size
        shapes = (spec.shape_at(split) for split in range(spec.num_stages + 1))
        return cls(tuple(stages), tuple(heads), codecs, tuple(FLOAT_BYTES * math.prod(shape) for shape in shapes))

    def device_bytes(self, plan: Plan) -> int:
        """Weights that the device holds for a plan, and the largest pair of features that it holds at once."""
        last = len(self.stages) if plan.split is None else plan.split
        heads = {check.exit for check in plan.exits} | ({len(self.heads) - 1} if plan.split is None else set())
        weights = sum(self.stages[:last]) + sum(self.heads[exit_] for exit_ in heads)
        learned = 0 if plan.split is None else self.codecs.get((plan.split, plan.codec or ""), 0)
        held = max((a + b for a, b in zip(self.features[:last], self.features[1:], strict=False)), default=0)
        return weights + learned + max(held, self.features[0])


def _sizes(path: Path) -> Iterator[tuple[str, int]]:
    """Name and bytes of every tensor."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                part = file.get_slice(name)
                yield name, math.prod(part.get_shape()) * _width(part.get_dtype())
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from error


def _width(dtype: str) -> int:
    """Bytes of a value, from the digits of names as F32, BF16, I64 (of BOOL and U8: one)."""
    digits = "".join(filter(str.isdigit, dtype))
    return max(1, int(digits or 8) // 8)
