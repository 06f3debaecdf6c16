"""A learned decider of exit, split and bits: what it may do, what it looks at, its network, and the file of all three.

The triple (exit, split, bits) is the action of SAC-d (Niu, Teng, Han & Zou, arXiv 2201.02968); the bits are a codec
here. Policy and training environment share this module, so that both see the same observation and the same actions.
Everything runs in numpy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from splitexit.bundle import ModelSpec
from splitexit.decision import ExitCheck, Observation, Plan, Setting
from splitexit.errors import ArtifactError, InputError

Array = np.ndarray[Any, Any]
FORMAT = 1
TRAIN = "`splitexit train-policy` makes one"

READS = frozenset({"link", "cpu_load", "edge_load", "deadline_left_s"})
"""What it looks at of an Observation."""


class Action(NamedTuple):
    """Exit `exit` answers; the first `split` stages run on the device, what is behind them is sent with `codec`.

    Without split and codec, everything up to the exit runs on the device.
    """

    exit: int
    split: int | None = None
    codec: str | None = None


def actions_of(setting: Setting, codecs: Iterable[str] | None = None) -> tuple[Action, ...]:
    """Every valid triple: all exits on the device, then all exits recorded behind every (split, codec) on offer.

    Args:
        codecs: only these, as canonical ids; by default all on offer.
    """
    wanted = None if codecs is None else set(codecs)
    pairs = [(split, codec) for split, offered in sorted(setting.codecs.items()) for codec in offered]
    sent = [
        Action(exit_, split, codec)
        for split, codec in pairs
        if wanted is None or codec in wanted
        for exit_ in _answers(setting, split, codec)
    ]
    return (*(Action(exit_) for exit_ in range(len(setting.spec.exits))), *sent)


def _answers(setting: Setting, split: int, codec: str) -> list[int]:
    """The exits whose answer behind this (split, codec) was recorded, with all that they add to."""
    pair, behind = setting.calibration.pair(split, codec), setting.spec.exits_after(split)
    there = set(behind) if pair.lossless else set(pair.exits)
    return [e for e in behind if there.issuperset(set(setting.spec.evidence(e)) & set(behind))]


def plan_of(action: Action, spec: ModelSpec) -> Plan:
    """What carries it out. No max_prob reaches 2, every one −1."""
    exit_, split, codec = action
    if exit_ == spec.final_exit:
        return Plan(split=split, codec=codec)
    *before, last = spec.evidence(exit_)
    checks = (*(ExitCheck(e, "max_prob", 2.0) for e in before), ExitCheck(last, "max_prob", -1.0))
    cut = spec.num_stages if split is None else split
    here = tuple(check for check in checks if spec.exit_stages[check.exit] <= cut)
    return Plan(exits=here, split=split, codec=codec, edge_exits=checks[len(here) :])


class Menu:
    """The actions in a setting: their plans, and which of them make sense at the moment.

    An offload is masked where its payload could not leave in time on average: then nothing would be sent, and the
    device would only have lost time. What stays on the device is never masked.
    """

    def __init__(self, setting: Setting, actions: Sequence[Action]) -> None:
        self.plans = [plan_of(action, setting.spec) for action in actions]
        self._needs_s = np.array([_needs_s(setting, action) for action in actions])

    def mask(self, deadline_left_s: float) -> Array:
        """bool (actions,): those that may be taken with so many seconds left."""
        return np.asarray(self._needs_s < deadline_left_s)


def _needs_s(setting: Setting, action: Action) -> float:
    """Mean seconds that must be left for a payload to be sent at all: to make it, and for the device's fallback."""
    if action.split is None:
        return -math.inf
    assert action.codec is not None
    split = action.split
    return setting.device_s(split) + setting.device.encode[split, action.codec].mean + setting.fallback_s[split]


class Feature(NamedTuple):
    """One number of the observation: from `low` to `high` it is scaled to 0..1, and clipped there."""

    name: str
    low: float
    high: float


FEATURES = (
    Feature("log10 link.rate_bps", 3.0, 9.0),
    Feature("log10 link.rtt_s", -4.0, 1.0),
    Feature("cpu_load", 0.0, 1.0),
    Feature("log10 of 1 + edge_load.queue_length", 0.0, 2.0),
    Feature("edge_load.wait_s / deadline", 0.0, 2.0),
    Feature("deadline_left_s / deadline", -1.0, 1.0),
    Feature("last response / deadline", 0.0, 2.0),
)
"""The state of SAC-d (rate, CPU load, server load, deadline, last response) with the round trip; the bounds are
inferred: 1 kbit/s to 1 Gbit/s, 0.1 ms to 10 s, up to 99 requests at the edge, two deadlines as in the reward."""


class View:
    """Turns what a device measures into the network's input.

    Args:
        deadline_s: of the device's requests.
        features: names and bounds; the names are those of FEATURES.
    """

    def __init__(self, deadline_s: float, features: Sequence[Feature] = FEATURES) -> None:
        self._deadline_s = deadline_s
        self._low = np.array([feature.low for feature in features])
        self._scale = 1.0 / (np.array([feature.high for feature in features]) - self._low)

    def __call__(self, observation: Observation, last_response_s: float) -> Array:
        """float32 (features,), each in 0..1; `last_response_s` is 0 before the first answer."""
        link, load, deadline_s = observation.link, observation.edge_load, self._deadline_s
        queue, wait_s = (0, 0.0) if load is None else load
        raw = (
            math.log10(max(link.rate_bps, 1e-9)),
            math.log10(max(link.rtt_s, 1e-9)),
            observation.cpu_load,
            math.log10(1 + queue),
            wait_s / deadline_s,
            observation.deadline_left_s / deadline_s,
            last_response_s / deadline_s,
        )
        scaled = (np.array(raw) - self._low) * self._scale
        clipped: Array = np.minimum(np.maximum(scaled, 0.0), 1.0).astype(np.float32)
        return clipped


Layers = tuple[tuple[Array, Array], ...]
"""Weights (out, in) and biases (out,) of every layer, float32."""


@dataclass(frozen=True)
class Actor:
    """A policy network: fully connected layers with ReLU between them, one logit for every action.

    model, weights_sha256, exit_stages   the network that it was trained for
    made                                 how: command, scenario, steps, seed, reward
    """

    actions: tuple[Action, ...]
    layers: Layers
    model: str
    weights_sha256: str
    exit_stages: tuple[int, ...]
    features: tuple[Feature, ...] = FEATURES
    made: Mapping[str, Any] = field(default_factory=dict)

    def logits(self, observed: Array) -> Array:
        """float32 (actions,) of one observation (features,)."""
        return logits(self.layers, observed)

    def best(self, observed: Array, mask: Array) -> int:
        """The likeliest action that is not masked."""
        return likeliest(self.logits(observed), mask)

    def draw(self, observed: Array, mask: Array, rng: np.random.Generator) -> int:
        """An action drawn by its probability."""
        return drawn(self.logits(observed), mask, rng)

    def check(self, setting: Setting, source: Path) -> None:
        """Raises InputError where it was trained for another model or for codecs that are not on offer."""
        spec = setting.spec
        mine, theirs = (self.model, self.weights_sha256, self.exit_stages), _identity(spec)
        if mine != theirs:
            raise InputError(
                f"{source}: trained for {_named(*mine)}, not for {_named(*theirs)}; train it anew with "
                "`splitexit train-policy`"
            )
        missing = set(self.actions) - set(actions_of(setting))
        if missing:
            exit_, split, codec = min(missing, key=str)
            what = f"exit {exit_}" if split is None else f"exit {exit_} behind {codec}@{split}"
            raise InputError(
                f"{source}: may choose {what}, which is not on offer here (recorded and calibrated); record it, or "
                "train anew with `splitexit train-policy`"
            )

    def save(self, path: Path) -> None:
        """Writes a safetensors file; it is there whole or not at all."""
        from safetensors.numpy import save

        about = {
            "format": FORMAT,
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            "exit_stages": self.exit_stages,
            "actions": self.actions,
            "features": self.features,
            "made": dict(self.made),
        }
        tensors: dict[str, Array] = {}
        for n, (weight, bias) in enumerate(self.layers):
            tensors |= {f"layer{n}.weight": np.ascontiguousarray(weight), f"layer{n}.bias": np.ascontiguousarray(bias)}
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_bytes(save(tensors, metadata={"splitexit": json.dumps(about)}))
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Actor:
        """Reads what `save` wrote; raises ArtifactError where it is missing, or is something else."""
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            raise ArtifactError(f"{path}: no such weights; {TRAIN}")
        try:
            with safe_open(path, framework="numpy") as file:
                about = json.loads((file.metadata() or {})["splitexit"])
                tensors = {name: file.get_tensor(name) for name in list(file.keys())}
            actor = _actor(about, tensors)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            why = " ".join(str(error).split())[:120]
            raise ArtifactError(f"{path}: not the weights of a sac_d policy ({why}); {TRAIN}") from error
        return actor


def logits(layers: Layers, observed: Array) -> Array:
    """float32 (actions,) of one observation (features,): fully connected, ReLU between the layers."""
    for weight, bias in layers[:-1]:
        observed = np.maximum(weight @ observed + bias, 0.0)
    weight, bias = layers[-1]
    return np.asarray(weight @ observed + bias)


def likeliest(logits: Array, mask: Array) -> int:
    """The action of the largest logit that is not masked."""
    return int(np.where(mask, logits, -np.inf).argmax())


def drawn(logits: Array, mask: Array, rng: np.random.Generator) -> int:
    """An action by its probability; a masked one never."""
    edges = np.cumsum(probabilities(logits, mask))  # the last one need not be 1 exactly
    return int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))


def probabilities(logits: Array, mask: Array) -> Array:
    """Softmax over the actions that are not masked; that of a masked one is exactly 0."""
    there = np.where(mask, logits, -np.inf).astype(float)
    weights = np.exp(there - there.max())
    return np.asarray(weights / weights.sum())


def _identity(spec: ModelSpec) -> tuple[str, str, tuple[int, ...]]:
    return spec.name, spec.weights_sha256, spec.exit_stages


def _named(model: str, digest: str, exit_stages: tuple[int, ...]) -> str:
    weights = f", weights {digest[:12]}…" if digest else ""
    return f"{model} ({len(exit_stages)} exits{weights})"


def actor_for(setting: Setting, actions: Sequence[Action], layers: Layers, made: Mapping[str, Any]) -> Actor:
    """An actor for this setting's model with these layers."""
    return Actor(tuple(actions), layers, *_identity(setting.spec), made=made)


def _actor(about: Mapping[str, Any], tensors: Mapping[str, Array]) -> Actor:
    """Raises KeyError, TypeError or ValueError where anything does not fit together."""
    if about["format"] != FORMAT:
        raise ValueError(f"format {about['format']}, expected {FORMAT}")
    features = tuple(Feature(str(name), float(low), float(high)) for name, low, high in about["features"])
    names = [feature.name for feature in FEATURES]
    if [feature.name for feature in features] != names or any(f.low >= f.high for f in features):
        raise ValueError(f"features: expected {', '.join(names)}, with bounds")
    expected = {f"layer{n}.{part}" for n in range(len(tensors) // 2) for part in ("weight", "bias")}
    if set(tensors) != expected:
        raise ValueError(f"tensors: found {', '.join(sorted(tensors)) or 'none'}")
    actor = Actor(
        actions=tuple(_action(*triple) for triple in about["actions"]),
        layers=tuple((tensors[f"layer{n}.weight"], tensors[f"layer{n}.bias"]) for n in range(len(tensors) // 2)),
        model=str(about["model"]),
        weights_sha256=str(about["weights_sha256"]),
        exit_stages=tuple(int(stage) for stage in about["exit_stages"]),
        features=features,
        made=dict(about["made"]),
    )
    _check_layers(actor)
    return actor


def _action(exit_: Any, split: Any, codec: Any) -> Action:
    return Action(int(exit_)) if split is None else Action(int(exit_), int(split), str(codec))


def _check_layers(actor: Actor) -> None:
    width = len(actor.features)
    for weight, bias in actor.layers:
        if weight.dtype != np.float32 or bias.dtype != np.float32 or weight.shape != (len(bias), width):
            raise ValueError(f"a layer of shape {weight.shape}, expected one that takes {width} numbers")
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ValueError("weights that are not finite")
        width = len(bias)
    if not actor.layers or width != len(actor.actions) or not actor.actions:
        raise ValueError(f"{width} logits for {len(actor.actions)} actions")
