"""A bundle: one folder with a trained multi-exit model and everything measured about it.

    model.safetensors    weights of backbone and heads
    model.json           ModelSpec: stages, exits, costs, how it was trained
    codecs.safetensors   weights of the learned codecs (optional)
    recording.parquet    what the model said on a real test set (see recording.py)
    calibration.json     what each part costs in seconds (see calibration.py)
    samples.parquet      a few test images for live runs (optional)
    README.md            the model card

This module reads the folder without torch; `splitexit.models` makes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from splitexit.errors import ArtifactError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Stage:
    """One stage of the backbone: its cost in multiply-accumulates, its conv and linear layers, its output C×H×W."""

    macs: int
    layers: int
    output_shape: Shape


@dataclass(frozen=True)
class Exit:
    """One exit head: it reads the features after `stage` stages; cost as in Stage.

    An additive head puts out what it adds to the logits of the exit before it, which must have been read; what such an
    exit says are always the sums.
    """

    stage: int
    macs: int
    layers: int
    head: Mapping[str, Any]
    additive: bool = False


@dataclass(frozen=True)
class ModelSpec:
    """The structure of a multi-exit model, as model.json states it (no weights)."""

    name: str
    backbone: Mapping[str, Any]
    input_shape: Shape
    num_classes: int
    stages: tuple[Stage, ...]
    exits: tuple[Exit, ...]
    class_names: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""

    @property
    def num_stages(self) -> int:
        """S: a split lies in 0..S."""
        return len(self.stages)

    @property
    def final_exit(self) -> int:
        """Index of the last exit, the classifier at the end of the backbone."""
        return len(self.exits) - 1

    @cached_property
    def exit_stages(self) -> tuple[int, ...]:
        """For every exit, the number of stages run before it."""
        return tuple(exit_.stage for exit_ in self.exits)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the backbone and the final head: the exit-free network."""
        return sum(stage.macs for stage in self.stages) + self.exits[-1].macs

    def shape_at(self, split: int) -> Shape:
        """C×H×W of what is sent at `split`: the image at 0, else the output of stage `split`."""
        return self.input_shape if split == 0 else self.stages[split - 1].output_shape

    def exits_after(self, stage: int) -> tuple[int, ...]:
        """The exits that lie behind `stage` stages."""
        return tuple(e for e, at in enumerate(self.exit_stages) if at > stage)

    def early_exits(self, until: int) -> tuple[int, ...]:
        """The exits but the final one that lie in the first `until` stages."""
        return tuple(e for e in range(self.final_exit) if self.exits[e].stage <= until)

    def next_exit(self, split: int) -> int:
        """The first exit at or behind `split` that needs no other: what a device without a reading runs on to."""
        return next(e for e, exit_ in enumerate(self.exits) if exit_.stage >= split and not exit_.additive)

    def evidence(self, exit_: int) -> tuple[int, ...]:
        """The exits whose outputs add up to what this one says: itself, and those before it that it adds to."""
        first = exit_
        while self.exits[first].additive:
            first -= 1
        return tuple(range(first, exit_ + 1))

    def to_json(self) -> dict[str, Any]:
        """The content of model.json."""
        return {
            "format": 1,
            "name": self.name,
            "backbone": dict(self.backbone),
            "input_shape": list(self.input_shape),
            "num_classes": self.num_classes,
            "class_names": list(self.class_names),
            "stages": [{"macs": s.macs, "layers": s.layers, "output_shape": list(s.output_shape)} for s in self.stages],
            "exits": [_exit_json(e) for e in self.exits],
            "training": dict(self.training),
            "weights_sha256": self.weights_sha256,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], origin: str = "model.json") -> ModelSpec:
        """The inverse of `to_json`; raises ArtifactError where a key is missing or does not fit."""
        try:
            spec = cls(
                name=str(content["name"]),
                backbone=dict(content["backbone"]),
                input_shape=_shape(content["input_shape"]),
                num_classes=int(content["num_classes"]),
                class_names=tuple(map(str, content.get("class_names", ()))),
                stages=tuple(
                    Stage(int(s["macs"]), int(s["layers"]), _shape(s["output_shape"])) for s in content["stages"]
                ),
                exits=tuple(
                    Exit(int(e["stage"]), int(e["macs"]), int(e["layers"]), dict(e["head"]), bool(e.get("additive")))
                    for e in content["exits"]
                ),
                training=dict(content.get("training", {})),
                weights_sha256=str(content.get("weights_sha256", "")),
            )
        except KeyError as error:
            raise ArtifactError(f"{origin}: the key {error} is missing") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(f"{origin}: not a model description: {error}") from error
        spec._check(origin)
        return spec

    def _check(self, origin: str) -> None:
        stages = self.exit_stages
        if not self.stages or not stages or stages[-1] != self.num_stages or stages[0] < 1:
            raise ArtifactError(f"{origin}: the last exit must follow the last of {self.num_stages} stages")
        if any(a >= b for a, b in pairwise(stages)):
            raise ArtifactError(f"{origin}: exits must lie behind one another, found stages {list(stages)}")
        if self.exits[0].additive or self.exits[-1].additive:
            raise ArtifactError(f"{origin}: neither the first exit nor the final one can add to another")


def _exit_json(exit_: Exit) -> dict[str, Any]:
    content = {"stage": exit_.stage, "macs": exit_.macs, "layers": exit_.layers, "head": dict(exit_.head)}
    return content | ({"additive": True} if exit_.additive else {})


def _shape(values: Any) -> Shape:
    shape = tuple(int(v) for v in values)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"a shape is three positive numbers, found {list(shape)}")
    return shape


@dataclass(frozen=True)
class Bundle:
    """A bundle's folder with its model description read; the rest is read when it is asked for."""

    path: Path
    spec: ModelSpec

    @classmethod
    def open(cls, path: Path | str) -> Bundle:
        """Reads model.json; raises ArtifactError where the folder or file is missing or corrupt."""
        path = Path(path)
        if not path.is_dir():
            raise ArtifactError(f"{path}: no such bundle (a folder with model.json); `splitexit train` makes one")
        return cls(path, ModelSpec.from_json(read_json(path / "model.json"), str(path / "model.json")))

    @property
    def weights(self) -> Path:
        """model.safetensors."""
        return self.path / "model.safetensors"

    @property
    def codec_weights(self) -> Path:
        """codecs.safetensors; absent where the bundle has no learned codec."""
        return self.path / "codecs.safetensors"

    @property
    def recording(self) -> Path:
        """recording.parquet."""
        return self.path / "recording.parquet"

    @property
    def calibration(self) -> Path:
        """calibration.json."""
        return self.path / "calibration.json"

    @property
    def samples(self) -> Path:
        """samples.parquet."""
        return self.path / "samples.parquet"

    def check_weights(self) -> None:
        """Compares model.safetensors with the digest in model.json; raises ArtifactError."""
        found = file_sha256(self.weights)
        if self.spec.weights_sha256 and found != self.spec.weights_sha256:
            raise ArtifactError(
                f"{self.weights}: sha256 {found[:12]}… is not the {self.spec.weights_sha256[:12]}… of model.json; "
                "restore the file or train and record again"
            )

    def digests(self) -> dict[str, str]:
        """sha256 of the files that decide what the model answers (those that exist)."""
        files = (self.weights, self.codec_weights)
        return {file.name: file_sha256(file) for file in files if file.exists()}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; raises ArtifactError with the line where it is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such file") from error
    except json.JSONDecodeError as error:
        raise ArtifactError(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file; raises ArtifactError where it is missing."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from error
