"""Arrivals: when a device's requests come.

The interface, the members, then the table. One class and one line in the table add a process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import inf, prod
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le

from splitexit.registry import Registry

RateHz = Annotated[float, Gt(0), Le(1e6)]
"""Requests per second of one device."""


class Arrivals(ABC):
    """An open process, whose requests come whatever becomes of them; or a closed one.

    closed   a request comes `think_s` after the one before was answered
    """

    closed: ClassVar[bool] = False
    think_s: float = 0.0

    @abstractmethod
    def times_s(self, count: int, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The first `count` arrival times, float64, increasing, from 0 on; TypeError where `closed`."""


class Periodic(Arrivals):
    """A camera: one request every 1 / rate, the first at 0.

    Args:
        rate_hz: requests per second; 10 to 30 for cameras.
    """

    def __init__(self, *, rate_hz: RateHz) -> None:
        self.rate_hz = rate_hz

    def times_s(self, count: int, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float64]]:
        """k / rate; takes nothing from `rng`."""
        return np.arange(count) / self.rate_hz


class Poisson(Arrivals):
    """Independent requests: exponential gaps of mean 1 / rate, the first one before the first request.

    Args:
        rate_hz: mean requests per second.
    """

    def __init__(self, *, rate_hz: RateHz) -> None:
        self.rate_hz = rate_hz

    def times_s(self, count: int, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Sums of exponential gaps."""
        return np.cumsum(rng.exponential(1.0 / self.rate_hz, count))


class Closed(Arrivals):
    """One request at a time: the next one when the last was answered.

    Args:
        think_ms: pause between an answer and the next request; 0 measures what a device can do at most.
    """

    closed = True

    def __init__(self, *, think_ms: Annotated[float, Ge(0), Le(3_600_000)] = 0.0) -> None:
        self.think_ms = think_ms
        self.think_s = think_ms / 1000.0

    def times_s(self, count: int, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Raises TypeError: the times depend on the answers."""
        raise TypeError("closed arrivals have no times of their own")


class Intensity:
    """How dense arrivals are over time: a factor that windows change.

    With w(t) the product of the factors of the windows that hold at t, the arrival that would come at u comes when
    the integral of w reaches u; at the end of the absence, where it does so as a window with factor 0 begins.

    Args:
        windows: from and until when (seconds; inf for ever), and the factor; they may overlap.
    """

    def __init__(self, windows: Sequence[tuple[float, float, float]]) -> None:
        edges = {0.0} | {edge for start_s, end_s, _ in windows for edge in (start_s, end_s)}
        self._edges = np.array(sorted(edges - {inf}))
        self._factors = np.array([prod(f for a, b, f in windows if a <= edge < b) for edge in self._edges], float)
        self._passed = np.concatenate([[0.0], np.cumsum(np.diff(self._edges) * self._factors[:-1])])

    def warp(self, times_s: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """When arrivals come that would come at `times_s` (increasing); those that never come are left out."""
        part = np.searchsorted(self._passed, times_s, side="right") - 1
        comes = self._factors[part] > 0.0
        times_s, part = times_s[comes], part[comes]
        return np.asarray(self._edges[part] + (times_s - self._passed[part]) / self._factors[part])

    def back_s(self, time_s: float) -> float:
        """The earliest time from `time_s` on at which anything arrives; inf if there is none."""
        part = int(np.searchsorted(self._edges, time_s, side="right")) - 1
        if self._factors[part] > 0.0:
            return time_s
        later = np.nonzero(self._factors[part:])[0]
        return float(self._edges[part + later[0]]) if len(later) else inf


ARRIVALS: Registry[Arrivals] = Registry(
    "arrivals",
    {
        "periodic": "splitexit.arrivals:Periodic",
        "poisson": "splitexit.arrivals:Poisson",
        "closed": "splitexit.arrivals:Closed",
    },
)
