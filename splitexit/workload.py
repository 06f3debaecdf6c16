"""One device's requests: which samples, and when."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from splitexit.arrivals import Intensity
from splitexit.inference import Request


@dataclass(frozen=True)
class Workload:
    """One device's requests: positions in the recording's test part, and arrival times.

    `arrival_s` is None for a closed loop: a request arrives `think_s` after the one before was answered, or when
    the device is back (`presence`; None if it is never away).
    """

    device: int
    positions: Sequence[int]
    samples: Sequence[int]
    labels: Sequence[int]
    arrival_s: Sequence[float] | None
    think_s: float
    deadline_s: float
    presence: Intensity | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def next_arrival_s(self, begun: int, loop_s: float | None) -> float | None:
        """When the next request arrives after `begun` of them: None when there is none.

        Args:
            loop_s: in a closed loop, when it may arrive; None while it cannot.
        """
        if begun >= len(self):
            return None
        if self.arrival_s is not None:
            return self.arrival_s[begun]
        if loop_s is None or self.presence is None:
            return loop_s
        back_s = self.presence.back_s(loop_s)
        return None if back_s == math.inf else back_s

    def waiting(self, begun: int, now_s: float) -> int:
        """Requests that have arrived by `now_s` when `begun` of them have begun; none in a closed loop."""
        if self.arrival_s is None:
            return 0
        return max(0, bisect_right(self.arrival_s, now_s) - begun)

    def request(self, number: int, arrival_s: float) -> Request:
        """The request with this running number."""
        due = arrival_s + self.deadline_s
        return Request(number, self.device, self.samples[number], self.labels[number], arrival_s, due)
