"""What one call costs beyond its payload and the model: bytes of framing, and seconds.

Framing is HTTP/2, gRPC and protobuf: bytes that TCP carries, counted on loopback. The headers of TCP and IP are the
link's affair (`transport: tcp`, or a network of real packets).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import numpy as np

from splitexit.bundle import Bundle
from splitexit.calibration import Distribution, Pair, Rpc
from splitexit.errors import EdgeUnavailableError
from splitexit.links import Fifo
from splitexit.links.constant import Constant
from splitexit.live.address import Address
from splitexit.live.children import EdgeOrder, serve
from splitexit.live.client import EdgeClient, Expected
from splitexit.live.link import LinkProxy
from splitexit.live.model import LiveModel, use_one_thread
from splitexit.live.network import Network, Place
from splitexit.live.processes import Child, Line, enter, settle_memory
from splitexit.live.transport import Failure
from splitexit.live.tuning import tune_process
from splitexit.live.wire import Query, Result, bundle_tag
from splitexit.scenario import Edge

LOOPBACK = Address("127.0.0.1", 0)
CALL_S, READY_S = 5.0, 10.0
WARM_CALLS, COUNTED_CALLS = 20, 50
GAP_S = 0.015
"""Between two calls, as between the requests of a device; back to back a call finds both processes awake."""


def measure_rpc(bundle_path: Path, calls: int = 300, through: Network | None = None) -> Rpc:
    """Calls an edge from another process, over loopback or through a network of unshaped links.

    Seconds are from sending to the stamp of the reply, less what the edge says it waited and computed, the way through
    the network's links included; bytes are counted on a connection that has been used before. Raises ArtifactError
    where the bundle does not fit, ProcessError where a process does not start, EdgeUnavailableError where calls fail.
    """
    bundle = Bundle.open(bundle_path)
    pair = (bundle.spec.num_stages - 1, "uint8")
    home = Place(LOOPBACK) if through is None else through.edge
    with _edge(bundle_path, pair, home) as address:
        way = Place(address) if through is None else _way(through, address)
        seconds, framing = _called(bundle_path, pair, way, calls)
    if framing is None:  # nothing can be put between the ends in a namespace
        with _edge(bundle_path, pair, Place(LOOPBACK)) as address:
            _, framing = _called(bundle_path, pair, Place(address), 1)
    assert framing is not None, "counted where there is no namespace"
    return Rpc(*framing, Distribution.measured(seconds))


def _way(network: Network, edge: Address) -> Place:
    network.connect(edge)
    network.begin(0, time.monotonic())
    return network.device(0)


@contextmanager
def _edge(bundle_path: Path, pair: Pair, place: Place) -> Iterator[Address]:
    """An edge as in a live run, which ends with the block."""
    child = Child("edge", serve, EdgeOrder(bundle_path, Edge(), (pair,), None, place.namespace))
    try:
        child.expect("loaded")
        child.tell("listen", place.address)
        yield child.expect("listening")[0]
    finally:
        child.close()


Framing = tuple[int, int]
"""Bytes around a payload on the way up, and of a reply."""


def _called(bundle_path: Path, pair: Pair, place: Place, calls: int) -> tuple[list[float], Framing | None]:
    """Seconds of calls by a process of their own, and their bytes."""
    child = Child("caller", _be_caller, bundle_path, pair, place, calls)
    try:
        seconds, framing = child.expect("measured")
    finally:
        child.close()
    return seconds, framing


def _be_caller(line: Line, bundle_path: Path, pair: Pair, place: Place, calls: int) -> None:
    tune_process()
    enter(place.namespace)
    model = LiveModel.open(Bundle.open(bundle_path), [pair])
    query = small_query(model, pair)
    seconds = time_calls(place.address, model, query, calls)
    line.tell("measured", seconds, None if place.namespace else count_bytes(place.address, model, query))
    line.next("end")


def small_query(model: LiveModel, pair: Pair) -> Query:
    """A request whose payload is an empty image's features."""
    blank = np.zeros(model.spec.shape_at(pair[0]), dtype=np.float32)
    return Query(1, 0, *pair, model.codecs[pair].encode(blank), (), CALL_S, bundle_tag(model.digests))


def time_calls(address: Address, model: LiveModel, query: Query, calls: int, gap_s: float = GAP_S) -> list[float]:
    """Seconds of calls to a warm edge, each after a pause, beyond what the edge waited and computed."""
    with connected(address, model) as client:
        settle_memory()
        return [overhead_s(*timed_call(client, query, gap_s)) for _ in range(WARM_CALLS + calls)][WARM_CALLS:]


@contextmanager
def connected(address: Address, model: LiveModel) -> Iterator[EdgeClient]:
    """A client of an edge that has shaken hands; raises EdgeRefusedError or EdgeUnavailableError."""
    use_one_thread()
    with EdgeClient(address, Expected.of(model)) as client:
        client.connect()
        give_up_s = time.monotonic() + READY_S  # a busy machine may take long for its first answer
        while not client.ready:
            if time.monotonic() > give_up_s:
                raise EdgeUnavailableError(f"no edge at {address}; start one with `splitexit serve`")
            time.sleep(0.02)
        yield client


def timed_call(client: EdgeClient, query: Query, gap_s: float) -> tuple[Result, float]:
    """What the edge answers after a pause, and seconds from sending to the stamp of the reply."""
    time.sleep(gap_s)
    came, heard = Event(), list[tuple[Result | Failure, float]]()

    def done(result: Result | Failure) -> None:
        heard.append((result, time.monotonic()))
        came.set()

    start_s = time.monotonic()
    client.call(query, CALL_S, done)
    came.wait()
    result, end_s = heard[0]
    if isinstance(result, Failure):
        raise EdgeUnavailableError(f"a call to the edge failed ({result.name.lower()}); run it again")
    return result, end_s - start_s


def overhead_s(result: Result, seconds: float) -> float:
    """What a call took beyond what the edge says that it waited and computed."""
    return max(0.0, seconds - result.wait_s - result.compute_s)


def count_bytes(address: Address, model: LiveModel, query: Query) -> Framing:
    """Bytes of one call, up without its payload and down, rounded up, as a proxy in front of the edge counts them."""
    wide = (Fifo(Constant(mbps=1e6)), Fifo(Constant(mbps=1e6)))
    with LinkProxy(LOOPBACK, address, *wide) as proxy, connected(proxy.address, model) as client:
        for _ in range(WARM_CALLS):  # HTTP/2 compresses headers that it has seen
            timed_call(client, query, 0.0)
        before = np.array([proxy.up.fidelity.size_bytes, proxy.down.fidelity.size_bytes])
        for _ in range(COUNTED_CALLS):
            timed_call(client, query, 0.0)
        after = np.array([proxy.up.fidelity.size_bytes, proxy.down.fidelity.size_bytes])
    up, down = np.ceil((after - before) / COUNTED_CALLS).astype(int).tolist()
    return up - len(query.payload), down
