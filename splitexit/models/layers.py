"""Single layers of networks: what they are, and what each takes on this machine.

What counts as a layer is an operation that torch carries out: modules and functions alike are seen where they reach the
dispatcher. Every distinct one is timed alone, on what it read in its network; whole passes through the networks say
what layers take in a row.
Seconds are those of this thread on its core, so that other processes on the machine do not count.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import thread_time
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from splitexit.bundle import Bundle, read_json
from splitexit.errors import ArtifactError
from splitexit.models import multi_exit
from splitexit.models.calibrate import describe_machine
from splitexit.models.runtime import one_thread
from splitexit.regression import KINDS, Layer, Pass, Regression

NETWORKS: tuple[dict[str, Any], ...] = (
    {"name": "resnet", "depth": 20},
    {"name": "resnet", "depth": 8, "width": 24},
    {"name": "resnet", "depth": 8, "width": 40},
    {"name": "resnet18"},
    {"name": "vgg-small"},
    {"name": "mobilenetv2"},
    {"name": "mobilenetv2", "width": 0.5},
)
"""Whose layers are measured: all backbones of one tensor, some with widths that give other sizes."""

REPETITIONS, WARM_UP = 40, 5

# Only the shape of what they return is new.
FREE = {"t", "view", "_unsafe_view", "transpose", "permute", "detach", "alias", "expand", "slice", "select"} | {
    "unsqueeze",
    "squeeze",
    "split",
    "unbind",
}


@dataclass(frozen=True)
class Operation:
    """One operation that torch carried out.

    layer    its type and size
    key      what tells it from others
    run      carries it out again
    reads    numbers of the operations before it whose results it takes
    numbers  how many numbers it puts out
    """

    layer: Layer
    key: str
    run: Callable[[], Any]
    reads: frozenset[int]
    numbers: int


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the operations that are carried out inside it; what they put out stays alive, or its place is reused."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Operation] = []
        self._maker: dict[int, int] = {}
        self._alive: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        run = partial(func, *args, **(kwargs or {}))
        out, name = run(), func.overloadpacket.__name__
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        reads = frozenset(self._maker[id(leaf)] for leaf in tree_leaves(args) if id(leaf) in self._maker)
        if name not in FREE and results[0].numel():
            key = f"{name} {[tuple(a.shape) if isinstance(a, Tensor) else a for a in args]}"
            self.found.append(Operation(_layer(name, args, results[0]), key, run, reads, results[0].numel()))
            reads = frozenset({len(self.found) - 1})
        self._alive += results
        self._maker |= {id(result): max(reads) for result in results if reads}
        return out


def operations(work: Callable[[], Any]) -> list[Operation]:
    """What `work` has torch do, in its order."""
    with torch.no_grad(), _Watch() as watch:  # in inference mode convolutions would not be seen as such
        work()
    return list(watch.found)


def _layer(name: str, args: Any, out: Tensor) -> Layer:
    if name == "convolution":
        (maps, weight), stride = args[:2], args[3]
        window = float(np.prod(weight.shape[2:]) / np.prod(stride))
        return Layer("conv", (float(maps.numel()), window * weight.shape[0] / args[8]))
    if name in ("addmm", "mm"):
        weight = args[2] if name == "addmm" else args[1]
        return Layer("linear", tuple(map(float, weight.shape)))
    if "pool" in name or name == "mean":
        return Layer("pool", (float(args[0].numel()), float(out.numel())))
    return Layer("other", (float(out.numel()),))


@dataclass(frozen=True)
class Profile:
    """Layers that were measured: seconds of every repetition, and on which machine.

    passes   through every network
    """

    layers: tuple[tuple[Layer, tuple[float, ...]], ...]
    passes: tuple[Pass, ...]
    machine: dict[str, Any]

    @classmethod
    def measure(
        cls,
        input_shape: Sequence[int],
        networks: Sequence[Mapping[str, Any]] = NETWORKS,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Profile:
        """Every distinct layer of these backbones for images of this shape, C×H×W, on one thread."""
        found: dict[str, tuple[Layer, tuple[float, ...]]] = {}
        passes = []
        for number, backbone in enumerate(networks, start=1):
            config = multi_exit.NetConfig(dict(backbone), _shape(input_shape), num_classes=10, shares=())
            net, image = multi_exit.build(config).eval(), torch.rand(1, *input_shape)
            with one_thread():
                passed = operations(partial(net, image))
                for one in passed:
                    found[one.key] = found.get(one.key) or (one.layer, tuple(timed(one.run)))
                whole_s = float(np.median(timed(partial(net, image))))
            alone_s = sum(float(np.median(found[one.key][1])) for one in passed)
            passes.append(Pass(len(passed), alone_s, whole_s))
            progress(number, len(networks))
        return cls(tuple(found.values()), tuple(passes), describe_machine())

    def save(self, path: Path) -> None:
        """Writes JSON with all samples."""
        layers = [{"kind": layer.kind, "features": layer.features, "seconds": s} for layer, s in self.layers]
        content = {"format": 1, "machine": self.machine, "passes": self.passes, "layers": layers}
        path.write_text(json.dumps(content) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Profile:
        """Reads what `save` wrote; raises ArtifactError."""
        content = read_json(path)
        try:
            layers = tuple((_checked(entry), tuple(map(float, entry["seconds"]))) for entry in content["layers"])
            return cls(layers, tuple(_pass(*entry) for entry in content["passes"]), dict(content["machine"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{path}: not a profile of layers ({error}); name another file to measure anew"
            ) from None

    def fit(self, without: Collection[Layer] = ()) -> Regression:
        """The laws of this machine from the medians, of all layers but those like one of `without`."""
        kept = [(layer, float(np.median(seconds))) for layer, seconds in self.layers if layer not in without]
        return Regression.fit(kept, self.passes)


def _pass(layers: Any, alone_s: Any, whole_s: Any) -> Pass:
    return Pass(int(layers), float(alone_s), float(whole_s))


def _checked(entry: Any) -> Layer:
    layer = Layer(entry["kind"], tuple(map(float, entry["features"])))
    if layer.kind not in KINDS or not entry["seconds"] or min(entry["seconds"]) <= 0:
        raise ValueError(f"a layer of type {layer.kind!r} with {len(entry['seconds'])} samples")
    return layer


def _shape(values: Sequence[int]) -> tuple[int, int, int]:
    channels, height, width = values
    return channels, height, width


def timed(work: Callable[[], Any], repetitions: int = REPETITIONS) -> list[float]:
    """Seconds of every repetition, after a warm-up."""
    seconds = []
    with torch.inference_mode():
        for number in range(-WARM_UP, repetitions):
            begun_s = thread_time()
            work()
            if number >= 0:
                seconds.append(thread_time() - begun_s)
    return seconds


@dataclass(frozen=True)
class Part:
    """A stage or head of a bundle: its layers, and its median seconds here and now."""

    layers: tuple[Layer, ...]
    seconds: float


def parts(bundle: Bundle) -> tuple[list[Part], list[Part]]:
    """Stages and heads of a bundle, measured on one thread."""
    net, spec = multi_exit.load(bundle), bundle.spec
    features, stages, heads = torch.rand(1, *spec.input_shape), list[Part](), list[Part]()
    with one_thread(), torch.no_grad():
        for stage in range(spec.num_stages):
            stages.append(_part(partial(net.run_stages, features, stage, stage + 1)))
            features = net.run_stages(features, stage, stage + 1)
            heads += [
                _part(partial(net.read_exit, features, e)) for e, at in enumerate(spec.exit_stages) if at == stage + 1
            ]
    return stages, heads


def regressed(bundle: Bundle, profile: Profile) -> tuple[dict[str, tuple[float, ...]], Regression]:
    """What regressions say of a bundle's stages and heads relative to what they take now: Calibration.regressed.

    They are fitted without the bundle's own layers: a network that was never profiled.
    """
    measured = dict(zip(("stages", "exits"), parts(bundle), strict=True))
    own = {layer for found in measured.values() for part in found for layer in part.layers}
    laws = profile.fit(without=own)
    factors = {kind: tuple(laws.seconds(p.layers) / p.seconds for p in found) for kind, found in measured.items()}
    return {kind: tuple(float(f"{factor:.4g}") for factor in of) for kind, of in factors.items()}, laws


def _part(work: Callable[[], Any]) -> Part:
    return Part(tuple(one.layer for one in operations(work)), float(np.median(timed(work))))
