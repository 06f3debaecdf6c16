"""How long a machine takes: as long as it takes, or as long as the machine that it stands for would.

Paced, a part is computed for real, and then the time that was drawn for it from the named machine's
calibration has to pass. The clock is virtual: every part begins where the one before it ended on that
clock, so a sleep that ends late delays nothing but itself, and a part that was slow may be made up for by the
next one before anybody sees it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from splitexit.calibration import Times
from splitexit.live.clock import Timeline, sleep_until

T = TypeVar("T")

OVERRUN_S = 1e-3
"""A host that is this far behind the machine it stands for has overrun."""


class Cpu(ABC):
    """The device's processor on a timeline.

    now_s   where it is
    """

    now_s: float

    def __init__(self, timeline: Timeline) -> None:
        self.timeline, self.now_s = timeline, 0.0

    @abstractmethod
    def begin(self, ready_s: float) -> None:
        """Takes up something that was ready at `ready_s`."""

    @abstractmethod
    def run(self, work: Callable[[], T], drawn_s: float) -> tuple[T, float]:
        """Does the work; `drawn_s` is what it takes the machine that this one stands for. (result, seconds)."""

    def reach(self) -> None:
        """Lets the world come to where the processor is: waits, and has everything called that is due until then."""
        while self.timeline.step(self.now_s):
            pass

    @abstractmethod
    def settle(self) -> bool:
        """`reach`, before the world sees what was run; True where the host was too slow for that."""


class NativeCpu(Cpu):
    """This machine, as fast as it is."""

    def begin(self, ready_s: float) -> None:
        self.now_s = self.timeline.now()

    def run(self, work: Callable[[], T], drawn_s: float) -> tuple[T, float]:
        start_s = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - start_s
        self.now_s = self.timeline.now()
        return result, seconds

    def reach(self) -> None:
        self.now_s = self.timeline.now()
        super().reach()

    def settle(self) -> bool:
        self.reach()
        return False


class PacedCpu(Cpu):
    """Stands for the machine that the times were drawn for."""

    def begin(self, ready_s: float) -> None:
        self.now_s = max(self.now_s, ready_s)

    def run(self, work: Callable[[], T], drawn_s: float) -> tuple[T, float]:
        result = work()
        self.now_s += drawn_s
        return result, drawn_s

    def settle(self) -> bool:
        late_s = self.timeline.now() - self.now_s
        if late_s > OVERRUN_S:
            self.now_s += late_s
        self.reach()
        return late_s > OVERRUN_S


class Pace:
    """One job's time on the edge: as long as it takes.

    Args:
        start_s: when the job began, on time.monotonic().

    parts_s   what every part took
    """

    def __init__(self, start_s: float) -> None:
        self._start_s = start_s
        self.parts_s: list[float] = []

    def did(self, seconds: Callable[[Times], float]) -> None:
        """A part is done; `seconds` picks what it takes from drawn times."""
        self.parts_s.append(self.elapsed_s - sum(self.parts_s))

    @property
    def elapsed_s(self) -> float:
        """Seconds since the job began."""
        return time.monotonic() - self._start_s


class Counted(Pace):
    """Drawn times, added up; nobody waits.

    Args:
        times: what every part of this job takes.
    """

    def __init__(self, start_s: float, times: Times) -> None:
        super().__init__(start_s)
        self._times, self._drawn_s = times, 0.0

    def did(self, seconds: Callable[[Times], float]) -> None:
        self.parts_s.append(seconds(self._times))
        self._drawn_s += self.parts_s[-1]

    @property
    def elapsed_s(self) -> float:
        return self._drawn_s


class Paced(Counted):
    """Drawn times, waited for; where the host was slower, what it took."""

    def did(self, seconds: Callable[[Times], float]) -> None:
        super().did(seconds)
        sleep_until(self._start_s + self._drawn_s)

    @property
    def elapsed_s(self) -> float:
        return max(self._drawn_s, time.monotonic() - self._start_s)
