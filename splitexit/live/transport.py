"""How a device's queries get to an edge and what comes back."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

from splitexit.live.clock import Timeline
from splitexit.live.wire import Query, Result

if TYPE_CHECKING:
    from splitexit.live.client import EdgeClient


class Failure(Enum):
    """Why there is no result: the edge had no room, has not what the payload refers to, is late, or is lost."""

    SHED = auto()
    FORGOTTEN = auto()
    LATE = auto()
    LOST = auto()


Heard = Callable[[Result | Failure, float], None]
"""Called with what came of a query, and when that was known."""


class Transport(Protocol):
    """One device's way to its edge."""

    def send(self, query: Query, sent_s: float, heard: Heard) -> None:
        """The query leaves at `sent_s`; `heard` is called on the device's timeline, at most once."""


class GrpcTransport:
    """Brings what a client hears onto a device's timeline, stamped when it arrived.

    Args:
        client: connected to the edge.
        timeline: the device's.
    """

    def __init__(self, client: EdgeClient, timeline: Timeline) -> None:
        self._client, self._timeline = client, timeline

    def send(self, query: Query, sent_s: float, heard: Heard) -> None:
        """See `Transport`."""

        def done(result: Result | Failure) -> None:
            self._timeline.post(self._timeline.now(), lambda at_s: heard(result, at_s))

        self._client.call(query, sent_s + query.left_s - self._timeline.now(), done)
