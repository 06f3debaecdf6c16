"""The steps that the life of a request asks for, and what a world answers them with (see splitexit.inference).

Named tuples: a simulation makes tens of thousands of them a second.
"""

from __future__ import annotations

from typing import NamedTuple

from splitexit.decision import EdgeLoad, ExitCheck, Reading
from splitexit.results import EDGE

NAN = float("nan")


class Observe(NamedTuple):
    """What can the device measure now?"""

    readings: tuple[Reading, ...]


class Reveal(NamedTuple):
    """What would really happen? (for an OmniscientPolicy)"""


class ReadExit(NamedTuple):
    """Run stages first+1..last (none where they are equal), then the head of this exit."""

    exit: int
    first: int
    last: int


class RunStages(NamedTuple):
    """Run stages first+1..last; only a server that passes features on is asked for no more than that."""

    first: int
    last: int


class Encode(NamedTuple):
    """Run stages first+1..split (none where they are equal), then turn the features into bytes."""

    split: int
    codec: str
    first: int


class Switch(NamedTuple):
    """Compute in this mode of the device from now on (see splitexit.decision.Plan.mode)."""

    mode: str


class Payload(NamedTuple):
    """What is sent.

    compute_s, encode_s  seconds that the stages before it and the encoding took
    at_s                 the clock after that
    content              the bytes themselves (live)
    """

    size_bytes: int
    compute_s: float
    encode_s: float
    at_s: float
    content: bytes = b""


class Send(NamedTuple):
    """Send the payload to the edge and wait at most `timeout_s` for the reply.

    prior  the device's last reading, where what follows goes on from it: classes that are ruled out, or logits that
           an exit on the edge adds to
    """

    split: int
    codec: str
    payload: Payload
    edge_exits: tuple[ExitCheck, ...]
    timeout_s: float
    prior: Reading | None = None


def prior_bytes(ruled_out: int, numbers: int) -> int:
    """Bytes that Send.prior takes in the message: a mask of classes, and so many numbers in float32."""
    sizes = ((ruled_out.bit_length() + 7) // 8, 4 * numbers)
    return sum(size + (2 if size < 128 else 3) for size in sizes if size)


class Reply(NamedTuple):
    """The answer from behind the link.

    reading              what the exit there said
    network_s            seconds in transit, both ways and between tiers
    wait_s, compute_s    seconds it waited and was worked on there, all tiers together
    load                 the edge's load
    answered_by          which tier
    airtime_s            seconds during which the upload held the radio, as far as the world knows
    """

    reading: Reading
    network_s: float
    wait_s: float
    compute_s: float
    load: EdgeLoad
    answered_by: str = EDGE
    airtime_s: float = NAN


class NoReply(NamedTuple):
    """No usable answer after `waited_s`.

    shed       the edge refused for want of room
    forgotten  the edge has not what the payload refers to: it has to be encoded again, whole
    """

    waited_s: float
    shed: bool = False
    airtime_s: float = NAN
    forgotten: bool = False


Step = Observe | Reveal | Switch | ReadExit | Encode | Send
