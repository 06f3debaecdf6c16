"""What one call costs beyond its payload and the model: bytes of framing, and seconds."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event

import numpy as np

from splitexit.bundle import Bundle
from splitexit.calibration import Distribution, Pair, Rpc
from splitexit.errors import EdgeUnavailableError
from splitexit.links import Fifo
from splitexit.links.constant import Constant
from splitexit.live.address import Address
from splitexit.live.client import EdgeClient, Expected
from splitexit.live.edge import EdgeRuntime
from splitexit.live.link import LinkProxy
from splitexit.live.model import LiveModel, use_one_thread
from splitexit.live.server import EdgeServer
from splitexit.live.transport import Failure
from splitexit.live.tuning import tune_process
from splitexit.live.wire import Query, Result, bundle_tag

LOOPBACK = Address("127.0.0.1", 0)
START_S, CALL_S = 60.0, 5.0
WARM_CALLS, COUNTED_CALLS = 20, 50
GAP_S = 0.015
"""Between two calls, as between the requests of a device; back to back a call finds both processes awake."""


def measure_rpc(bundle_path: Path, calls: int = 300) -> Rpc:
    """Calls an edge in another process over loopback.

    Seconds are from sending to the stamp of the reply, less what the edge says it waited and computed; bytes
    are counted by a proxy between both, on a connection that has been used before. Raises ArtifactError where
    the bundle does not fit, EdgeUnavailableError where calls fail.
    """
    bundle = Bundle.open(bundle_path)
    pair = (bundle.spec.num_stages - 1, "uint8")
    model = LiveModel.open(bundle, [pair])
    blank = np.zeros(bundle.spec.shape_at(pair[0]), dtype=np.float32)
    query = Query(1, 0, *pair, model.codecs[pair].encode(blank), (), CALL_S, bundle_tag(model.digests))
    with _edge_process(bundle_path, pair) as address:
        with _client(address, model) as client:
            seconds = [_call(client, query, GAP_S) for _ in range(WARM_CALLS + calls)][WARM_CALLS:]
        up_bytes, down_bytes = _count_bytes(address, model, query)
    return Rpc(up_bytes - len(query.payload), down_bytes, Distribution.measured(seconds))


@contextmanager
def _edge_process(bundle_path: Path, pair: Pair) -> Iterator[Address]:
    """An edge of its own, which ends with the block."""
    context = multiprocessing.get_context("spawn")  # fork hangs where gRPC has been used
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(bundle_path, pair, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(START_S):
            raise EdgeUnavailableError(f"an edge for {bundle_path} did not start within {START_S:.0f} s")
        yield Address(LOOPBACK.host, ours.recv())
    except EOFError:
        raise EdgeUnavailableError(f"an edge for {bundle_path} ended at once") from None
    finally:
        ours.close()
        process.join(timeout=10.0)
        if process.is_alive():
            process.kill()


def _serve(bundle_path: Path, pair: Pair, pipe: Connection) -> None:
    """In the other process: until the pipe is closed."""
    tune_process()
    server = EdgeServer(EdgeRuntime(LiveModel.open(Bundle.open(bundle_path), [pair])), LOOPBACK)
    server.start()
    pipe.send(server.address.port)
    pipe.poll(None)
    server.stop(0.0)


@contextmanager
def _client(address: Address, model: LiveModel) -> Iterator[EdgeClient]:
    use_one_thread()
    with EdgeClient(address, Expected.of(model)) as client:
        client.connect()
        yield client


def _call(client: EdgeClient, query: Query, gap_s: float) -> float:
    """Seconds of one call beyond the edge's wait and compute."""
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
        raise EdgeUnavailableError(f"a call over loopback failed ({result.name.lower()}); run it again")
    return max(0.0, end_s - start_s - result.wait_s - result.compute_s)


def _count_bytes(address: Address, model: LiveModel, query: Query) -> tuple[int, int]:
    """Bytes of one call, up and down, rounded up."""
    wide = (Fifo(Constant(mbps=1e6)), Fifo(Constant(mbps=1e6)))
    with LinkProxy(LOOPBACK, address, *wide) as proxy, _client(proxy.address, model) as client:
        for _ in range(WARM_CALLS):  # HTTP/2 compresses headers that it has seen
            _call(client, query, 0.0)
        before = np.array([proxy.up.fidelity.size_bytes, proxy.down.fidelity.size_bytes])
        for _ in range(COUNTED_CALLS):
            _call(client, query, 0.0)
        after = np.array([proxy.up.fidelity.size_bytes, proxy.down.fidelity.size_bytes])
        up, down = np.ceil((after - before) / COUNTED_CALLS).astype(int).tolist()
        return up, down
