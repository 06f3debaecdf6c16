"""One sample through every part of a bundle, each timed; and whether what is drawn from the times adds up as it did."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from splitexit.calibration import Calibration, Distribution, Pair, ServiceTimes
from splitexit.codecs import Codec
from splitexit.copula import Dependence
from splitexit.models.runtime import Runtime

Array = np.ndarray[Any, Any]
T = TypeVar("T")
DRAWN = 20_000
"""Requests that are drawn to see how parts add up."""


class Clock:
    """Seconds of every part, by (kind, which)."""

    def __init__(self) -> None:
        self.seconds: defaultdict[tuple[str, Any], list[float]] = defaultdict(list)

    def time(self, kind: str, which: Any, work: Callable[..., T], *arguments: Any) -> T:
        """The result of `work(*arguments)`, whose time is kept."""
        start = perf_counter()
        result = work(*arguments)
        self.seconds[kind, which].append(perf_counter() - start)
        return result

    def distribution(self, kind: str, which: Any) -> Distribution:
        """The quantiles of one part."""
        return Distribution.measured(self.seconds[kind, which])

    def parts(self, *kinds: str) -> Array:
        """(parts, samples) seconds of all parts of these kinds."""
        return np.array([seconds for (kind, _), seconds in self.seconds.items() if kind in kinds])

    def chain_s(self) -> Array:
        """(samples,) seconds of all stages and heads together."""
        return np.asarray(self.parts("stage", "exit").sum(axis=0))


class Chain:
    """Takes samples through stages, heads and codecs."""

    def __init__(self, runtime: Runtime, codecs: Mapping[Pair, Codec]) -> None:
        self.runtime, self.codecs = runtime, codecs

    def run(self, image: Array, clock: Clock) -> None:
        """Stages, heads and encodings in the order of a request; decodings at the end, as on the edge."""
        runtime, spec = self.runtime, self.runtime.spec
        payloads = self._encode(0, image, clock)
        features = image
        for stage in range(spec.num_stages):
            features = clock.time("stage", stage, runtime.run_stages, features, stage, stage + 1)
            for exit_ in (e for e, at in enumerate(spec.exit_stages) if at == stage + 1):
                clock.time("exit", exit_, runtime.read_exit, features, exit_)
            payloads |= self._encode(stage + 1, features, clock)
        for pair, payload in payloads.items():
            clock.time("decode", pair, self.codecs[pair].decode, payload)

    def _encode(self, split: int, features: Array, clock: Clock) -> dict[Pair, bytes]:
        return {
            pair: clock.time("encode", pair, codec.encode, features)
            for pair, codec in self.codecs.items()
            if pair[0] == split
        }


def checked(calibration: Calibration, chain_s: Array) -> dict[str, dict[str, float]]:
    """Milliseconds of all stages and heads together: measured, and drawn with and without dependence.

    Args:
        chain_s: (samples,) seconds that were measured of the whole chain.
    """
    independent = replace(calibration, dependence=Dependence())
    return {
        "measured_ms": _statistics(chain_s),
        "dependent_ms": _statistics(_drawn(calibration)),
        "independent_ms": _statistics(_drawn(independent)),
    }


def _drawn(calibration: Calibration) -> list[float]:
    times = ServiceTimes(calibration, lambda block: np.random.default_rng([2024, block]))
    return [sum(drawn.stages) + sum(drawn.exits) for drawn in map(times.at, range(DRAWN))]


def _statistics(seconds: Sequence[float] | Array) -> dict[str, float]:
    values = 1e3 * np.asarray(seconds)
    quantiles = dict(zip(("p50", "p95", "p99"), np.quantile(values, (0.5, 0.95, 0.99)).tolist(), strict=True))
    return {name: float(f"{value:.5g}") for name, value in {"mean": float(values.mean()), **quantiles}.items()}
