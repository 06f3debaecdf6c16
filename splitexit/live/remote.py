"""What a bundle costs on another machine, measured through the ordinary calls of a `splitexit serve` there.

Every call says what its parts took (`Query.timed`), and reads every head behind the split with a threshold that none
reaches, so that all parts behind the split run. What never runs there cannot be measured there: encoding is the
device's work, and its times are copied from this machine's calibration; so is what a batch costs, because calls come
one at a time. `made` of the calibration says so.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import grpc
import numpy as np

from splitexit.bundle import Bundle, ModelSpec
from splitexit.calibration import Calibration, Distribution, Pair, Rpc
from splitexit.copula import Dependence
from splitexit.decision import ExitCheck
from splitexit.errors import EdgeRefusedError, EdgeUnavailableError, UsageError
from splitexit.experiment import HOST
from splitexit.inference import adds_to_device
from splitexit.live.address import Address
from splitexit.live.client import EdgeClient
from splitexit.live.model import Array, LiveModel
from splitexit.live.rpc import CALL_S, connected, count_bytes, overhead_s, timed_call
from splitexit.live.tuning import CLIENT
from splitexit.live.wire import DESCRIBE, Description, Query, Refused, bundle_tag, pack_hello, parse_description
from splitexit.models.chain import Clock, checked

WARM_CALLS = 5
"""Of every split and codec, not counted."""

NEVER = 2.0
"""A threshold that no probability reaches."""

CONNECTIONS, RPC_CALLS = 20, 100


def calibrate_edge(
    bundle: Bundle,
    address: Address,
    images: Sequence[Array],
    *,
    repetitions: int,
    gap_s: float,
    command: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration:
    """The calibration of the machine that serves this bundle at `address`, as fast as it is.

    Args:
        images: float32 C×H×W in [0, 1], used in turn.
        repetitions: calls for every split and codec that it serves.
        gap_s: pause before every call.

    `rpc` is what a call over this connection costs beyond a round trip of TCP, with the smallest payload.

    Raises:
        ArtifactError: the bundle has no calibration of this machine to take encoding from.
        UsageError: the edge stands for another machine, or does not serve the whole network.
        EdgeUnavailableError, EdgeRefusedError: nobody answers, or not for this bundle.
    """
    local = Calibration.load(bundle.calibration, bundle.spec)
    served = _served(address, bundle)
    pairs = sorted((split.split, codec) for split in served.splits for codec in split.codecs)
    model = LiveModel.open(bundle, pairs)
    caller = _Caller(model, images, gap_s)
    total = len(pairs) * repetitions
    with connected(address, model) as client:
        for number, pair in enumerate(pairs):
            for call in range(-WARM_CALLS, repetitions):
                caller.call(client, pair, max(call, 0), counted=call >= 0)
                progress(number * repetitions + max(call + 1, 0), total)
    rtt_s = round_trip_s(address)
    made: dict[str, Any] = {
        "command": command,
        "edge": str(address),
        "repetitions": repetitions,
        "gap_ms": 1e3 * gap_s,
        "rtt_ms": float(f"{1e3 * rtt_s:.4g}"),
        "copied": {"parts": "encode_s, batch", "of": dict(local.machine)},
    }
    measured = Calibration(
        machine={**served.machine, "name": str(address)},
        stages=tuple(caller.distribution("stage", number) for number in range(bundle.spec.num_stages)),
        exits=tuple(caller.distribution("exit", number) for number in range(len(bundle.spec.exits))),
        encode={pair: local.encode[pair] for pair in pairs if pair in local.encode},
        decode={pair: caller.distribution("decode", pair) for pair in pairs},
        rpc=caller.rpc(address, rtt_s),
        weights_sha256=bundle.spec.weights_sha256,
        made=made,
        batch=local.batch,
        dependence=Dependence.measured(caller.whole.parts("stage", "exit").tolist()),
    )
    made["check"] = checked(measured, caller.whole.chain_s())
    return measured


def _served(address: Address, bundle: Bundle) -> Description:
    """What is served there, if all of the network can be measured."""
    with grpc.insecure_channel(str(address), options=CLIENT) as channel:
        try:
            describe: Any = channel.unary_unary(DESCRIBE)
            found = parse_description(describe(pack_hello(), timeout=CALL_S))
        except Refused as refused:
            raise EdgeRefusedError(f"edge at {address}: {refused}") from None
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.FAILED_PRECONDITION):
                raise EdgeRefusedError(f"{address}: {error.details()}") from None
            raise EdgeUnavailableError(f"no edge at {address}; start one with `splitexit serve` there") from None
    if found.hardware != HOST:
        raise UsageError(f"edge at {address}: it stands for {found.hardware}; start it with --hardware {HOST}")
    first = min((split.split for split in found.splits), default=None)
    if first != 0:
        raise UsageError(
            f"edge at {address}: it serves nothing at split 0, so its first stages never run; "
            f"give {bundle.path} there a recording or calibration with image@0"
        )
    return found


class _Caller:
    """Calls an edge, and keeps what it says of its parts.

    whole   the parts of those calls that ran the whole network
    """

    def __init__(self, model: LiveModel, images: Sequence[Array], gap_s: float) -> None:
        self._model, self._images, self._gap_s = model, images, gap_s
        self._clock, self.whole = Clock(), Clock()
        self._tag = bundle_tag(model.digests)
        self._small: Query | None = None

    def call(self, client: EdgeClient, pair: Pair, number: int, counted: bool) -> None:
        """One image from this split on, encoded so."""
        query = self._query(pair, number)
        result, _ = timed_call(client, query, self._gap_s)
        names = list(parts_behind(self._model.spec, pair))
        if len(names) != len(result.parts_s):
            raise EdgeRefusedError(f"the edge says what {len(result.parts_s)} parts took, expected {len(names)}")
        if not counted:
            return
        if self._small is None or len(query.payload) < len(self._small.payload):
            self._small = query
        for clock in (self._clock, self.whole) if pair[0] == 0 else (self._clock,):
            for name, seconds in zip(names, result.parts_s, strict=True):
                clock.seconds[name].append(seconds)

    def _query(self, pair: Pair, number: int) -> Query:
        split, model = pair[0], self._model
        image = self._images[number % len(self._images)]
        payload = model.codecs[pair].encode(model.net.run_stages(image, 0, split) if split else image)
        checks = tuple(ExitCheck(exit_, "max_prob", NEVER) for exit_ in model.spec.exits_after(split))
        evidence = (0.0,) * model.spec.num_classes if adds_to_device(checks, model.spec) else ()
        return Query(number, 0, *pair, payload, checks, CALL_S, self._tag, timed=True, evidence=evidence)

    def distribution(self, kind: str, which: Any) -> Distribution:
        """Of one part, over all calls in which it ran."""
        return self._clock.distribution(kind, which)

    def rpc(self, address: Address, rtt_s: float) -> Rpc:
        """What calls with the smallest payload cost beyond the round trip, and their framing."""
        assert self._small is not None, "calls were counted before"
        query = replace(self._small, timed=False, exits=())
        with connected(address, self._model) as client:
            seconds = [overhead_s(*timed_call(client, query, self._gap_s)) - rtt_s for _ in range(RPC_CALLS)]
        framing = count_bytes(address, self._model, query)
        return Rpc(*framing, Distribution.measured(np.maximum(seconds, 0.0).tolist()))


def parts_behind(spec: ModelSpec, pair: Pair) -> Iterator[tuple[str, Any]]:
    """The parts of a call with every head read, in the order in which an edge runs them."""
    yield "decode", pair
    for stage in range(pair[0], spec.num_stages):
        yield "stage", stage
        yield from (("exit", exit_) for exit_, at in enumerate(spec.exit_stages) if at == stage + 1)


def round_trip_s(address: Address) -> float:
    """Median seconds until a TCP connection stands: one round trip, without gRPC or the edge's process."""
    seconds = []
    for _ in range(CONNECTIONS):
        start_s = time.perf_counter()
        socket.create_connection((address.host, address.port), timeout=CALL_S).close()
        seconds.append(time.perf_counter() - start_s)
    return float(np.median(seconds))
