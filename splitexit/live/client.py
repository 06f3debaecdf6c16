"""A device's way to its edge over gRPC: handshake, calls, and noticing when the edge goes and comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from splitexit.calibration import Pair
from splitexit.errors import EdgeRefusedError
from splitexit.live import wire
from splitexit.live.address import Address
from splitexit.live.model import LiveModel
from splitexit.live.transport import Failure
from splitexit.live.tuning import CLIENT
from splitexit.live.wire import Description, Query, Refused, Result

RETRY_S, DESCRIBE_S = 0.2, 1.0
"""How often an edge that is away is asked for, and how long a Describe may take."""


@dataclass(frozen=True)
class Expected:
    """What a device needs its edge to serve."""

    digests: dict[str, str]
    classes: int
    pairs: frozenset[Pair]

    @classmethod
    def of(cls, model: LiveModel) -> Expected:
        """The same bundle, and every (split, codec) that the device may send."""
        return cls(dict(model.digests), model.spec.num_classes, frozenset(model.codecs))

    def check(self, edge: Description) -> None:
        """Raises EdgeRefusedError with the first thing that does not fit."""
        ours, theirs = wire.PROTOCOL, edge.protocol
        if theirs[0] != ours[0] or theirs[1] < ours[1]:
            spoken, served = ".".join(map(str, ours)), ".".join(map(str, theirs))
            raise EdgeRefusedError(f"it speaks protocol {served}, this device {spoken}; install the same splitexit")
        for name in sorted(self.digests.keys() | edge.digests.keys()):
            mine, its = self.digests.get(name, "none"), edge.digests.get(name, "none")
            if mine != its:
                raise EdgeRefusedError(
                    f"it serves the bundle {edge.bundle!r} with {name} {its[:12]}, this device has {mine[:12]}; "
                    "give both the same bundle folder"
                )
        served_pairs = {(split.split, codec) for split in edge.splits for codec in split.codecs}
        if missing := sorted(self.pairs - served_pairs):
            raise EdgeRefusedError(_not_served(*missing[0], edge))
        if edge.num_classes != self.classes:
            raise EdgeRefusedError(f"it does not serve {self.classes} classes; give both the same bundle folder")


def _not_served(split: int, codec: str, edge: Description) -> str:
    """Which codec the edge lacks, what it has, and what to try."""
    there = {served.split: ", ".join(served.codecs) for served in edge.splits}
    return (
        f"it does not serve codec {codec!r} at split {split} (there it has: {there.get(split) or 'none'}); start it "
        "with this device's recording.parquet and calibration.json, or record and calibrate the codec there"
    )


class EdgeClient:
    """One channel to one edge.

    Args:
        address: where it listens.
        expected: what it must serve.
        say: told, in one line each, when the edge goes away and when it is back.
    """

    def __init__(self, address: Address, expected: Expected, say: Callable[[str], None] = lambda line: None) -> None:
        self._address, self._expected, self._say = address, expected, say
        self._channel = grpc.insecure_channel(str(address), options=CLIENT)
        self._describe: Any = self._channel.unary_unary(wire.DESCRIBE)
        self._infer: Any = self._channel.unary_unary(wire.INFER)
        self._lock, self._away, self._closed = threading.Lock(), threading.Event(), threading.Event()
        self._refusal = ""
        self._watch = threading.Thread(target=self._look_for_it, name="edge-watch", daemon=True)
        self._started = False

    @property
    def ready(self) -> bool:
        """Whether the edge answered last time and serves what is needed."""
        return self._started and not self._away.is_set()

    def connect(self) -> bool:
        """The handshake. True if the edge is there, False if not: then it is looked for in the background.

        Raises EdgeRefusedError where the edge answers, but does not fit.
        """
        try:
            self._shake_hands()
        except grpc.RpcError:
            self._away.set()
            self._say(f"no edge at {self._address}: answering locally, and looking for it")
        self._started = True
        self._watch.start()
        return self.ready

    def _shake_hands(self) -> None:
        """Raises EdgeRefusedError where the edge does not fit, grpc.RpcError where there is none."""
        try:
            self._expected.check(wire.parse_description(self._describe(wire.pack_hello(), timeout=DESCRIBE_S)))
        except (EdgeRefusedError, Refused) as error:
            raise EdgeRefusedError(f"edge at {self._address}: {error}") from None
        except grpc.RpcError as error:
            if _code(error) is grpc.StatusCode.FAILED_PRECONDITION:
                raise EdgeRefusedError(f"edge at {self._address}: {error.details()}") from None
            if _code(error) is grpc.StatusCode.UNIMPLEMENTED:
                raise EdgeRefusedError(f"{self._address}: another gRPC service listens there, no edge") from None
            raise

    def call(self, query: Query, timeout_s: float, done: Callable[[Result | Failure], None]) -> None:
        """Sends a query; `done` is called from another thread, once."""
        if not self.ready:
            done(Failure.LOST)
            return
        future = self._infer.future(wire.pack_query(query), timeout=max(timeout_s, 1e-3))
        future.add_done_callback(lambda call: done(self._outcome(call, query)))

    def _outcome(self, call: Any, query: Query) -> Result | Failure:
        code = call.code()
        if code is grpc.StatusCode.OK:
            return self._result(call.result(), query)
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Failure.SHED
        if code is grpc.StatusCode.NOT_FOUND:
            return Failure.FORGOTTEN
        if code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
            return Failure.LATE
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.FAILED_PRECONDITION):
            self._gone("is gone" if code is grpc.StatusCode.UNAVAILABLE else f"refuses: {call.details()}")
        return Failure.LOST

    def _result(self, body: bytes, query: Query) -> Result | Failure:
        try:
            result = wire.parse_result(body)
        except Refused:
            return Failure.LOST
        return result if self._fits(result, query) else Failure.LOST

    def _fits(self, result: Result, query: Query) -> bool:
        classes, ruled_out = self._expected.classes, result.ruled_out
        whole = ruled_out.bit_length() <= classes and len(result.logits) == classes - ruled_out.bit_count() > 0
        return whole and result.request == query.request and result.bundle == query.bundle

    def _gone(self, how: str) -> None:
        with self._lock:
            if self._closed.is_set() or self._away.is_set():
                return
            self._away.set()
        self._say(f"edge at {self._address} {how}: answering locally, and looking for it")

    def _look_for_it(self) -> None:
        """While the edge is away, asks for it again and again."""
        while not self._closed.is_set():
            self._away.wait()
            if self._closed.wait(RETRY_S):
                return
            try:
                self._shake_hands()
            except grpc.RpcError:
                continue
            except EdgeRefusedError as error:
                if str(error) != self._refusal:
                    self._refusal = str(error)
                    self._say(f"{error}; answering locally")
                continue
            self._refusal = ""
            self._away.clear()
            self._say(f"edge at {self._address} is there")

    def __enter__(self) -> EdgeClient:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Ends the channel; what is still under way is cancelled."""
        self._closed.set()
        self._away.set()
        if self._watch.is_alive():
            self._watch.join()
        self._channel.close()


def _code(error: grpc.RpcError) -> grpc.StatusCode:
    code: grpc.StatusCode = error.code()
    return code
