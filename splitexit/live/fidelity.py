"""How well one direction of an emulated link keeps to its virtual clock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Fidelity:
    """Of one direction.

    late_s   seconds by which packets were handed on too late (the latest ones)
    ideal_s  seconds that the link was busy without a gap, by the virtual clock, in stretches of BUSY_S or more
    real_s   the same as it really was
    dropped  packets that found the buffer full
    """

    BUSY_S = 0.05

    late_s: deque[float] = field(default_factory=lambda: deque(maxlen=100_000))
    size_bytes: int = 0
    dropped: int = 0
    ideal_s: float = 0.0
    real_s: float = 0.0
    _first: tuple[float, float] = (0.0, 0.0)  # of this stretch: due at, late by
    _last: tuple[float, float] = (0.0, 0.0)
    _sent_s: float = -1.0

    def note(self, start_s: float, sent_s: float, due_s: float, size_bytes: int, late_s: float) -> None:
        """A packet was handed on that the link took from `start_s` to `sent_s`, `late_s` after it was due."""
        self.late_s.append(late_s)
        self.size_bytes += size_bytes
        if start_s > self._sent_s:
            self._end_stretch()
            self._first = (due_s, late_s)
        self._last = (due_s, late_s)
        self._sent_s = sent_s

    def _end_stretch(self) -> None:
        busy_s = self._last[0] - self._first[0]
        if busy_s >= self.BUSY_S:
            self.ideal_s += busy_s
            self.real_s += busy_s + self._last[1] - self._first[1]
        self._first = self._last

    def summary(self) -> dict[str, float]:
        """Bytes, drops, added delay in ms, and the error of the rate while the link was busy (NaN: it never was)."""
        self._end_stretch()
        late_ms = 1e3 * np.array(self.late_s or [0.0])
        p50, p99 = np.percentile(late_ms, (50, 99))
        rate_error = self.ideal_s / self.real_s - 1.0 if self.real_s else float("nan")
        return {
            "bytes": self.size_bytes,
            "dropped": self.dropped,
            "added_delay_ms_p50": float(p50),
            "added_delay_ms_p99": float(p99),
            "added_delay_ms_max": float(late_ms.max()),
            "rate_error_percent": 100.0 * rate_error,
        }
