"""The edge on a port: gRPC with health and reflection, thin over `EdgeRuntime`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from splitexit.errors import UsageError
from splitexit.live import wire
from splitexit.live.address import Address
from splitexit.live.edge import EdgeRuntime
from splitexit.live.model import use_one_thread
from splitexit.live.tuning import SERVER

SPARE_THREADS = 8
"""For Describe, health, reflection, and for refusing requests while all others wait."""

MANY = 10_000
"""Requests that wait without a bound have a thread each, as they come, up to so many; the rest waits without."""


class EdgeServer:
    """An `EdgeRuntime` behind a port; `address` is where, once made.

    Args:
        runtime: what is served.
        address: where; port 0 takes a free one.

    Raises UsageError where it cannot listen there. SERVING only between `start` and `stop`.
    """

    def __init__(self, runtime: EdgeRuntime, address: Address) -> None:
        self._runtime = runtime
        threads = SPARE_THREADS + (MANY if runtime.capacity is None else runtime.capacity)
        pool = ThreadPoolExecutor(threads, thread_name_prefix="edge", initializer=use_one_thread)
        limit = ("grpc.max_receive_message_length", runtime.max_request_bytes)
        # More would wait in the pool's queue, which has no end.
        most = None if runtime.capacity is None else threads
        self._server = grpc.server(pool, options=(*SERVER, limit), maximum_concurrent_rpcs=most)
        self._health = health.HealthServicer()
        self._serves(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._add_services()
        self.address = Address(address.host, self._listen(address))

    def _serves(self, status: int) -> None:
        for service in ("", wire.SERVICE):
            self._health.set(service, status)

    def _add_services(self) -> None:
        # Without a deserializer gRPC hands over the bytes: what cannot be parsed is then our INVALID_ARGUMENT
        # instead of gRPC's INTERNAL.
        handlers: dict[str, Any] = {
            "Describe": grpc.unary_unary_rpc_method_handler(self._describe),
            "Infer": grpc.unary_unary_rpc_method_handler(self._infer),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(wire.SERVICE, handlers),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (wire.SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    def _listen(self, address: Address) -> int:
        address.listener("--listen").close()  # says in one line what gRPC would say in many
        try:
            return self._server.add_insecure_port(str(address))
        except RuntimeError:
            raise UsageError(f"--listen {address}: the address was taken just now; try another port") from None

    def _describe(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return self._runtime.describe(body)
        except wire.Refused as refused:
            _abort(context, refused)

    def _infer(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return self._runtime.infer(body, context.is_active)
        except wire.Refused as refused:
            _abort(context, refused)

    def start(self) -> None:
        """Warms up, then serves."""
        self._runtime.warm_up()
        self._server.start()
        self._serves(health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace_s: float) -> None:
        """NOT_SERVING at once; calls that have begun get `grace_s` to end."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_s).wait()


def _abort(context: grpc.ServicerContext, refused: wire.Refused) -> NoReturn:
    context.abort(grpc.StatusCode[refused.status.name], refused.why)
