"""Seconds of a layer from its type and size: Neurosurgeon's regressions (Kang et al., ASPLOS 2017).

Once for a machine, every type of layer gets a law from its configuration to seconds, so that no network need be
measured as a whole; a stage takes as long as its layers together. The features of a type:

    conv    elements of the input maps, (filter / stride)² · filters / groups    their product is what it multiplies
    linear  inputs, outputs
    pool    elements in, elements out
    other   elements out; batch norm, activations, additions and whatever else there is

and two forms of law: linear, seconds = a + b · x₁ + c · x₂ + d · x₁·x₂, by non-negative least squares on relative
errors (the product is inferred), and log, seconds = e^a · x₁^b · x₂^c. A type gets the one that is better on layers
that it was not fitted to. Layers in a row take longer than each alone, while it runs again and again: whole passes
through some networks say by what factor, and how much longer for every layer [inferred].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from splitexit.decision import LinkEstimate, Setting
from splitexit.errors import InputError

Array = np.ndarray[Any, Any]

KINDS = ("conv", "linear", "pool", "other")
FOLDS = 5
FEWEST = 5
"""Fewer layers of a type say nothing of how it grows: it gets their median."""


class Layer(NamedTuple):
    """A type of KINDS and its features, as the module has them."""

    kind: str
    features: tuple[float, ...]


class Pass(NamedTuple):
    """A pass through a network: its layers, their seconds alone together, and what it takes itself."""

    layers: int
    alone_s: float
    whole_s: float


@dataclass(frozen=True)
class Law:
    """What a type of layer takes.

    form          linear, log, or constant
    coefficients  in the order of the module's formulas
    mape          mean absolute relative error on layers that it was not fitted to; nan for a constant
    layers        how many it was fitted to
    """

    form: str
    coefficients: tuple[float, ...]
    mape: float
    layers: int

    def seconds(self, features: Array) -> Array:
        """Of n layers of its type: (n, k) features -> (n,)."""
        if self.form == "constant":
            return np.full(len(features), self.coefficients[0])
        found: Array = _columns(self.form, features) @ self.coefficients
        return np.exp(found) if self.form == "log" else found


@dataclass(frozen=True)
class Regression:
    """A law for every type of layer that was measured, and what layers take in a row: `factor` and `per_layer_s`."""

    laws: Mapping[str, Law]
    factor: float = 1.0
    per_layer_s: float = 0.0

    @classmethod
    def fit(cls, layers: Sequence[tuple[Layer, float]], passes: Sequence[Pass] = (), seed: int = 0) -> Regression:
        """From layers and their seconds, all positive, and passes; raises InputError where there is no layer."""
        if not layers:
            raise InputError("no layer was measured, so there is nothing to fit")
        laws = {}
        for kind in KINDS:
            of_kind = [(layer.features, seconds) for layer, seconds in layers if layer.kind == kind]
            if of_kind:
                features, seconds = (np.array(column, float) for column in zip(*of_kind, strict=True))
                laws[kind] = _law(features, seconds, np.random.default_rng(seed))
        return cls(laws, *_in_a_row(passes)) if passes else cls(laws)

    def seconds(self, layers: Sequence[Layer]) -> float:
        """All of these layers, one after another; raises InputError for a type that was not measured."""
        total = 0.0
        for kind, features in layers:
            if kind not in self.laws:
                raise InputError(f"layers of type {kind} were not measured (measured: {', '.join(self.laws)})")
            total += float(self.laws[kind].seconds(np.array([features], float))[0])
        return self.factor * total + self.per_layer_s * len(layers)


def _in_a_row(passes: Sequence[Pass]) -> tuple[float, float]:
    """Factor and seconds per layer, by non-negative least squares on relative errors."""
    numbers = np.array(passes)
    found = _nnls(numbers[:, [1, 0]], numbers[:, 2])
    return float(found[0]), float(found[1])


def _law(features: Array, seconds: Array, rng: np.random.Generator) -> Law:
    if len(seconds) < FEWEST:
        return Law("constant", (float(np.median(seconds)),), float("nan"), len(seconds))
    folds = rng.permutation(len(seconds)) % FOLDS
    errors = {form: _held_out(form, features, seconds, folds) for form in ("linear", "log")}
    form = min(errors, key=errors.__getitem__)
    return Law(form, tuple(_fit(form, features, seconds).tolist()), errors[form], len(seconds))


def _held_out(form: str, features: Array, seconds: Array, folds: Array) -> float:
    """Mean absolute relative error where every fold is predicted from the others."""
    errors = []
    for fold in range(FOLDS):
        law = Law(form, tuple(_fit(form, features[folds != fold], seconds[folds != fold])), 0.0, 0)
        errors += np.abs(law.seconds(features[folds == fold]) / seconds[folds == fold] - 1.0).tolist()
    return float(np.mean(errors))


def _fit(form: str, features: Array, seconds: Array) -> Array:
    columns = _columns(form, features)
    if form == "log":
        return np.asarray(np.linalg.lstsq(columns, np.log(seconds), rcond=None)[0])
    return _nnls(columns, seconds)


def _nnls(columns: Array, seconds: Array) -> Array:
    """x >= 0 with columns · x near the seconds, relative to them."""
    from scipy.optimize import nnls

    scale = np.maximum(columns.max(axis=0), 1e-300)  # elements and products of them differ by many powers of ten
    found, _ = nnls(columns / scale / seconds[:, None], np.ones(len(seconds)))
    return np.asarray(found / scale)


def _columns(form: str, features: Array) -> Array:
    ones = np.ones((len(features), 1))
    if form == "log":
        return np.hstack([ones, np.log(np.maximum(features, 1e-9))])
    return np.hstack([ones, features, *([features.prod(axis=1, keepdims=True)] if features.shape[1] > 1 else [])])


def argmin_regret(setting: Setting, believed: Setting, links: Sequence[LinkEstimate]) -> list[float]:
    """What choosing the split by other times costs, relative to the best one: (T(p̂) − T(p*)) / T(p*) for every link.

    Args:
        setting: the times that hold.
        believed: those that the split is chosen by; of the same model.
    """
    pairs: list[tuple[int, str] | None] = [None, *((s, c) for s, codecs in setting.codecs.items() for c in codecs)]

    def times(of: Setting, link: LinkEstimate) -> Array:
        return np.array([of.local_s() if pair is None else of.offload_s(*pair, link) for pair in pairs])

    regrets = []
    for link in links:
        true_s = times(setting, link)
        regrets.append(float(true_s[np.argmin(times(believed, link))] / true_s.min() - 1.0))
    return regrets
