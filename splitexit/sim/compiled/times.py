"""How long the steps of requests take: columns of seconds, from the streams that the SimPy engine draws from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from splitexit.calibration import Calibration, Distribution, ServiceTimes
from splitexit.sim.compiled.layout import Array
from splitexit.steps import Encode, ReadExit, RunStages

Stream = Callable[[int], np.random.Generator]
"""Number of a block -> its generator."""


class Parts:
    """Seconds of every part for n requests, one vector per part.

    Args:
        calibration: of the machine.
        u: (n, stages + exits + 2) uniform numbers, as ServiceTimes draws them.
    """

    def __init__(self, calibration: Calibration, u: Array) -> None:
        self.calibration, self._u = calibration, u
        self._known: dict[int, Array] = {}

    def stage(self, number: int) -> Array:
        """Of one stage, from 0."""
        return self._part(number, self.calibration.stages[number])

    def exit(self, number: int) -> Array:
        """Of one head."""
        return self._part(len(self.calibration.stages) + number, self.calibration.exits[number])

    def _part(self, column: int, distribution: Distribution) -> Array:
        if column not in self._known:
            self._known[column] = distribution.many(self._u[:, column])
        return self._known[column]

    def run(self, first: int, last: int) -> Array:
        """Of stages first+1..last."""
        return sum((self.stage(stage) for stage in range(first, last)), np.zeros(len(self._u)))

    def codec(self, distribution: Distribution) -> Array:
        """Of encoding or decoding: `Distribution.at` for all requests."""
        q = np.asarray(distribution.quantiles)
        position = self._u[:, -2] * (len(q) - 1)
        low = np.minimum(position.astype(np.int64), len(q) - 2)
        return np.asarray(q[low] + (q[low + 1] - q[low]) * (position - low))

    @cached_property
    def rpc(self) -> Array:
        """What a call costs."""
        return self.calibration.rpc.seconds.many(self._u[:, -1])


Step = tuple[object, ...]
"""On the device a step of `infer`; on the edge ("decode", split, codec), ("stage", k), ("exit", e) or ("rpc",)."""


def on_device(parts: Parts, step: Step) -> Array:
    """Seconds of a step on the device."""
    match step:
        case ReadExit(exit_, first, last):
            return parts.exit(exit_) + parts.run(first, last) if last > first else parts.exit(exit_)
        case RunStages(first, last):
            return parts.run(first, last)
        case Encode(split, codec, _):
            return parts.codec(parts.calibration.encode[split, codec])
    raise AssertionError(f"no seconds for {step}")


def on_edge(parts: Parts, step: Step) -> Array:
    """Seconds of a step on the edge."""
    match step:
        case ("stage", int(stage)):
            return parts.stage(stage)
        case ("exit", int(exit_)):
            return parts.exit(exit_)
        case ("decode", int(split), str(codec)):
            return parts.codec(parts.calibration.decode[split, codec])
        case ("rpc",):
            return parts.rpc
    raise AssertionError(f"no seconds for {step}")


class Columns:
    """Some steps on one machine, a column each.

    Args:
        calibration: of the machine.
        steps: what the columns stand for.
        of: `on_device` or `on_edge`.

    constant   (columns,) where the times do not vary, so that nothing need be drawn; else None
    """

    def __init__(self, calibration: Calibration, steps: Sequence[Step], of: Callable[[Parts, Step], Array]) -> None:
        self._calibration, self.steps, self._of = calibration, steps, of
        width = len(calibration.stages) + len(calibration.exits) + 2
        lowest, highest = (self._of_uniform(np.full((1, width), u))[0] for u in (0.0, 1.0))
        self.constant = lowest if (lowest == highest).all() else None

    def _of_uniform(self, u: Array) -> Array:
        parts, seconds = Parts(self._calibration, u), np.empty((len(u), len(self.steps)))
        for column, step in enumerate(self.steps):
            seconds[:, column] = self._of(parts, step)
        return seconds

    def draw(self, stream: Stream, first: int, count: int) -> Array:
        """(count, columns) for requests first, first + 1, …; `first` is a multiple of the block length."""
        if self.constant is not None:
            return np.broadcast_to(self.constant, (count, len(self.steps)))
        length = ServiceTimes.BLOCK
        blocks = range(first // length, -(-(first + count) // length))
        u = np.concatenate([self._calibration.uniforms(stream(block)).take(length) for block in blocks])
        return self._of_uniform(u[:count])
