"""Requests for the event loop, stretch by stretch, the next one being made while the loop works on the one before."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from splitexit.calibration import ServiceTimes
from splitexit.experiment import Experiment
from splitexit.sim.compiled.choices import Choices
from splitexit.sim.compiled.layout import Array
from splitexit.sim.compiled.paths import Book
from splitexit.sim.compiled.requests import Arriving, Positions

LONGEST = 16_384
"""Requests of a device in memory at most; a multiple of ServiceTimes.BLOCK, small enough for the cache."""

MEMORY_BYTES = 128e6
"""What all requests in memory may take, where there is a choice."""

AHEAD_DEVICES = 64
"""Up to so many devices, the next stretch of each is made ahead."""


class Stretch(NamedTuple):
    """Consecutive requests of a device.

    arrival_s  None for closed arrivals
    journey    numbers of journeys
    seconds    what their steps take, (requests, columns); None where that is always the same
    """

    arrival_s: Array | None
    journey: Array
    seconds: Array | None


class Supply:
    """Makes stretches; every device's come in order, so that its random streams are drawn in order.

    length  of a stretch, but for the last one of a device
    """

    def __init__(
        self, experiment: Experiment, choices: Sequence[Choices], book: Book, seed: int, requests: int
    ) -> None:
        self._experiment, self._choices, self._book, self._seed, self._requests = (
            experiment,
            choices,
            book,
            seed,
            requests,
        )
        devices = range(experiment.total_devices)
        self.length = self._length()
        self._positions = [Positions(experiment.pool, seed, device) for device in devices]
        self._arriving = [self._arrivals(device) for device in devices]
        self._made = [0] * len(devices)
        self._ahead: dict[int, Future[Stretch]] = {}
        self._worker = ThreadPoolExecutor(1) if len(devices) <= AHEAD_DEVICES and requests > self.length else None

    def _length(self) -> int:
        width = max((times.width for times in self._book.times if times.constant is None), default=0)
        fits = int(MEMORY_BYTES / (self._experiment.total_devices * (16 + 8 * width)))
        block = ServiceTimes.BLOCK
        return max(1, min(fits, LONGEST, self._requests + block - 1) // block) * block

    def _arrivals(self, device: int) -> Arriving | None:
        experiment, group = self._experiment, self._experiment.group(device)
        arrivals = experiment.arrivals[group.number]
        if arrivals.closed:
            return None
        intensity = experiment.intensity(group, device - group.first)
        return Arriving(arrivals, intensity, self._seed, device, self._requests)

    def next(self, device: int) -> Stretch:
        """The device's next stretch; shorter than asked for, or empty, where events let no more requests come."""
        ahead = self._ahead.pop(device, None)
        stretch = self._make(device) if ahead is None else ahead.result()
        if self._worker is not None and self._made[device] < self._requests:
            self._ahead[device] = self._worker.submit(self._make, device)
        return stretch

    def close(self) -> None:
        """Ends the thread; what it has in hand is finished first."""
        if self._worker is not None:
            self._worker.shutdown(cancel_futures=True)

    def _make(self, device: int) -> Stretch:
        first, group = self._made[device], self._experiment.group(device)
        count = min(self.length, self._requests - first)
        self._made[device] += count
        arriving = self._arriving[device]
        arrival_s = None if arriving is None else arriving.take(count)
        positions = self._positions[device].take(count if arrival_s is None else len(arrival_s))
        journey = self._choices[group.number].numbers(device, first, positions)
        if before := self._book.first[group.number]:
            journey = journey + before
        times = self._book.times[group.number]
        varies = times.constant is None and len(positions)
        seconds = times.draw(self._seed, device, first, len(positions)) if varies else None
        return Stretch(arrival_s, journey, seconds)
