"""A device's memory of what it measured: the part of an Observation that outlives a request.

The simulated and the live device keep the same object, so equal events give equal observations.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from splitexit.decision import EdgeLoad, LinkEstimate, Observation, Reading
from splitexit.estimate import LinkEstimator


class Sense:
    """Link estimate, edge load, requests in flight and recent computing of one device.

    Args:
        prior: what the device believes of its link at the start.
        reads: the observation fields that its policy declared.
    """

    CPU_WINDOW_S = 1.0

    def __init__(self, prior: LinkEstimate, reads: frozenset[str]) -> None:
        self._estimator, self._reads = LinkEstimator(prior), reads
        self._edge_load: EdgeLoad | None = None
        self._in_flight: dict[int, float] = {}
        self._busy: deque[tuple[float, float]] = deque()
        # What the policy never looks at need not be kept up to date.
        self._track_cpu, self._track_link = "cpu_load" in reads, "link" in reads

    def sent(self, request: int, now_s: float) -> None:
        """A request has left for the edge."""
        self._in_flight[request] = now_s

    def replied(self, request: int, size_bytes: int, network_s: float, load: EdgeLoad) -> None:
        """Its reply has come: `size_bytes` went up with framing, `network_s` in transit both ways."""
        self._in_flight.pop(request, None)
        if self._track_link:
            self._estimator.observe(size_bytes, network_s)
        self._edge_load = load

    def given_up(self, request: int) -> None:
        """No reply is awaited any more."""
        self._in_flight.pop(request, None)

    def computed(self, start_s: float, end_s: float) -> None:
        """The device computed from start to end."""
        if self._track_cpu:
            self._busy.append((start_s, end_s))

    def observe(
        self,
        now_s: float,
        readings: tuple[Reading, ...],
        queue_length: int,
        deadline_at_s: float,
        context: str | None = None,
    ) -> Observation:
        """The observation at `now_s`, holding only what the policy declared."""
        if not self._reads:
            return _NOTHING
        fields: dict[str, Any] = {}
        for name in self._reads:
            match name:
                case "now_s":
                    fields[name] = now_s
                case "readings":
                    fields[name] = readings
                case "queue_length":
                    fields[name] = queue_length
                case "deadline_left_s":
                    fields[name] = deadline_at_s - now_s
                case "context":
                    fields[name] = context
                case _:
                    fields[name] = self._remembered(name, now_s)
        return Observation(**fields)

    def _remembered(self, name: str, now_s: float) -> Any:
        match name:
            case "link":
                return self._estimator.estimate
            case "edge_load":
                return self._edge_load
            case "in_flight":
                return len(self._in_flight)
            case "oldest_in_flight_s":
                return now_s - min(self._in_flight.values(), default=now_s)
            case "cpu_load":
                return self._cpu_load(now_s)
        raise ValueError(f"unknown observation field {name!r}")

    def _cpu_load(self, now_s: float) -> float:
        since = now_s - self.CPU_WINDOW_S
        while self._busy and self._busy[0][1] <= since:
            self._busy.popleft()
        return sum(min(end, now_s) - max(start, since) for start, end in self._busy) / self.CPU_WINDOW_S


_NOTHING = Observation()
