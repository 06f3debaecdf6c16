"""Messages between device and edge, as plain data and as bytes.

The only file that touches the generated code of protos/splitexit/live/edge.proto. Whatever bytes come in,
the functions here return a message or raise `Refused`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from splitexit.decision import ExitCheck
from splitexit.live import edge_pb2
from splitexit.steps import prior_bytes

PROTOCOL = (1, 4)
SERVICE: str = edge_pb2.DESCRIPTOR.services_by_name["Edge"].full_name
DESCRIBE, INFER = f"/{SERVICE}/Describe", f"/{SERVICE}/Infer"

FRAME_BYTES = 4096
"""Room in an InferRequest for everything but the payload and what is said of every class."""

CLASS_BYTES = 5
"""Room for what is said of a class: a float32, and its bit in a mask."""


class Status(Enum):
    """How the edge ends a call that it does not answer; the names are gRPC's."""

    INVALID_ARGUMENT = "not a request that can be understood"
    FAILED_PRECONDITION = "another protocol, bundle, split or codec"
    NOT_FOUND = "the payload refers to a tensor that is not here (any more)"
    RESOURCE_EXHAUSTED = "too large, or no room in the queue"
    DEADLINE_EXCEEDED = "nobody waits any more"


class Refused(Exception):
    """A call that is not answered: a status and one line."""

    def __init__(self, status: Status, why: str) -> None:
        self.status, self.why = status, why
        super().__init__(f"{status.name}: {why}")


@dataclass(frozen=True, slots=True)
class Split:
    """What may be sent at a split: C×H×W and codec ids."""

    split: int
    shape: tuple[int, ...]
    codecs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Description:
    """What an edge serves (see edge.proto); `machine` is empty from one that speaks 1.0."""

    protocol: tuple[int, int]
    bundle: str
    digests: Mapping[str, str]
    stages: int
    exits: int
    num_classes: int
    splits: tuple[Split, ...]
    max_request_bytes: int
    hardware: str
    machine: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Query:
    """One request to the edge (see edge.proto).

    left_s  how much longer the device waits
    timed   whether the reply is to say what every part took
    ruled_out, evidence   as in Reading, and the logits that the first of `exits` adds to (see Send.prior)
    """

    request: int
    device: int
    split: int
    codec: str
    payload: bytes
    exits: tuple[ExitCheck, ...]
    left_s: float
    bundle: int
    seed: int = 0
    protocol: tuple[int, int] = PROTOCOL
    timed: bool = False
    ruled_out: int = 0
    evidence: tuple[float, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Of what the request is about, without framing: as the simulator counts it."""
        return len(self.payload) + prior_bytes(self.ruled_out, len(self.evidence))


@dataclass(frozen=True, slots=True)
class Result:
    """The edge's answer: logits float32 of the exit that answered, and what it took.

    The logits are of the classes that are not ruled out, in their order.

    `parts_s`, where asked for: seconds of decoding, then of every stage and head in the order they ran.
    `confidence` as in Reading; nan takes no byte.
    """

    request: int
    exit: int
    prediction: int
    logits: np.ndarray[Any, Any]
    wait_s: float
    compute_s: float
    queue_length: int
    bundle: int
    parts_s: tuple[float, ...] = ()
    confidence: float = math.nan
    ruled_out: int = 0


def bundle_tag(digests: Mapping[str, str]) -> int:
    """A short name for the files that decide what a model answers; every call carries it."""
    lines = "\n".join(f"{name}:{digest}" for name, digest in sorted(digests.items()))
    return int.from_bytes(hashlib.sha256(lines.encode()).digest()[:8], "little")


def _version(protocol: tuple[int, int]) -> Any:
    return edge_pb2.Version(major=protocol[0], minor=protocol[1])


def check_protocol(theirs: tuple[int, int]) -> None:
    """What a server accepts: its own major, and no newer minor than its own."""
    if theirs[0] != PROTOCOL[0] or theirs[1] > PROTOCOL[1]:
        spoken, served = ".".join(map(str, theirs)), ".".join(map(str, PROTOCOL))
        raise Refused(Status.FAILED_PRECONDITION, f"protocol {spoken} where this edge speaks {served}")


def _parse(kind: Any, body: bytes) -> Any:
    try:
        return kind.FromString(body)
    except DecodeError:
        raise Refused(Status.INVALID_ARGUMENT, f"{len(body)} bytes that are no {kind.DESCRIPTOR.name}") from None


def pack_hello(protocol: tuple[int, int] = PROTOCOL) -> bytes:
    """A DescribeRequest."""
    packed: bytes = edge_pb2.DescribeRequest(protocol=_version(protocol)).SerializeToString()
    return packed


def parse_hello(body: bytes) -> tuple[int, int]:
    """The protocol of a DescribeRequest."""
    message = _parse(edge_pb2.DescribeRequest, body)
    return message.protocol.major, message.protocol.minor


def pack_description(description: Description) -> bytes:
    """A DescribeReply."""
    message = edge_pb2.DescribeReply(
        protocol=_version(description.protocol),
        bundle=description.bundle,
        digests=dict(description.digests),
        stages=description.stages,
        exits=description.exits,
        num_classes=description.num_classes,
        splits=[edge_pb2.Split(split=s.split, shape=s.shape, codecs=s.codecs) for s in description.splits],
        max_request_bytes=description.max_request_bytes,
        hardware=description.hardware,
        machine=dict(description.machine),
    )
    packed: bytes = message.SerializeToString()
    return packed


def parse_description(body: bytes) -> Description:
    """The content of a DescribeReply."""
    m = _parse(edge_pb2.DescribeReply, body)
    return Description(
        protocol=(m.protocol.major, m.protocol.minor),
        bundle=m.bundle,
        digests=dict(m.digests),
        stages=m.stages,
        exits=m.exits,
        num_classes=m.num_classes,
        splits=tuple(Split(s.split, tuple(s.shape), tuple(s.codecs)) for s in m.splits),
        max_request_bytes=m.max_request_bytes,
        hardware=m.hardware,
        machine=dict(m.machine),
    )


def pack_query(query: Query) -> bytes:
    """An InferRequest."""
    message = edge_pb2.InferRequest(
        protocol=_version(query.protocol),
        bundle=query.bundle,
        request=query.request,
        device=query.device,
        split=query.split,
        codec=query.codec,
        payload=query.payload,
        exits=[edge_pb2.ExitCheck(exit=c.exit, rule=c.rule, threshold=c.threshold) for c in query.exits],
        left_ms=1e3 * query.left_s,
        seed=query.seed,
        timed=query.timed,
        ruled_out=_pack_mask(query.ruled_out),
        evidence=np.array(query.evidence, dtype="<f4").tobytes(),
    )
    packed: bytes = message.SerializeToString()
    return packed


def parse_query(body: bytes) -> Query:
    """The content of an InferRequest; numbers that are none are refused."""
    m = _parse(edge_pb2.InferRequest, body)
    evidence = tuple(_floats("evidence", m.evidence).tolist())
    if not all(map(math.isfinite, [m.left_ms, *evidence, *(check.threshold for check in m.exits)])):
        raise Refused(Status.INVALID_ARGUMENT, "left_ms, thresholds and evidence must be finite numbers")
    return Query(
        request=m.request,
        device=m.device,
        split=m.split,
        codec=m.codec,
        payload=m.payload,
        exits=tuple(ExitCheck(check.exit, check.rule, check.threshold) for check in m.exits),
        left_s=m.left_ms / 1e3,
        bundle=m.bundle,
        seed=m.seed,
        protocol=(m.protocol.major, m.protocol.minor),
        timed=m.timed,
        ruled_out=int.from_bytes(m.ruled_out, "little"),
        evidence=evidence,
    )


def _floats(name: str, content: bytes) -> np.ndarray[Any, Any]:
    if len(content) % 4:
        raise Refused(Status.INVALID_ARGUMENT, f"{len(content)} bytes of {name} are not a number of float32")
    return np.frombuffer(content, dtype="<f4").astype(np.float32, copy=False)


def _pack_mask(ruled_out: int) -> bytes:
    return ruled_out.to_bytes((ruled_out.bit_length() + 7) // 8, "little")


def pack_result(result: Result) -> bytes:
    """An InferReply."""
    message = edge_pb2.InferReply(
        request=result.request,
        exit=result.exit,
        prediction=result.prediction,
        logits=np.ascontiguousarray(result.logits, dtype="<f4").tobytes(),
        wait_s=result.wait_s,
        compute_s=result.compute_s,
        queue_length=result.queue_length,
        bundle=result.bundle,
        parts_s=result.parts_s,
        confidence=None if math.isnan(result.confidence) else result.confidence,
        ruled_out=_pack_mask(result.ruled_out),
    )
    packed: bytes = message.SerializeToString()
    return packed


def parse_result(body: bytes) -> Result:
    """The content of an InferReply; refuses logits that are no finite float32, odd seconds and odd confidences."""
    m = _parse(edge_pb2.InferReply, body)
    logits = _floats("logits", m.logits)
    if not np.isfinite(logits).all():
        raise Refused(Status.INVALID_ARGUMENT, "logits must be finite numbers")
    parts_s = tuple(m.parts_s)
    if not all(math.isfinite(seconds) and seconds >= 0.0 for seconds in parts_s):
        raise Refused(Status.INVALID_ARGUMENT, "parts_s must be seconds")
    confidence = m.confidence if m.HasField("confidence") else math.nan
    if m.HasField("confidence") and not 0.0 <= confidence <= 1.0:
        raise Refused(Status.INVALID_ARGUMENT, "a confidence lies between 0 and 1")
    return Result(
        m.request,
        m.exit,
        m.prediction,
        logits,
        m.wait_s,
        m.compute_s,
        m.queue_length,
        m.bundle,
        parts_s,
        confidence,
        int.from_bytes(m.ruled_out, "little"),
    )
