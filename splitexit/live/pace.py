"""How long a machine takes: as long as it takes, or as long as the machine that it stands for would.

Paced, a part is computed for real, and then the time that was drawn for it from the named machine's
calibration has to pass. The clock is virtual: every part begins where the one before it ended on that
clock, so a sleep that ends late delays nothing but itself, and a part that was slow may be made up for by the
next one before anybody sees it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

from splitexit.batching import Factor, together_s
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
    """One batch's time on the edge: as long as it takes.

    Args:
        start_s: when it begins, on time.monotonic().

    now_s   when the last part was over
    """

    def __init__(self, start_s: float) -> None:
        self.now_s = start_s

    def begin(self) -> None:
        """The first part begins now."""
        self.now_s = time.monotonic()

    def did(self, own_s: Callable[[], Sequence[float]]) -> float:
        """A part is done; returns the seconds that it took.

        Args:
            own_s: draws what it takes for every one of its samples alone.
        """
        before_s, self.now_s = self.now_s, time.monotonic()
        return self.now_s - before_s

    def settle(self) -> None:
        """The world is about to see what was done."""


class Counted(Pace):
    """Drawn times, added up; nobody waits.

    Args:
        factor: what a pass over several samples takes (Calibration.batch_factor).
    """

    def __init__(self, start_s: float, factor: Factor) -> None:
        super().__init__(start_s)
        self._factor = factor

    def begin(self) -> None:
        """Begins when it was to."""

    def did(self, own_s: Callable[[], Sequence[float]]) -> float:
        seconds = together_s(own_s(), self._factor)
        self.now_s += seconds
        return seconds


class Paced(Counted):
    """Drawn times, waited for; where the host was slower, what it took."""

    def did(self, own_s: Callable[[], Sequence[float]]) -> float:
        seconds = super().did(own_s)
        sleep_until(self.now_s)
        return seconds

    def settle(self) -> None:
        late_s = time.monotonic() - self.now_s
        if late_s > OVERRUN_S:
            self.now_s += late_s
