"""The edge over gRPC: what it refuses and how, health, reflection, drain, ports."""

from __future__ import annotations

import errno
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from splitexit.bundle import Bundle
from splitexit.errors import EdgeRefusedError, UsageError
from splitexit.live import edge_pb2, edge_pb2_grpc, wire
from splitexit.live.address import Address, check_exposure
from splitexit.live.client import EdgeClient, Expected
from splitexit.live.edge import EdgeRuntime
from splitexit.live.images import open_images
from splitexit.live.model import Array, LiveModel
from splitexit.live.server import EdgeServer
from splitexit.live.transport import Failure
from splitexit.live.wire import Query, Result
from tests.live_bundle import open_model
from tests.live_process import here, run, started
from tests.test_live_edge import REFUSALS, Counting, query

LOOPBACK = Address("127.0.0.1", 0)
REFUSED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}


@pytest.fixture(scope="module")
def model(live_bundle: Bundle) -> LiveModel:
    return open_model(live_bundle)


@pytest.fixture(scope="module")
def image(live_bundle: Bundle) -> Array:
    return next(iter(open_images(live_bundle).values()))


@pytest.fixture(scope="module")
def server(model: LiveModel) -> Iterator[EdgeServer]:
    edge = EdgeServer(EdgeRuntime(model), LOOPBACK)
    edge.start()
    yield edge
    edge.stop(0.0)


@pytest.fixture(scope="module")
def channel(server: EdgeServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(str(server.address)) as opened:
        yield opened


def infer(channel: grpc.Channel, body: bytes, timeout_s: float = 10.0) -> Any:
    """The reply's bytes, or the status."""
    call: Any = channel.unary_unary(wire.INFER)
    try:
        return call(body, timeout=timeout_s)
    except grpc.RpcError as error:
        return error


def answer(channel: grpc.Channel, asked: Query) -> tuple[int, bytes]:
    """What identifies an answer, without its times."""
    got = wire.parse_result(infer(channel, wire.pack_query(asked)))
    return got.exit, got.logits.tobytes()


@pytest.mark.parametrize("what", REFUSALS)
def test_what_is_refused_over_the_wire(channel: grpc.Channel, model: LiveModel, image: Array, what: str) -> None:
    changes, status, why = REFUSALS[what]
    error = infer(channel, wire.pack_query(replace(query(model, image, 1), **changes)))  # type: ignore[arg-type]
    assert error.code().name == status.name
    assert why in error.details()
    assert "\n" not in error.details()


def test_bytes_that_are_no_message(channel: grpc.Channel) -> None:
    """INVALID_ARGUMENT, not gRPC's INTERNAL."""
    for method in (wire.INFER, wire.DESCRIBE):
        call: Any = channel.unary_unary(method)
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff\xff\xff", timeout=10)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(("beyond", "code"), [(-1, "FAILED_PRECONDITION"), (0, "FAILED_PRECONDITION"), (1, None)])
def test_the_cap(channel: grpc.Channel, server: EdgeServer, beyond: int, code: str | None) -> None:
    """cap - 1 and cap bytes are read (and refused for what they say), cap + 1 are not."""
    cap = server._runtime.max_request_bytes
    size = cap - len(edge_pb2.InferRequest(payload=bytes(cap - 100)).SerializeToString()) + (cap - 100) + beyond
    body = edge_pb2.InferRequest(payload=bytes(size)).SerializeToString()
    assert len(body) == cap + beyond
    assert infer(channel, body).code().name == (code or "RESOURCE_EXHAUSTED")


def broken(rng: np.random.Generator, whole: edge_pb2.InferRequest) -> bytes:
    """A good message with one field broken: random bytes would die in the parser."""
    message = edge_pb2.InferRequest()
    message.CopyFrom(whole)
    field = rng.integers(11)
    number = int(rng.choice([0, 1, 2, 7, 2**31, 2**32 - 1]))
    if field == 0:
        message.protocol.major = number
    elif field == 1:
        message.bundle = int(rng.integers(2**63))
    elif field == 2:
        message.split = number
    elif field == 3:
        message.codec = "".join(rng.choice(list("rawuint8:=,/.\0é"), rng.integers(1, 12)))
    elif field in (4, 5):
        payload = bytearray(message.payload)
        payload[int(rng.integers(len(payload)))] ^= int(rng.integers(1, 256))
        message.payload = bytes(payload)
    elif field == 6:
        message.payload = message.payload[: int(rng.integers(len(message.payload)))]
    elif field == 7:
        message.exits.add(exit=number, rule=str(rng.choice(["max_prob", "luck", ""])), threshold=float(rng.normal()))
    elif field == 8:
        message.left_ms = float(rng.choice([np.nan, np.inf, -1, 0, 1e30]))
    elif field == 9:
        message.payload += rng.bytes(int(rng.integers(1, 50)))
    else:
        body = bytearray(message.SerializeToString())
        body[int(rng.integers(len(body)))] ^= int(rng.integers(1, 256))
        return bytes(body)
    return bytes(message.SerializeToString())


def test_three_thousand_broken_messages(channel: grpc.Channel, model: LiveModel, image: Array) -> None:
    """Only the four refusals, never INTERNAL or UNKNOWN; the next good request is answered byte for byte."""
    rng = np.random.default_rng(0)
    goods = [query(model, image, split, codec) for split, codec in ((0, "jpeg"), (1, "uint8"), (2, "fp16"), (1, "raw"))]
    before = [answer(channel, good) for good in goods]
    wholes = [edge_pb2.InferRequest.FromString(wire.pack_query(good)) for good in goods]
    codes: dict[str, int] = {}
    for number in range(3000):
        reply = infer(channel, broken(rng, wholes[number % len(wholes)]))
        code = "OK" if isinstance(reply, bytes) else reply.code().name
        codes[code] = codes.get(code, 0) + 1
    assert set(codes) <= {"OK", *(code.name for code in REFUSED)}, codes
    assert codes["INVALID_ARGUMENT"] > 300, codes
    assert codes["FAILED_PRECONDITION"] > 300, codes
    assert [answer(channel, good) for good in goods] == before


def test_health_and_reflection(channel: grpc.Channel) -> None:
    """What grpcurl and load balancers ask for."""
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", wire.SERVICE):
        reply = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert {wire.SERVICE, "grpc.health.v1.Health"} <= set(services)


def test_not_serving_before_start(model: LiveModel) -> None:
    edge = EdgeServer(EdgeRuntime(model), LOOPBACK)
    status = edge._health.Check(health_pb2.HealthCheckRequest(service=""), None).status
    assert status == health_pb2.HealthCheckResponse.NOT_SERVING
    edge.stop(0.0)


def test_a_client_from_the_generated_stubs(channel: grpc.Channel, model: LiveModel, image: Array) -> None:
    """edge.proto is all that another client needs."""
    stub = edge_pb2_grpc.EdgeStub(channel)
    said = stub.Describe(edge_pb2.DescribeRequest(protocol=edge_pb2.Version(major=1)), timeout=10)
    assert said.num_classes == 10
    reply = stub.Infer(edge_pb2.InferRequest.FromString(wire.pack_query(query(model, image, 1))), timeout=10)
    assert len(reply.logits) == 4 * said.num_classes


CLIENTS: dict[str, tuple[dict[str, Any], str | None]] = {
    "the same": ({}, None),
    "other weights": ({"digests": {"model.safetensors": "0" * 64}}, "model.safetensors"),
    "codecs that the edge lacks": ({"digests": {"codecs.safetensors": "0" * 64}}, "codecs.safetensors"),
    "other classes": ({"classes": 100}, "100 classes"),
    "a codec": ({"pairs": frozenset({(1, "bottleneck:channels=8")})}, "'bottleneck:channels=8' at split 1"),
    "a split": ({"pairs": frozenset({(7, "raw")})}, "'raw' at split 7"),
}


@pytest.mark.parametrize("who", CLIENTS)
def test_handshake(server: EdgeServer, model: LiveModel, who: str) -> None:
    """A bundle that does not match is refused with what differs."""
    changes, why = CLIENTS[who]
    ours = Expected.of(model)
    expected = replace(ours, **{k: {**ours.digests, **v} if k == "digests" else v for k, v in changes.items()})
    with EdgeClient(server.address, expected) as client:
        if why is None:
            assert client.connect()
            return
        with pytest.raises(EdgeRefusedError, match=why) as caught:
            client.connect()
        assert caught.value.exit_code == 2
        assert not client.ready


@pytest.mark.parametrize(
    ("protocol", "fits"), [((1, 4), True), ((1, 5), True), ((1, 3), False), ((2, 0), False), ((0, 3), False)]
)
def test_a_server_of_another_protocol(model: LiveModel, protocol: tuple[int, int], fits: bool) -> None:
    """Same major, and its minor at least ours."""
    said = replace(EdgeRuntime(model).description, protocol=protocol)
    if fits:
        Expected.of(model).check(said)
        return
    with pytest.raises(EdgeRefusedError, match="protocol"):
        Expected.of(model).check(said)


def test_a_client_of_a_newer_protocol(server: EdgeServer, model: LiveModel, monkeypatch: pytest.MonkeyPatch) -> None:
    hello = wire.pack_hello((1, 9))
    monkeypatch.setattr(wire, "pack_hello", lambda: hello)
    with (
        EdgeClient(server.address, Expected.of(model)) as client,
        pytest.raises(EdgeRefusedError, match="protocol 1.9"),
    ):
        client.connect()


def test_no_feature_is_sent_to_a_stranger(model: LiveModel, image: Array) -> None:
    """After a refused handshake a call fails at once, and the edge sees nothing."""
    net = Counting(model.net)
    edge = EdgeServer(EdgeRuntime(replace(model, net=net)), LOOPBACK)
    edge.start()
    net.stages.clear()
    with EdgeClient(edge.address, replace(Expected.of(model), classes=3)) as client:
        with pytest.raises(EdgeRefusedError):
            client.connect()
        heard: list[Result | Failure] = []
        client.call(query(model, image, 1), 1.0, heard.append)
    edge.stop(0.0)
    assert heard == [Failure.LOST]
    assert not net.stages


def test_another_service_on_the_port(model: LiveModel) -> None:
    other = grpc.server(ThreadPoolExecutor(1))
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    address = Address("127.0.0.1", port)
    with EdgeClient(address, Expected.of(model)) as client, pytest.raises(EdgeRefusedError, match="no edge"):
        client.connect()
    other.stop(0.0).wait()


class Slow(Counting):
    """Waits at a stage until it is let go."""

    def __init__(self, net: object) -> None:
        super().__init__(net)
        self.inside, self.go = threading.Semaphore(0), threading.Event()

    def run_stages(self, features: Array, first: int, last: int) -> Array:
        """Says that it is there, and waits."""
        self.inside.release()
        self.go.wait(20)
        return super().run_stages(features, first, last)


@pytest.fixture
def slow(model: LiveModel) -> Iterator[tuple[Slow, EdgeServer]]:
    net = Slow(model.net)
    net.go.set()
    edge = EdgeServer(EdgeRuntime(replace(model, net=net), queue=2), LOOPBACK)
    edge.start()
    net.go.clear()
    net.stages.clear()
    while net.inside.acquire(blocking=False):
        pass
    yield net, edge
    net.go.set()
    edge.stop(0.0)


def test_overload_is_shed(slow: tuple[Slow, EdgeServer], model: LiveModel, image: Array) -> None:
    """One works, two wait, seventeen of twenty are refused."""
    net, edge = slow
    body = wire.pack_query(query(model, image, 2))
    with grpc.insecure_channel(str(edge.address)) as channel:
        call: Any = channel.unary_unary(wire.INFER)
        futures = [call.future(body, timeout=20) for _ in range(20)]
        refused = 0
        while refused < 17:
            refused = sum(f.done() for f in futures)
            time.sleep(0.01)
        net.go.set()
        codes = [future.code() for future in futures]
    assert codes.count(grpc.StatusCode.OK) == 3
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 17


def test_a_cancelled_call_stops_at_the_next_stage(
    slow: tuple[Slow, EdgeServer], model: LiveModel, image: Array
) -> None:
    """At most one stage is wasted."""
    net, edge = slow
    with grpc.insecure_channel(str(edge.address)) as channel:
        call: Any = channel.unary_unary(wire.INFER)
        future = call.future(wire.pack_query(query(model, image, 0)), timeout=20)
        assert net.inside.acquire(timeout=10)
        future.cancel()
        time.sleep(0.2)
        net.go.set()
        time.sleep(0.2)
    assert sum(net.stages.values()) == 1


def test_nothing_starts_after_the_deadline(slow: tuple[Slow, EdgeServer], model: LiveModel, image: Array) -> None:
    """A request whose deadline passes while it waits for the worker is never computed."""
    net, edge = slow
    with grpc.insecure_channel(str(edge.address)) as channel:
        call: Any = channel.unary_unary(wire.INFER)
        first = call.future(wire.pack_query(query(model, image, 2)), timeout=20)
        assert net.inside.acquire(timeout=10)
        error = infer(channel, wire.pack_query(query(model, image, 2, left_s=0.05)))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        net.go.set()
        assert first.code() is grpc.StatusCode.OK
    assert sum(net.stages.values()) == 1


def test_what_has_begun_is_finished(slow: tuple[Slow, EdgeServer], model: LiveModel, image: Array) -> None:
    """A drain: in-flight calls end well, new ones are turned away, health says so."""
    net, edge = slow
    with grpc.insecure_channel(str(edge.address)) as channel:
        call: Any = channel.unary_unary(wire.INFER)
        future = call.future(wire.pack_query(query(model, image, 2)), timeout=20)
        assert net.inside.acquire(timeout=10)
        stopping = threading.Thread(target=edge.stop, args=(10.0,))
        stopping.start()
        time.sleep(0.1)
        with grpc.insecure_channel(str(edge.address), options=[("grpc.use_local_subchannel_pool", 1)]) as late:
            assert infer(late, b"").code() is grpc.StatusCode.UNAVAILABLE
        net.go.set()
        assert future.code() is grpc.StatusCode.OK
        stopping.join(timeout=10)
    assert not stopping.is_alive()


def test_a_port_in_use(server: EdgeServer, model: LiveModel) -> None:
    """One line, not a second server behind the same port."""
    with pytest.raises(UsageError, match=f"--listen {server.address}: Address already in use"):
        EdgeServer(EdgeRuntime(model), server.address)


@pytest.mark.parametrize("text", ["nonsense", "host:", ":1", "1.2.3.4:99999", "1.2.3.4:-1", "1.2.3.4:x"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="expected HOST:PORT"):
        Address.parse(text, "--listen")


@pytest.mark.parametrize(("host", "exposed"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_only_this_machine_by_default(host: str, exposed: bool) -> None:
    check_exposure(Address(host, 0), insecure=True)
    if exposed:
        with pytest.raises(UsageError, match="--insecure"):
            check_exposure(Address(host, 0), insecure=False)
    else:
        check_exposure(Address(host, 0), insecure=False)


def test_serve_says_that_it_is_ready_and_drains(live_bundle: Bundle) -> None:
    """The command: one line with address, bundle and pid; SIGTERM ends it with 0 and nothing on stderr."""
    with started("serve", live_bundle.path, "--listen", "127.0.0.1:0") as edge:
        assert edge.ready["pid"] == edge.popen.pid
        assert edge.ready["bundle"] == str(live_bundle.path)
        port = edge.address.rpartition(":")[2]
        second = run("serve", live_bundle.path, "--listen", f"127.0.0.1:{port}")
        assert second.returncode == 2
        assert second.stderr.count("\n") == 1
        assert "Address already in use" in second.stderr
        assert edge.end(signal.SIGTERM) == (0, "", "")


def test_serve_of_no_bundle(tmp_path: Path) -> None:
    done = here("serve", tmp_path / "none")
    assert done.returncode == 2
    assert "no such bundle" in done.stderr
    assert done.stderr.count("\n") == 1


def test_serve_to_everybody_needs_a_word(live_bundle: Bundle) -> None:
    done = here("serve", live_bundle.path, "--listen", "0.0.0.0:0")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--insecure" in done.stderr


def test_so_reuseport_is_off(server: EdgeServer) -> None:
    """Otherwise the kernel would spread devices over two edges that know nothing of each other."""
    with socket.socket() as second:
        second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError) as caught:
            second.bind((server.address.host, server.address.port))
    assert caught.value.errno == errno.EADDRINUSE
