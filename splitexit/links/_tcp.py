"""TCP as it shows from outside: a connection that loses nothing, but has to wait for its congestion window.

On a fresh connection ten segments may leave, then twice as many per round trip; an upload of 64 KiB over a link of
20 ms needs two round trips more than on a connection that has just carried another. Not modelled: the handshake,
losses and what follows from them, receive windows, delayed acknowledgements, the rate of the way back.

Against Linux 6.18 (cubic) over an emulated link at 10 and 100 Mbit/s, 5 to 50 ms each way, for 8 to 256 KiB on fresh,
warm and idle connections, the time to the last byte is right within 0.6 % (median of 84 cases) and 3.4 % (nine in
ten), and at worst 16 % too small: benchmarks/tcp.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from math import ceil, inf
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from splitexit.links import Link

Transport = Literal["none", "tcp"]

SEGMENT_BYTES = 1448
"""What a packet of 1500 bytes carries beside the headers of IPv4 (20 bytes) and TCP with timestamps (RFC 7323: 32)."""

HEADER_BYTES = 52

INITIAL_SEGMENTS = 10
"""Of the window of a fresh connection (RFC 6928)."""

LEAST_VARIANCE_S = 0.2
"""RTO = SRTT + 4 RTTVAR (RFC 6298, section 2.3), the second part at least 200 ms in Linux (TCP_RTO_MIN)."""

Serve = Callable[[float, float], float]
"""(start_s, bytes) -> when the last of them has been sent."""


def wire_bytes(size_bytes: float) -> float:
    """A message with the headers of its segments."""
    return size_bytes + HEADER_BYTES * ceil(size_bytes / SEGMENT_BYTES)


class Connection:
    """The sender's side of a connection that is open.

    Slow start (RFC 5681, section 3.1): the window grows by a segment for each that is acknowledged, as long as it is
    used: to twice what was in flight at most, as in Linux (tcp_is_cwnd_limited; RFC 7661 has the reason). It ends at
    twice the bandwidth-delay product: the path and a buffer as large are full (Villamizar and Song, Computer
    Communication Review 24(5), 1994), which is also where Linux was seen to stop. After an idle time of k RTO the
    window is halved k times, down to the initial one (RFC 2861, as in Linux; RFC 5681, section 4.1, would restart
    at once).

    Args:
        rtt_s: from a segment's last bit sent to its acknowledgement.

    sent_s     when the last byte was sent; arrived_s  when the last one arrived (kept by the discipline)
    """

    __slots__ = (
        "_acked",
        "_flight",
        "_limited",
        "_most",
        "_peak",
        "_rtt_s",
        "_sent",
        "_usage_until",
        "_window",
        "arrived_s",
        "sent_s",
    )

    def __init__(self, rtt_s: float) -> None:
        self._rtt_s, self._window = rtt_s, INITIAL_SEGMENTS
        self._flight: deque[tuple[float, int]] = deque()  # when acknowledged, segments
        self._sent = self._acked = 0
        self._limited, self._peak, self._usage_until = False, 0, 0
        self._most = inf
        self.sent_s = self.arrived_s = 0.0

    def send(self, start_s: float, size_bytes: float, serve: Serve) -> float:
        """When the last byte of a message has been sent that is handed over at `start_s`.

        Args:
            start_s: never smaller than before; the message waits for those before it.
            size_bytes: without headers.
            serve: the link, asked for one window after the other in the order of time.
        """
        at_s = max(start_s, self.sent_s)
        self._hear(at_s)
        self._restart(at_s)
        left, left_bytes, held = ceil(size_bytes / SEGMENT_BYTES), wire_bytes(size_bytes), False
        while left and at_s < inf:
            count = min(left, self._window - (self._sent - self._acked))
            held = held or count < left
            if count <= 0:
                at_s = max(at_s, self._flight[0][0])
                self._hear(at_s)
                continue
            part_bytes = min(left_bytes, count * (SEGMENT_BYTES + HEADER_BYTES))
            at_s = self._serve(at_s, count, serve(at_s, part_bytes))
            self._use(held)
            left, left_bytes = left - count, left_bytes - part_bytes
            self.sent_s = at_s
        return at_s

    def follow(self, start_s: float, served_s: float, size_bytes: float) -> float:
        """The same where the link is shared, and has served the message from `start_s` to `served_s`.

        The link was held for the bytes alone; what the connection waits for acknowledgements comes on top, as if its
        bytes had been served at an even pace.
        """
        byte_s = (served_s - start_s) / max(1.0, wire_bytes(size_bytes))
        return self.send(start_s, size_bytes, lambda at_s, part_bytes: at_s + part_bytes * byte_s)

    def _serve(self, at_s: float, count: int, end_s: float) -> float:
        # The first segment's acknowledgement opens the window, and the others follow as fast as the link serves.
        segment_s = (end_s - at_s) / count
        self._flight.append((at_s + segment_s + self._rtt_s, count))
        self._sent += count
        self._most = 2.0 * self._rtt_s / segment_s + 2.0 if segment_s > 0.0 else inf
        return end_s

    def _use(self, limited: bool) -> None:
        """Notes how much of the window is used (tcp_cwnd_validate of Linux)."""
        in_flight = self._sent - self._acked
        if limited or self._acked >= self._usage_until or (not self._limited and in_flight > self._peak):
            self._limited, self._peak, self._usage_until = limited, in_flight, self._sent

    def _hear(self, now_s: float) -> None:
        """Takes in the acknowledgements that are there by then."""
        while self._flight and self._flight[0][0] <= now_s:
            count = self._flight.popleft()[1]
            self._acked += count
            most = self._most if self._limited else min(self._most, 2 * self._peak)
            self._window = max(self._window, int(min(self._window + count, most)))

    def _restart(self, now_s: float) -> None:
        idle_s, rto_s = now_s - self.sent_s, self._rtt_s + LEAST_VARIANCE_S
        if idle_s > rto_s and not self._flight:
            halvings = min(idle_s / rto_s, self._window.bit_length())
            self._window = max(INITIAL_SEGMENTS, self._window >> int(halvings))

    def fork(self) -> Connection:
        """Goes on from the present state on its own."""
        twin = Connection(self._rtt_s)
        for name in self.__slots__:
            setattr(twin, name, getattr(self, name))
        twin._flight = self._flight.copy()
        return twin


class Connections(dict[Hashable, Connection]):
    """The TCP connections over a link by who sends; each is open, and fresh until it is used."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def __missing__(self, sender: Hashable) -> Connection:
        connection = self[sender] = Connection(self._link.rtt_s)
        return connection

    def deliver(self, sender: Hashable, start_s: float, served_s: float, size_bytes: float) -> tuple[float, float]:
        """When a message was sent and arrives that a shared link has served; nothing of one sender overtakes."""
        return self.arrive(sender, start_s, self[sender].follow(start_s, served_s, size_bytes))

    def arrive(self, sender: Hashable, start_s: float, sent_s: float) -> tuple[float, float]:
        """When a message was sent and arrives."""
        connection = self[sender]
        connection.arrived_s = max(connection.arrived_s, self._link.arrive_s(start_s, sent_s))
        return sent_s, connection.arrived_s

    def fork(self, link: Link) -> Connections:
        """Connections that go on from the present state, on their own."""
        twin = Connections(link)
        twin.update((sender, connection.fork()) for sender, connection in self.items())
        return twin
