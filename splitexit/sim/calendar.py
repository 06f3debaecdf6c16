"""SimPy's calendar, used through callbacks.

A process per request costs five times as much as a callback per event, for the same times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import simpy

Function = Callable[[Any], None]


class _Call:
    """The least that SimPy takes for an event: what to call, and no failure."""

    __slots__ = ("_argument", "_function", "callbacks")
    _ok = True

    def __init__(self, function: Function, argument: Any) -> None:
        self._function, self._argument = function, argument
        self.callbacks: Any = (self,)

    def __call__(self, _: Any) -> None:
        self._function(self._argument)


class Calendar:
    """Calls functions at given times."""

    def __init__(self) -> None:
        self._env = simpy.Environment()

    @property
    def now(self) -> float:
        """Seconds since the run began."""
        return float(self._env.now)

    def at(self, time_s: float, function: Function, argument: Any) -> None:
        """Calls function(argument) at `time_s`, or now if that has passed."""
        delay_s = time_s - self._env.now
        call: Any = _Call(function, argument)
        self._env.schedule(call, delay=delay_s if delay_s > 0.0 else 0.0)

    def run(self) -> None:
        """Works through the calendar until it is empty."""
        self._env.run()
