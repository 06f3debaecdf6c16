"""How a request ended: its answer, the row that is written of it, and what the policy learns."""

from __future__ import annotations

from typing import NamedTuple

from splitexit.decision import Outcome, Plan, Reading
from splitexit.results import DEVICE, EDGE, LOCAL, Completion

_new = tuple.__new__


class Answer:
    """How a request ended; times in seconds, zero where a part did not happen.

    What most requests leave alone stays with the class.
    """

    answered_by: str = DEVICE
    reading: Reading | None = None
    device_compute_s: float = 0.0
    encode_s: float = 0.0
    network_s: float = 0.0
    airtime_s: float = 0.0
    edge_wait_s: float = 0.0
    edge_compute_s: float = 0.0
    split: int = LOCAL
    codec: str = ""
    payload_bytes: int = 0
    shed: bool = False
    lost_reply: bool = False
    mode: str = ""

    def __init__(self, plan: Plan, readings: list[Reading]) -> None:
        self.plan, self.readings = plan, readings


class Request(NamedTuple):
    """One request as it arrives at a device: running number, which sample, when, and when it is due."""

    number: int
    device: int
    sample: int
    label: int
    arrival_s: float
    deadline_at_s: float


def complete(request: Request, answer: Answer, start_s: float, done_s: float, overrun: bool = False) -> Completion:
    """The row of a request that has its answer."""
    assert answer.reading is not None
    return _new(
        Completion,
        (
            request.number,
            request.device,
            request.sample,
            request.label,
            request.arrival_s,
            start_s,
            answer.device_compute_s,
            answer.encode_s,
            answer.network_s,
            answer.airtime_s,
            answer.edge_wait_s,
            answer.edge_compute_s,
            done_s,
            answer.split,
            answer.codec,
            answer.reading.exit,
            answer.payload_bytes,
            float("nan"),
            answer.reading.prediction,
            answer.answered_by,
            done_s <= request.deadline_at_s,
            answer.shed,
            answer.lost_reply,
            overrun,
            answer.mode,
        ),
    )


def outcome(answer: Answer, response_s: float) -> Outcome:
    """What the policy learns of it."""
    return Outcome(
        plan=answer.plan,
        readings=tuple(answer.readings),
        response_s=response_s,
        answered_by=answer.answered_by,
        payload_bytes=answer.payload_bytes,
        transfer_s=answer.network_s,
        edge_wait_s=answer.edge_wait_s,
        edge_compute_s=answer.edge_compute_s,
        edge_reading=answer.reading if answer.answered_by == EDGE else None,
        device_s=answer.device_compute_s + answer.encode_s,
    )
