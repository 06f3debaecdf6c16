"""Who may work next: a few at once, the others in a bounded queue."""

from __future__ import annotations

import threading
from collections import deque

from splitexit.live.wire import Refused, Status


class Gate:
    """Lets `workers` in at once, in the order of arrival, while at most `queue` wait."""

    def __init__(self, workers: int, queue: int) -> None:
        self.workers, self.queue = workers, queue
        self._lock, self._inside = threading.Lock(), 0
        self._waiting: deque[threading.Event] = deque()

    @property
    def present(self) -> int:
        """How many are inside or wait."""
        return self._inside + len(self._waiting)

    def enter(self, patience_s: float) -> bool:
        """True once it is one's turn, to be followed by `leave`; False if that took longer than `patience_s`.

        Raises Refused where there is no room to wait.
        """
        with self._lock:
            if self._inside < self.workers:
                self._inside += 1
                return True
            if len(self._waiting) >= self.queue:
                raise Refused(Status.RESOURCE_EXHAUSTED, f"shed: {self.queue} requests are waiting already")
            turn = threading.Event()
            self._waiting.append(turn)
        if turn.wait(patience_s):
            return True
        with self._lock:
            if turn.is_set():  # at the last moment
                return True
            self._waiting.remove(turn)
            return False

    def leave(self) -> None:
        """Makes room for the next."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._inside -= 1
