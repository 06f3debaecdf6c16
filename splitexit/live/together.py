"""Several devices and an edge on one virtual clock, in one process.

A device's code waits by blocking (`Timeline.step`), so each of several has a thread. They take turns: only that one
runs for which something happens next, so that a run is the same every time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from splitexit.live.clock import VirtualTimeline


class Together:
    """Timelines that advance together.

    Args:
        devices: how many.

    world    the timeline of what belongs to no device: at equal times its functions come first
    devices  a timeline each
    """

    def __init__(self, devices: int) -> None:
        self.world = VirtualTimeline()
        self.devices: Sequence[_Seat] = [_Seat(self) for _ in range(devices)]

    def run(self, devices: Sequence[Callable[[], None]]) -> None:
        """Calls a function for every device, each of which steps its own timeline; raises what one of them raised."""
        if len(devices) == 1:
            devices[0]()
            return
        errors: list[BaseException] = []
        threads = [
            threading.Thread(target=seat.live, args=(device, errors), daemon=True)
            for seat, device in zip(self.devices, devices, strict=True)
        ]
        for thread in threads:
            thread.start()
        self.devices[0].turn.release()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def first(self) -> _Seat:
        """The device whose turn it is, of equals the first, after all that the world does until then."""
        while True:
            seat = min(self.devices, key=lambda seat: seat.next_s)
            if not self.world.step(seat.next_s):
                return seat


class _Seat(VirtualTimeline):
    """One device's timeline; `turn` lets its thread go on."""

    def __init__(self, together: Together) -> None:
        super().__init__()
        self._together, self._until_s, self._over = together, 0.0, False
        self.turn = threading.Semaphore(0)

    @property
    def next_s(self) -> float:
        """When it goes on."""
        return float("inf") if self._over else min(self._until_s, self._next_s())

    def step(self, until_s: float) -> bool:
        self._until_s = until_s
        first = self._together.first()
        if first is not self:
            first.turn.release()
            self.turn.acquire()
        return super().step(until_s)

    def live(self, device: Callable[[], None], errors: list[BaseException]) -> None:
        """The life of its thread."""
        from splitexit.models.runtime import one_thread

        self.turn.acquire()
        try:
            with one_thread():
                device()
        except BaseException as error:
            errors.append(error)
        self._over = True
        if not all(seat._over for seat in self._together.devices):
            self._together.first().turn.release()
