"""Messages come back as they went; whatever else comes in is refused, never a crash."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from splitexit.decision import ExitCheck
from splitexit.live import edge_pb2, wire
from splitexit.live.wire import Description, Query, Refused, Result, Split, Status

QUERY = Query(7, 2, 1, "uint8", b"\x00payload", (ExitCheck(1, "entropy", 0.25), ExitCheck(2)), 0.5, 2**63 + 1, seed=9)
OLD_QUERY = bytes.fromhex(
    "0a020801110100000000000080180720022801320575696e74383a08007061796c6f6164421408011207656e74726f70791900000000"
    "0000d03f420c080212086d61785f70726f624d0000fa435009"
)
OLD_RESULT = bytes.fromhex(
    "080710021803220c0000003f0000a0bf180d8f4d29fca9f1d24d62503f31fca9f1d24d62603f3804410100000000000080"
)
TIMED = replace(QUERY, timed=True)
NARROWED = replace(QUERY, ruled_out=(1 << 9) + 5, evidence=(0.5, -1.25, 3.0))
RESULT = Result(7, 2, 3, np.array([0.5, -1.25, 3e8], dtype=np.float32), 0.001, 0.002, 4, 2**63 + 1)
DESCRIPTION = Description(
    wire.PROTOCOL,
    "tiny",
    {"model.safetensors": "ab"},
    3,
    3,
    10,
    (Split(0, (3, 16, 16), ("jpeg",)),),
    12345,
    "host",
    {"cpu": "a CPU", "cores": "2", "os": "Linux"},
)


@pytest.mark.parametrize("query", [QUERY, TIMED, NARROWED])
def test_a_query_comes_back(query: Query) -> None:
    assert wire.parse_query(wire.pack_query(query)) == query


def test_a_description_comes_back() -> None:
    assert wire.parse_description(wire.pack_description(DESCRIPTION)) == DESCRIPTION


def test_a_result_comes_back_bit_for_bit() -> None:
    got = wire.parse_result(wire.pack_result(RESULT))
    assert got.logits.dtype == np.float32
    assert got.logits.tobytes() == RESULT.logits.tobytes()
    names = ("request", "exit", "prediction", "wait_s", "compute_s", "queue_length", "bundle")
    assert [getattr(got, n) for n in names] == [getattr(RESULT, n) for n in names]


def test_what_earlier_exits_found_takes_the_bytes_that_the_simulator_counts() -> None:
    """A mask, and logits; neither takes any where there is nothing to say."""
    for ruled_out, numbers in [(0, 0), (0, 10), (5, 0), (1 << 99, 100)]:
        query = replace(QUERY, ruled_out=ruled_out, evidence=(0.25,) * numbers)
        counted = query.size_bytes - QUERY.size_bytes
        assert len(wire.pack_query(query)) - len(wire.pack_query(QUERY)) == counted
        assert (counted > 0) == (ruled_out > 0 or numbers > 0)


def test_a_result_leaves_out_what_is_ruled_out() -> None:
    few = replace(RESULT, ruled_out=0b1011)
    assert wire.parse_result(wire.pack_result(few)).ruled_out == 0b1011


@pytest.mark.parametrize("evidence", [b"123", np.array([1.0, np.nan], "<f4").tobytes()])
def test_evidence_that_is_none_is_refused(evidence: bytes) -> None:
    message = edge_pb2.InferRequest.FromString(wire.pack_query(QUERY))
    message.evidence = evidence
    with pytest.raises(Refused) as caught:
        wire.parse_query(message.SerializeToString())
    assert caught.value.status is Status.INVALID_ARGUMENT


@pytest.mark.parametrize("confidence", [0.0, 1.0, float(np.float32(0.7))])
def test_a_learned_confidence_comes_back(confidence: float) -> None:
    """Where the head learned none, it takes no byte."""
    sure = replace(RESULT, confidence=confidence)
    assert wire.parse_result(wire.pack_result(sure)).confidence == confidence
    assert math.isnan(wire.parse_result(wire.pack_result(RESULT)).confidence)
    assert len(wire.pack_result(sure)) == len(wire.pack_result(RESULT)) + 1 + 4


@pytest.mark.parametrize("confidence", [-0.1, 1.1, math.nan, math.inf])
def test_a_confidence_lies_between_0_and_1(confidence: float) -> None:
    body = edge_pb2.InferReply(confidence=confidence).SerializeToString()
    with pytest.raises(Refused, match="confidence"):
        wire.parse_result(body)


def test_the_seconds_of_parts_come_back() -> None:
    """Where nobody asked, they take no byte."""
    timed = replace(RESULT, parts_s=(0.25, 0.5, 1e-6))
    assert wire.parse_result(wire.pack_result(timed)).parts_s == timed.parts_s
    assert wire.parse_result(wire.pack_result(RESULT)).parts_s == ()
    assert len(wire.pack_result(timed)) == len(wire.pack_result(RESULT)) + 2 + 3 * 8


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_parts_take_seconds(seconds: float) -> None:
    with pytest.raises(Refused, match="parts_s"):
        wire.parse_result(edge_pb2.InferReply(parts_s=[seconds]).SerializeToString())


def test_what_protocol_1_0_says_is_understood() -> None:
    """Its messages have neither `timed` nor `parts_s` nor `machine`; every other byte is the same."""
    old = replace(QUERY, protocol=(1, 0))
    assert wire.parse_query(OLD_QUERY) == old
    assert wire.pack_query(old) == OLD_QUERY
    assert wire.pack_result(RESULT) == OLD_RESULT
    wire.check_protocol(old.protocol)


def test_hello_comes_back() -> None:
    assert wire.parse_hello(wire.pack_hello((3, 4))) == (3, 4)


def test_features_travel_as_bytes() -> None:
    """A repeated float would cost 30 to 90 times as much."""
    kinds = {f.name: f.type for f in edge_pb2.InferRequest.DESCRIPTOR.fields}
    assert kinds["payload"] == edge_pb2.InferRequest.DESCRIPTOR.fields_by_name["payload"].TYPE_BYTES
    for message in edge_pb2.DESCRIPTOR.message_types_by_name.values():
        assert not [f.name for f in message.fields if f.type == f.TYPE_FLOAT and f.is_repeated]


@pytest.mark.parametrize("left_s", [math.nan, math.inf, -math.inf])
def test_a_deadline_is_a_number(left_s: float) -> None:
    message = edge_pb2.InferRequest(left_ms=left_s)
    with pytest.raises(Refused, match="finite"):
        wire.parse_query(message.SerializeToString())


def test_a_threshold_is_a_number() -> None:
    message = edge_pb2.InferRequest(exits=[edge_pb2.ExitCheck(threshold=math.nan)])
    with pytest.raises(Refused, match="finite"):
        wire.parse_query(message.SerializeToString())


@pytest.mark.parametrize("logits", [b"123", np.array([math.nan], dtype="<f4").tobytes()])
def test_logits_are_whole_finite_numbers(logits: bytes) -> None:
    with pytest.raises(Refused):
        wire.parse_result(edge_pb2.InferReply(logits=logits).SerializeToString())


@pytest.mark.parametrize("parse", [wire.parse_query, wire.parse_hello, wire.parse_result, wire.parse_description])
def test_garbage_is_refused_in_one_line(parse: object) -> None:
    with pytest.raises(Refused, match="bytes that are no") as caught:
        parse(b"\xff\xff\xff")  # type: ignore[operator]
    assert caught.value.status is Status.INVALID_ARGUMENT
    assert "\n" not in caught.value.why


def test_a_hundred_thousand_broken_messages_in_process() -> None:
    """Any flipped, cut or added byte gives a message or `Refused`, nothing else."""
    rng = np.random.default_rng(0)
    whole = wire.pack_query(QUERY)
    parsed = 0
    for _ in range(100_000):
        body = bytearray(whole)
        for place in rng.integers(0, len(body), rng.integers(1, 4)):
            body[place] = int(rng.integers(256))
        del body[int(rng.integers(len(body) // 2, len(body) + 1)) :]
        try:
            wire.parse_query(bytes(body))
            parsed += 1
        except Refused as refused:
            assert refused.status is Status.INVALID_ARGUMENT
    assert parsed > 1000  # otherwise all died in the parser, and little was tested


@pytest.mark.parametrize(
    ("theirs", "served"),
    [((1, 0), True), ((1, 3), True), ((1, 5), False), ((0, 9), False), ((2, 0), False), ((0, 0), False)],
)
def test_protocols_that_are_served(theirs: tuple[int, int], served: bool) -> None:
    """The same major, and no newer minor than the edge's own."""
    assert wire.PROTOCOL == (1, 4)
    if served:
        wire.check_protocol(theirs)
        return
    with pytest.raises(Refused, match="protocol") as caught:
        wire.check_protocol(theirs)
    assert caught.value.status is Status.FAILED_PRECONDITION


def test_the_tag_names_every_file() -> None:
    one = wire.bundle_tag({"model.safetensors": "a", "codecs.safetensors": "b"})
    assert one == wire.bundle_tag({"codecs.safetensors": "b", "model.safetensors": "a"})
    assert one != wire.bundle_tag({"model.safetensors": "a"})
    assert one != wire.bundle_tag({"model.safetensors": "b", "codecs.safetensors": "a"})
    assert 0 <= one < 2**64
