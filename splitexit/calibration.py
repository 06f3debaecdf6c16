"""What each part of a model costs in seconds, measured on a named machine.

A `Calibration` is measured by `splitexit calibrate`, or derived from a measured one for a machine
that nobody here can touch (`splitexit.hardware`). `ServiceTimes` draws from it, the same draws for
every policy and for simulated and live runs of the same seed.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from splitexit.bundle import ModelSpec, read_json
from splitexit.copula import Dependence, Uniforms
from splitexit.distribution import Distribution as Distribution
from splitexit.errors import ArtifactError, InputError
from splitexit.results import DEVICE, EDGE

Pair = tuple[int, str]
"""A (split, codec id)."""


@dataclass(frozen=True)
class Rpc:
    """What one call costs beyond the payload and the model.

    uplink_overhead_bytes    framing around a payload: HTTP/2, gRPC and protobuf
    downlink_bytes           a whole reply
    seconds                  serialising, system calls and thread changes of one call, both sides together
    """

    uplink_overhead_bytes: int
    downlink_bytes: int
    seconds: Distribution


@dataclass(frozen=True)
class Calibration:
    """Seconds of every part of one model on one machine.

    stages[k] is stage k (0-based) on one sample, exits[e] the head e, encode and decode the codec at a
    split. batch[n] is the time of n samples in one pass through the network, relative to that of one
    sample; by default n samples take n times as long, so that batching gains nothing. corun[n] is the time
    of a pass while n other processes of this machine compute too, relative to that of a process alone; by
    default they do not touch each other. live[side], of a `device` and an `edge`, is what the parts take in the
    process of a live one, between everything else that it does, relative to here; 1 where nobody measured it.
    `machine` describes where and how it was measured. regressed[part], of `stages` and `exits`, is for every one of
    them what regressions per type of layer say of it, relative to what was measured; empty where nobody asked.
    """

    machine: Mapping[str, Any]
    stages: tuple[Distribution, ...]
    exits: tuple[Distribution, ...]
    encode: Mapping[Pair, Distribution]
    decode: Mapping[Pair, Distribution]
    rpc: Rpc
    weights_sha256: str = ""
    made: Mapping[str, Any] = field(default_factory=dict)
    batch: Mapping[int, float] = field(default_factory=lambda: {1: 1.0})
    corun: Mapping[int, float] = field(default_factory=lambda: {0: 1.0})
    dependence: Dependence = field(default_factory=Dependence)
    live: Mapping[str, float] = field(default_factory=dict)
    regressed: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def batch_factor(self, samples: int) -> float:
        """Time of `samples` >= 1 in one pass relative to that of one: linear between the measured sizes.

        Beyond the largest size it is proportional to `samples` from there.
        """
        largest, factor = self._batch_curve.last
        return factor * samples / largest if samples > largest else self._batch_curve.at(samples)

    def corun_factor(self, others: float) -> float:
        """Time of a pass while `others` >= 0 other processes compute, relative to alone: linear between the measured.

        Who knows only for which share of the time every other process is busy weighs the factors of all numbers with
        their probabilities (splitexit.corun).
        Beyond the largest number measured all cores are taken, and every further process takes a part of each
        core: the factor grows as others + 1. Always 1 where nothing was measured.
        """
        most, factor = self._corun_curve.last
        if others <= most:
            return self._corun_curve.at(others)
        return factor * (others + 1.0) / (most + 1.0) if most else factor

    def slowed(self, factor: float) -> Calibration:
        """Stages, heads and codecs of this machine `factor` times as slow; a call and the rest as they are."""
        return replace(
            self,
            stages=tuple(time.scaled(factor) for time in self.stages),
            exits=tuple(time.scaled(factor) for time in self.exits),
            encode={pair: time.scaled(factor) for pair, time in self.encode.items()},
            decode={pair: time.scaled(factor) for pair, time in self.decode.items()},
        )

    def by_regression(self) -> Calibration:
        """Stages and heads with the times that regressions per type of layer say (splitexit.regression).

        Derived machines keep how far those are off [inferred]. Raises InputError where there are none.
        """
        if not self.regressed:
            raise InputError("no regressed times: `splitexit calibrate BUNDLE --layers FILE` adds them")
        pairs = [(getattr(self, part), self.regressed[part]) for part in ("stages", "exits")]
        stages, exits = (tuple(t.scaled(f) for t, f in zip(times, of, strict=True)) for times, of in pairs)
        return replace(self, stages=stages, exits=exits)

    def on(self, side: str) -> Calibration:
        """This machine as a live DEVICE or EDGE."""
        return self.slowed(self.live[side]) if side in self.live else self

    @cached_property
    def _batch_curve(self) -> _Curve:
        return _Curve.of(self.batch)

    @cached_property
    def _corun_curve(self) -> _Curve:
        return _Curve.of(self.corun)

    def uniforms(self, rng: np.random.Generator) -> Uniforms:
        """The numbers that a block of requests is drawn with: a column for every stage, head, the codecs and a call.

        The call's depends on no other: it was measured by itself.
        """
        return Uniforms(self.dependence, len(self.stages) + len(self.exits) + 2, 1, rng)

    @cached_property
    def fixed_times(self) -> Times | None:
        """What every request takes, where nothing varies; None where anything does."""
        stages, exits = ([d.quantiles[0] for d in part] for part in (self.stages, self.exits))
        everything = [*self.stages, *self.exits, *self.encode.values(), *self.decode.values(), self.rpc.seconds]
        varies = any(d.quantiles[0] != d.quantiles[-1] for d in everything)
        return None if varies else Times(self, stages, exits, 0.0, self.rpc.seconds.quantiles[0])

    def save(self, path: Path) -> None:
        """Writes calibration.json."""
        content = {
            "format": 1,
            "machine": dict(self.machine),
            "made": dict(self.made),
            "weights_sha256": self.weights_sha256,
            "stages_s": [_round(d) for d in self.stages],
            "exits_s": [_round(d) for d in self.exits],
            "encode_s": _pairs_to_json(self.encode),
            "decode_s": _pairs_to_json(self.decode),
            "rpc": {
                "uplink_overhead_bytes": self.rpc.uplink_overhead_bytes,
                "downlink_bytes": self.rpc.downlink_bytes,
                "seconds": _round(self.rpc.seconds),
            },
            "batch": {str(n): factor for n, factor in self.batch.items()},
            "corun": {str(n): factor for n, factor in self.corun.items()},
            "dependence": {"within": self.dependence.within, "lag1": self.dependence.lag1},
            "live": dict(self.live),
        }
        if self.regressed:
            content["regressed"] = {part: list(factors) for part, factors in self.regressed.items()}
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path, spec: ModelSpec | None = None) -> Calibration:
        """Reads calibration.json and checks it against `spec`; raises ArtifactError."""
        content = read_json(path)
        try:
            rpc = content["rpc"]
            calibration = cls(
                machine=dict(content["machine"]),
                made=dict(content.get("made", {})),
                weights_sha256=str(content.get("weights_sha256", "")),
                stages=tuple(map(_distribution, content["stages_s"])),
                exits=tuple(map(_distribution, content["exits_s"])),
                encode=_pairs_from_json(content["encode_s"]),
                decode=_pairs_from_json(content["decode_s"]),
                rpc=Rpc(
                    int(rpc["uplink_overhead_bytes"]),
                    int(rpc["downlink_bytes"]),
                    _distribution(rpc["seconds"]),
                ),
                batch=_factors("batch", content.get("batch", {"1": 1.0}), first=1),
                corun=_factors("corun", content.get("corun", {"0": 1.0}), first=0),
                dependence=_dependence(content.get("dependence", {})),
                live=_sides(content.get("live", {})),
                regressed=_regressed(content),
            )
        except KeyError as error:
            raise ArtifactError(f"{path}: the key {error} is missing; `splitexit calibrate` writes it") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(f"{path}: not a calibration: {error}; run `splitexit calibrate`") from error
        if spec is not None:
            calibration.check(spec, str(path))
        return calibration

    def check(self, spec: ModelSpec, origin: str) -> None:
        """Raises ArtifactError where the calibration is of another model."""
        if (len(self.stages), len(self.exits)) != (spec.num_stages, len(spec.exits)):
            raise ArtifactError(
                f"{origin}: measured {len(self.stages)} stages and {len(self.exits)} exits, the model has "
                f"{spec.num_stages} and {len(spec.exits)}; run `splitexit calibrate`"
            )
        if self.weights_sha256 and spec.weights_sha256 and self.weights_sha256 != spec.weights_sha256:
            raise ArtifactError(f"{origin}: measured on other weights than model.json's; run `splitexit calibrate`")


def _round(distribution: Distribution) -> list[float]:
    return [float(f"{q:.6g}") for q in distribution.quantiles]


def _distribution(values: Any) -> Distribution:
    quantiles = tuple(float(v) for v in values)
    ordered = all(a <= b for a, b in pairwise(quantiles))
    if len(quantiles) < 2 or not ordered or quantiles[0] < 0 or not all(map(math.isfinite, quantiles)):
        raise ValueError(f"seconds must be at least two ascending quantiles, found {list(values)[:4]}…")
    return Distribution(quantiles)


def _factors(key: str, values: Any, first: int) -> dict[int, float]:
    factors = {int(n): float(factor) for n, factor in values.items()}
    rises = all(a < b and factors[a] <= factors[b] for a, b in pairwise(factors))
    if next(iter(factors.items()), None) != (first, 1.0) or not rises or not all(map(math.isfinite, factors.values())):
        raise ValueError(
            f"{key} must be ascending numbers from {first} with factors that never fall from 1.0: {values}"
        )
    return factors


def _dependence(values: Any) -> Dependence:
    if unknown := values.keys() - {"within", "lag1"}:
        raise ValueError(f"dependence has within and lag1, found {min(unknown)!r}")
    return Dependence(**{key: float(value) for key, value in values.items()})


def _sides(values: Any) -> dict[str, float]:
    sides = {side: float(factor) for side, factor in values.items()}
    if not sides.keys() <= {DEVICE, EDGE} or not all(0.0 < f < math.inf for f in sides.values()):
        raise ValueError(f"live has positive factors of device and edge, found {values}")
    return sides


def _regressed(content: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    found = {part: tuple(map(float, factors)) for part, factors in content.get("regressed", {}).items()}
    expected = {part: len(content[f"{part}_s"]) for part in ("stages", "exits")} if found else {}
    positive = all(0.0 < factor < math.inf for factors in found.values() for factor in factors)
    if {part: len(factors) for part, factors in found.items()} != expected or not positive:
        raise ValueError(f"regressed has a positive factor for each of the stages and exits, found {found}")
    return found


def _pairs_to_json(times: Mapping[Pair, Distribution]) -> list[dict[str, Any]]:
    return [{"split": s, "codec": c, "seconds": _round(d)} for (s, c), d in sorted(times.items())]


def _pairs_from_json(entries: Any) -> dict[Pair, Distribution]:
    return {(int(e["split"]), str(e["codec"])): _distribution(e["seconds"]) for e in entries}


class _Curve(NamedTuple):
    """Factors measured at ascending numbers."""

    numbers: tuple[int, ...]
    factors: tuple[float, ...]

    @classmethod
    def of(cls, measured: Mapping[int, float]) -> _Curve:
        return cls(tuple(measured), tuple(measured.values()))

    @property
    def last(self) -> tuple[int, float]:
        return self.numbers[-1], self.factors[-1]

    def at(self, number: float) -> float:
        """Linear between two measured numbers, of which the larger one is not passed."""
        above = bisect_right(self.numbers, number)
        if above == len(self.numbers):
            return self.factors[-1]
        (low, high), (a, b) = self.numbers[above - 1 : above + 1], self.factors[above - 1 : above + 1]
        return a + (b - a) * (number - low) / (high - low)


class Times(NamedTuple):
    """The seconds that one request would need for every part, on one side."""

    calibration: Calibration
    stages: Sequence[float]
    exits: Sequence[float]
    codec_u: float
    rpc_s: float

    def run_s(self, first: int, last: int) -> float:
        """Seconds for stages first+1..last, added one after the other (sum() compensates for rounding from 3.12 on)."""
        seconds = 0.0
        for stage_s in self.stages[first:last]:
            seconds += stage_s
        return seconds

    def encode_s(self, pair: Pair) -> float:
        """Seconds to encode at this (split, codec)."""
        return self.calibration.encode[pair].at(self.codec_u)

    def decode_s(self, pair: Pair) -> float:
        """Seconds to decode at this (split, codec)."""
        return self.calibration.decode[pair].at(self.codec_u)


class ServiceTimes:
    """Draws the `Times` of request 0, 1, 2, … from a calibration.

    Every part of request i is drawn whether it runs or not, from a stream of its own block, so that
    policies and worlds that see the same seed meet the same times (common random numbers).

    Args:
        calibration: where to draw from.
        stream: block number -> a fresh generator for the times of `BLOCK` requests.
        modes: by name, calibrations of the machine's other modes; their times are drawn from the same stream.

    modes   by name, what the same requests take in the machine's other modes
    """

    BLOCK, FIRST = 512, 8

    def __init__(
        self,
        calibration: Calibration,
        stream: Callable[[int], np.random.Generator],
        modes: Mapping[str, Calibration] | None = None,
    ) -> None:
        self._calibration, self._stream = calibration, stream
        self.modes = {name: ServiceTimes(mode, stream) for name, mode in (modes or {}).items()}
        self._always = calibration.fixed_times
        self._block, self._first, self._rows = -1, 0, list[Times]()

    def at(self, request: int) -> Times:
        """The times of one request; cheapest when requests come in order."""
        if self._always is not None:
            return self._always
        row = request - self._first
        if not 0 <= row < len(self._rows):
            row = self._reach(request)
        return self._rows[row]

    def _reach(self, request: int) -> int:
        """Draws as far as the request; returns its row in its block."""
        block, row = divmod(request, self.BLOCK)
        if block != self._block:
            self._block, self._uniforms, self._rows = block, self._calibration.uniforms(self._stream(block)), []
            self._first = block * self.BLOCK
        while row >= len(self._rows):
            self._rows += self._draw(self._next_rows(len(self._rows)))
        return row

    def _next_rows(self, drawn: int) -> int:
        """How many more of the block; of the first, few at a time, because many devices make few requests."""
        left = self.BLOCK - drawn
        return left if self._block else min(left, max(drawn, self.FIRST))

    def _draw(self, count: int) -> list[Times]:
        calibration = self._calibration
        parts = (*calibration.stages, *calibration.exits)
        cut = len(calibration.stages)
        u = self._uniforms.take(count)
        seconds = np.stack([part.many(u[:, k]) for k, part in enumerate(parts)], axis=1)
        rpc_s = calibration.rpc.seconds.many(u[:, -1])
        columns = (seconds[:, :cut], seconds[:, cut:], u[:, -2], rpc_s)
        return list(map(Times._make, zip(repeat(calibration), *(c.tolist() for c in columns), strict=False)))
