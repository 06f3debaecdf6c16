"""TCP as it shows from outside: a connection that loses nothing, but has to wait for its congestion window.

On a fresh connection ten segments may leave, then twice as many per round trip; an upload of 64 KiB over a link of
20 ms needs two round trips more than on a connection that has just carried another. Every rule is that of an RFC or of
Linux's cubic and is named where it stands; none of the numbers was fitted. Not modelled: the handshake, losses and what
follows from them, buffers of sockets and receive windows (a live network is set up so that they never limit, see
splitexit.live.netns and splitexit.live.tuning), the rate of the way back.

Checked against Linux by benchmarks/upload.py, which prints how far off it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
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

SMOOTHING = 1 / 8
"""Weight of a new round trip in SRTT (RFC 6298, section 2.3)."""

DELAYED = 2
"""A receiver acknowledges every second segment (RFC 5681, section 4.2); Linux does so once it has answered (its
"ping-pong" mode), and before that acknowledges whatever has been read (tcp_cleanup_rbuf)."""

AVOIDANCE = 20
"""Acknowledged segments for which the window grows by one after slow start, while nothing was ever lost (Linux's
tcp_cubic.c, bictcp_update: `cnt` is at most 20 then, 5 % per round trip)."""

ROUNDING_S = 1e-9
"""An answer brings the acknowledgement along; rounding must not have the one arrive without the other."""

Serve = Callable[[float, float], float]
"""(start_s, bytes) -> when the last of them has been sent."""


def wire_bytes(size_bytes: float) -> float:
    """A message with the headers of its segments."""
    return size_bytes + HEADER_BYTES * ceil(size_bytes / SEGMENT_BYTES)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Segments that went one after the other.

    acked_s    when the first acknowledgement for them comes; the others follow as fast as the link has served
    segment_s  how long the link takes for one
    per_ack    segments that each acknowledgement is for
    first_s, last_s  round trips of the first and of the last, with their waiting for the link
    """

    acked_s: float
    count: int
    segment_s: float
    per_ack: int
    first_s: float
    last_s: float

    def smoothed_s(self, srtt_s: float) -> float:
        """SRTT after an exponential average over all its acknowledgements, whose round trips change evenly."""
        acks, kept = ceil(self.count / self.per_ack), 1.0 - SMOOTHING
        faded, step_s = kept**acks, (self.last_s - self.first_s) / acks
        lag_acks = kept * (1.0 - acks * faded / kept + (acks - 1) * faded) / SMOOTHING
        return srtt_s * faded + self.last_s * (1.0 - faded) - step_s * lag_acks


class _HyStart:
    """Where slow start ends without a loss (Ha and Rhee, Computer Networks 55(9), 2011; Linux's tcp_cubic.c).

    As soon as acknowledgements that follow each other within 2 ms have come for more than half the least round trip
    (and 1 ms, half of which is for segmentation offload), or the round trips of a round are all longer than the least
    by an eighth of it, but 4 to 16 ms: then the path is full. Not below 16 segments, and not before the ninth
    acknowledgement of a round for the second.
    """

    SPACING_S, OFFLOAD_S, SHORT_S, LONG_S, LEAST_SEGMENTS, SAMPLES = 0.002, 0.001, 0.004, 0.016, 16, 9

    __slots__ = ("_end", "_least_s", "_start_s", "_train_s")

    def __init__(self) -> None:
        self._end, self._start_s, self._train_s, self._least_s = 0, 0.0, -inf, inf

    def end(self, batch: _Batch, acked: int, sent: int, window: int) -> int | None:
        """After how many segments of a batch slow start ends; None: it does not.

        Args:
            batch: is being acknowledged.
            acked, sent: segments so far, without the batch and with it.
            window: before it.
        """
        opens = acked >= self._end
        if opens:
            self._end, self._start_s, self._train_s = sent, batch.acked_s, batch.acked_s
        self._least_s = min(self._least_s, batch.first_s)
        found = [self._by_train(batch), self._by_delay(batch) if opens else inf]
        count = max(min(found), self.LEAST_SEGMENTS - window)
        return int(count) if count <= batch.count else None

    def _by_train(self, batch: _Batch) -> float:
        if batch.acked_s - self._train_s > self.SPACING_S or batch.per_ack * batch.segment_s > self.SPACING_S:
            self._train_s = -inf  # until the next round
            return inf
        self._train_s = batch.acked_s + (batch.count - 1) * batch.segment_s
        over_s = self._start_s + (self._least_s + self.OFFLOAD_S) / 2.0
        if self._train_s <= over_s:
            return inf
        return max(1, ceil((over_s - batch.acked_s) / batch.segment_s) + 1)

    def _by_delay(self, batch: _Batch) -> float:
        more_s = min(max(self._least_s / 8.0, self.SHORT_S), self.LONG_S)
        return batch.per_ack * self.SAMPLES if batch.first_s > self._least_s + more_s else inf

    def fork(self) -> _HyStart:
        """Goes on from the present state on its own."""
        twin = _HyStart()
        for name in self.__slots__:
            setattr(twin, name, getattr(self, name))
        return twin


class Connection:
    """The sender's side of a connection that is open.

    Slow start (RFC 5681, section 3.1): the window grows by a segment for each that is acknowledged, as long as it is
    used: to twice what was in flight at most, as in Linux (tcp_is_cwnd_limited; RFC 7661 has the reason). HyStart ends
    it, cubic then adds 5 % per round trip. After an idle time of k RTO the window is halved k times, down to the
    initial one, and slow start goes up to three quarters of what it was at least (RFC 2861, as in Linux's
    tcp_cwnd_restart; RFC 5681, section 4.1, would restart at once).

    Args:
        rtt_s: from a segment's last bit sent to its acknowledgement.

    sent_s     when the last byte was sent; arrived_s  when the last one arrived (kept by the discipline)
    """

    __slots__ = (
        "_acked",
        "_credit",
        "_flight",
        "_hystart",
        "_limited",
        "_peak",
        "_per_ack",
        "_released_s",
        "_rtt_s",
        "_sent",
        "_srtt_s",
        "_threshold",
        "_usage_until",
        "_window",
        "arrived_s",
        "sent_s",
    )

    def __init__(self, rtt_s: float) -> None:
        self._rtt_s, self._srtt_s = rtt_s, 0.0
        self._window, self._threshold, self._credit = INITIAL_SEGMENTS, inf, 0
        self._flight: deque[_Batch] = deque()
        self._hystart: _HyStart | None = _HyStart()  # None: slow start has ended once
        self._sent = self._acked = 0
        self._per_ack = 1
        self._limited, self._peak, self._usage_until = False, 0, 0
        self.sent_s = self.arrived_s = self._released_s = 0.0

    def send(self, start_s: float, size_bytes: float, serve: Serve) -> float:
        """When the last byte of a message has been sent that is handed over at `start_s`.

        Args:
            start_s: never smaller than before; the message waits for those before it.
            size_bytes: without headers.
            serve: the link, asked for one window after the other in the order of time.
        """
        at_s, opened_s, pace_s = max(start_s, self.sent_s), start_s, 0.0
        self._hear(start_s)
        self._restart(start_s)
        left, left_bytes, held = ceil(size_bytes / SEGMENT_BYTES), wire_bytes(size_bytes), False
        while left and at_s < inf:
            count = min(left, self._window - (self._sent - self._acked))
            held = held or count < left
            if count <= 0:
                opened_s, pace_s = self._flight[0].acked_s, self._flight[0].segment_s
                at_s, before = max(at_s, opened_s), self._acked
                self._hear(at_s)
                # The window does not open at once, but while the acknowledgements come.
                pace_s *= (self._acked - before) / max(1, self._window - (self._sent - self._acked))
                continue
            part_bytes = min(left_bytes, count * (SEGMENT_BYTES + HEADER_BYTES))
            at_s = self._serve(opened_s, pace_s, at_s, count, serve(at_s, part_bytes))
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

    def _serve(self, opened_s: float, pace_s: float, at_s: float, count: int, end_s: float) -> float:
        """Notes a batch that the link serves from `at_s` to `end_s`.

        The window opened for it from `opened_s` on, for a segment every `pace_s`.
        """
        segment_s, per_ack = (end_s - at_s) / count, min(count, self._per_ack)
        self._released_s = min(opened_s + pace_s * count, end_s)
        first_s, last_s = (s + self._rtt_s for s in (at_s + segment_s - opened_s, end_s - self._released_s))
        acked_s = at_s + per_ack * segment_s + self._rtt_s
        self._flight.append(_Batch(acked_s, count, segment_s, per_ack, first_s, last_s))
        self._sent += count
        return end_s

    def _use(self, limited: bool) -> None:
        """Notes how much of the window is used (tcp_cwnd_validate of Linux)."""
        in_flight = self._sent - self._acked
        if limited or self._acked >= self._usage_until or (not self._limited and in_flight > self._peak):
            self._limited, self._peak, self._usage_until = limited, in_flight, self._sent

    def _hear(self, now_s: float) -> None:
        """Takes in the acknowledgements that are there by then."""
        while self._flight and self._flight[0].acked_s <= now_s + ROUNDING_S:
            batch = self._flight.popleft()
            if self._hystart is not None and self._window < self._threshold:
                ends = self._hystart.end(batch, self._acked, self._sent, self._window)
                if ends is not None:
                    self._hystart, self._threshold = None, min(self._window + ends, self._most())
            self._grow(batch.count)
            self._acked += batch.count
            self._srtt_s = batch.smoothed_s(self._srtt_s or batch.first_s)

    def _most(self) -> float:
        """Up to where slow start goes while the window is not used up."""
        return inf if self._limited else max(2 * self._peak, self._window)

    def _grow(self, acked: int) -> None:
        slow = int(min(acked, max(0, min(self._threshold, self._most()) - self._window)))
        self._window += slow
        if self._limited and self._window >= self._threshold:
            self._credit += acked - slow
            self._window += self._credit // AVOIDANCE
            self._credit %= AVOIDANCE

    def _restart(self, now_s: float) -> None:
        if self._flight or not self._acked:
            return
        self._per_ack = DELAYED  # the receiver has answered
        idle_s, rto_s = now_s - self._released_s, max(self._srtt_s, self._rtt_s) + LEAST_VARIANCE_S
        if idle_s > rto_s:
            self._threshold = max(self._threshold, self._window * 3 // 4)
            halvings = min(idle_s / rto_s, self._window.bit_length())
            self._window = max(INITIAL_SEGMENTS, self._window >> int(halvings))

    def fork(self) -> Connection:
        """Goes on from the present state on its own."""
        twin = Connection(self._rtt_s)
        for name in self.__slots__:
            setattr(twin, name, getattr(self, name))
        twin._flight = self._flight.copy()
        twin._hystart = self._hystart and self._hystart.fork()
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
