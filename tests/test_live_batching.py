"""An edge that computes requests together: who is, what that costs, and that everybody gets an answer of their own."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from splitexit.bundle import Bundle
from splitexit.calibration import Calibration, Distribution, Rpc
from splitexit.decision import ExitCheck
from splitexit.errors import UsageError
from splitexit.live import wire
from splitexit.live.edge import EdgeRuntime
from splitexit.live.images import open_images
from splitexit.live.model import Array, LiveModel
from splitexit.live.wire import Query, Refused, Result, Status
from splitexit.live.work import EdgeJob
from splitexit.scenario.sections import Batching
from tests.live_bundle import open_model
from tests.live_process import here, started, wait_for
from tests.test_live_edge import ALWAYS, NEVER, query

LONG_MS, SOON_S = 20_000.0, 15.0
"""A wait for company that no test sits out, and how long anything else may take on a busy machine."""


class Net:
    """The network; notes (stage, samples) and (head, samples), and stops in front of `gate` until it is let on."""

    def __init__(self, net: Any) -> None:
        self._net = net
        self.stages: list[tuple[int, int]] = []
        self.heads: list[tuple[int, int]] = []
        self.gate: int | None = None
        self.there, self.go = threading.Event(), threading.Event()

    def run_stages(self, features: Array, first: int, last: int) -> Array:
        """Notes and runs."""
        if first == self.gate:
            self.there.set()
            assert self.go.wait(SOON_S)
        self.stages.append((first, len(features) if features.ndim == 4 else 1))
        result: Array = self._net.run_stages(features, first, last)
        return result

    def read_exit(self, features: Array, exit_: int) -> Array:
        """Notes and reads."""
        self.heads.append((exit_, len(features) if features.ndim == 4 else 1))
        result: Array = self._net.read_exit(features, exit_)
        return result


@pytest.fixture(scope="module")
def model(live_bundle: Bundle) -> LiveModel:
    return open_model(live_bundle)


@pytest.fixture(scope="module")
def images(live_bundle: Bundle) -> list[Array]:
    return list(open_images(live_bundle).values())


class Edge:
    """An edge whose requests come from threads, as over gRPC."""

    def __init__(self, model: LiveModel, pool: ThreadPoolExecutor, **changes: Any) -> None:
        self.net, self._pool = Net(model.net), pool
        self.runtime, self._arrived = EdgeRuntime(replace(model, net=self.net), **changes), 0
        self._arrive, self.runtime.crew._arrive = self.runtime.crew._arrive, self._count  # type: ignore[method-assign]

    def _count(self, job: EdgeJob) -> None:
        try:
            self._arrive(job)
        finally:
            self._arrived += 1

    def send(self, asked: Query, wanted: Callable[[], bool] = lambda: True) -> Future[Result]:
        """The request comes; returns once it is in line, or beyond."""
        before = self._arrived
        future = self._pool.submit(lambda: wire.parse_result(self.runtime.infer(wire.pack_query(asked), wanted)))
        wait_for(lambda: self._arrived > before)
        return future

    def hold(self, asked: Query) -> Future[Result]:
        """A request that is being computed, and stays so until `net.go`."""
        self.net.gate = asked.split
        future = self.send(asked)
        assert self.net.there.wait(SOON_S)
        self.net.gate = None
        return future


@pytest.fixture
def make(model: LiveModel) -> Iterator[Callable[..., Edge]]:
    """Edges; all of their threads end with the test."""
    with ThreadPoolExecutor(16) as pool:
        edges: list[Edge] = []

        def of(size: int, wait_ms: float = 0.0, **changes: Any) -> Edge:
            edges.append(Edge(model, pool, batching=Batching(max_size=size, max_wait_ms=wait_ms), **changes))
            return edges[-1]

        yield of
        for edge in edges:
            edge.net.go.set()


def test_a_batch_starts_when_it_is_full(make: Callable[..., Edge], model: LiveModel, images: list[Array]) -> None:
    """One pass per stage, and everybody gets what their own image says."""
    edge = make(3, LONG_MS)
    futures = [edge.send(query(model, image, 1)) for image in images[:3]]
    results = [future.result(SOON_S) for future in futures]
    assert edge.net.stages == [(1, 3), (2, 3)]
    assert edge.net.heads == [(2, 3)]
    for image, result in zip(images, results, strict=False):
        alone = model.net.read_exit(model.net.run_stages(image, 0, 3), 2)
        np.testing.assert_allclose(result.logits, alone, rtol=0, atol=1e-5)
    assert edge.runtime.crew.present == 0


def test_a_batch_starts_when_the_oldest_has_waited_enough(
    make: Callable[..., Edge], model: LiveModel, images: list[Array]
) -> None:
    edge = make(8, 300.0)
    futures = [edge.send(query(model, image, 1)) for image in images[:2]]
    first, second = (future.result(SOON_S) for future in futures)
    assert edge.net.stages == [(1, 2), (2, 2)]
    assert first.wait_s >= 0.3
    assert first.wait_s > second.wait_s


def test_without_a_wait_a_batch_is_what_has_queued_up(
    make: Callable[..., Edge], model: LiveModel, images: list[Array]
) -> None:
    """And each holds requests of one split."""
    edge = make(8)
    futures = [edge.hold(query(model, images[0], 1))]
    futures += [edge.send(query(model, image, split)) for image, split in zip(images[1:], (2, 1, 2, 1), strict=False)]
    edge.net.go.set()
    lengths = [future.result(SOON_S).queue_length for future in futures]
    assert edge.net.stages == [(1, 1), (2, 1), (2, 2), (1, 2), (2, 2)]
    assert lengths[0] == 4


def test_a_reply_leaves_as_soon_as_its_job_is_done(
    make: Callable[..., Edge], model: LiveModel, images: list[Array]
) -> None:
    """Whoever leads: the first of the batch exits, the second goes on without it."""
    edge = make(2, LONG_MS)
    edge.net.gate = 2
    early = edge.send(query(model, images[0], 1, exits=(ALWAYS,)))
    whole = edge.send(query(model, images[1], 1, exits=(NEVER,)))
    assert early.result(SOON_S).exit == 1
    assert edge.net.there.wait(SOON_S)
    assert not whole.done()
    edge.net.go.set()
    assert whole.result(SOON_S).exit == 2
    assert edge.net.stages == [(1, 2), (2, 1)]
    assert edge.net.heads == [(1, 2), (2, 1)]
    assert edge.runtime.crew.present == 0


def test_exits_of_all_end_the_work(make: Callable[..., Edge], model: LiveModel, images: list[Array]) -> None:
    edge = make(2, LONG_MS)
    futures = [edge.send(query(model, image, 1, exits=(ALWAYS,))) for image in images[:2]]
    assert [future.result(SOON_S).exit for future in futures] == [1, 1]
    assert edge.net.stages == [(1, 2)]


def test_a_poisoned_payload_refuses_only_its_own(
    make: Callable[..., Edge], model: LiveModel, images: list[Array]
) -> None:
    """Also where it would have led the batch."""
    edge = make(3, LONG_MS)
    good = [query(model, image, 1) for image in images[:2]]
    futures = [edge.send(asked) for asked in (replace(good[0], payload=b"nonsense"), *good)]
    with pytest.raises(Refused) as caught:
        futures[0].result(SOON_S)
    assert caught.value.status is Status.INVALID_ARGUMENT
    assert [future.result(SOON_S).exit for future in futures[1:]] == [2, 2]
    assert edge.net.stages == [(1, 2), (2, 2)]


def test_what_goes_wrong_is_said_to_all_and_the_edge_goes_on(
    make: Callable[..., Edge], model: LiveModel, images: list[Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = make(2, LONG_MS)

    def broken(features: Array, exit_: int) -> Array:
        raise MemoryError("no room for logits")

    with monkeypatch.context() as patch:
        patch.setattr(edge.net, "read_exit", broken)
        for future in [edge.send(query(model, image, 1)) for image in images[:2]]:
            with pytest.raises(MemoryError, match="no room"):
                future.result(SOON_S)
    futures = [edge.send(query(model, image, 1)) for image in images[:2]]
    assert [future.result(SOON_S).exit for future in futures] == [2, 2]
    assert edge.runtime.crew.present == 0


def test_who_finds_no_room_is_shed(make: Callable[..., Edge], model: LiveModel, images: list[Array]) -> None:
    """One is computed, two wait; the fourth is refused at once."""
    edge = make(2, queue=2)
    futures = [edge.hold(query(model, images[0], 2))] + [edge.send(query(model, i, 2)) for i in images[1:3]]
    with pytest.raises(Refused, match="shed: 2 requests") as caught:
        edge.send(query(model, images[3], 2)).result(SOON_S)
    assert caught.value.status is Status.RESOURCE_EXHAUSTED
    edge.net.go.set()
    assert [future.result(SOON_S).exit for future in futures] == [2, 2, 2]


def test_a_queue_without_bound(make: Callable[..., Edge], model: LiveModel, images: list[Array]) -> None:
    edge = make(1, queue=None)
    futures = [edge.hold(query(model, images[0], 2))] + [edge.send(query(model, images[0], 2)) for _ in range(12)]
    edge.net.go.set()
    assert [future.result(SOON_S).exit for future in futures] == [2] * 13
    assert edge.runtime.capacity is None


def test_a_queue_that_is_too_short_for_a_batch(model: LiveModel) -> None:
    with pytest.raises(UsageError, match="queue of 2 is too short"):
        EdgeRuntime(model, queue=2, batching=Batching(max_size=4))


def test_the_deadline_passes_while_queued(make: Callable[..., Edge], model: LiveModel, images: list[Array]) -> None:
    """It is told at once, nothing is computed for it, and it leaves its place."""
    edge = make(2, queue=1)
    first = edge.hold(query(model, images[0], 2))
    with pytest.raises(Refused) as caught:
        edge.send(query(model, images[1], 2, left_s=0.05)).result(SOON_S)
    assert caught.value.status is Status.DEADLINE_EXCEEDED
    third = edge.send(query(model, images[2], 2))
    edge.net.go.set()
    assert (first.result(SOON_S).exit, third.result(SOON_S).exit) == (2, 2)
    assert edge.net.stages == [(2, 1), (2, 1)]


def test_nobody_waits_for_company_beyond_the_deadline(
    make: Callable[..., Edge], model: LiveModel, images: list[Array]
) -> None:
    edge = make(4, LONG_MS)
    with pytest.raises(Refused, match="no worker"):
        edge.send(query(model, images[0], 1, left_s=0.05)).result(SOON_S)
    assert not edge.net.stages


@pytest.mark.parametrize("leads", [True, False])
def test_whom_nobody_waits_for_leaves_a_batch_between_two_stages(
    make: Callable[..., Edge], model: LiveModel, images: list[Array], leads: bool
) -> None:
    edge, gone = make(2, LONG_MS), threading.Event()
    edge.net.gate = 1
    mine = (query(model, images[0], 1), lambda: not gone.is_set())
    other = (query(model, images[1], 1), lambda: True)
    futures = [edge.send(*each) for each in ((mine, other) if leads else (other, mine))]
    assert edge.net.there.wait(SOON_S)
    gone.set()
    edge.net.go.set()
    stopped, answered = futures if leads else reversed(futures)
    with pytest.raises(Refused, match="nobody waits"):
        stopped.result(SOON_S)
    assert answered.result(SOON_S).exit == 2
    assert edge.net.stages == [(1, 2), (2, 1)]


def test_two_workers(make: Callable[..., Edge], model: LiveModel, images: list[Array]) -> None:
    """Two batches at once; what comes then waits."""
    edge = make(2, workers=2)
    edge.net.gate = 2
    futures = [edge.send(query(model, image, 2)) for image in images[:4]]
    assert edge.net.there.wait(SOON_S)
    assert edge.net.stages == []
    edge.net.go.set()
    assert [future.result(SOON_S).exit for future in futures] == [2] * 4
    assert sorted(edge.net.stages) == [(2, 1), (2, 1), (2, 2)]


def test_many_from_many_threads(make: Callable[..., Edge], model: LiveModel, images: list[Array]) -> None:
    """Each gets its own answer, however they fall together."""
    edge = make(4, 1.0, workers=2, queue=None)
    exits = [(), (ALWAYS,), (NEVER,), (ExitCheck(1, "max_prob", 0.5),)]
    asked = [
        replace(query(model, images[k % 7], 1 + k % 2, exits=() if k % 2 else exits[k % 4]), request=k)
        for k in range(120)
    ]
    expected = [wire.parse_result(EdgeRuntime(model).infer(wire.pack_query(q), lambda: True)) for q in asked]
    with ThreadPoolExecutor(12) as pool:
        results = list(
            pool.map(lambda q: wire.parse_result(edge.runtime.infer(wire.pack_query(q), lambda: True)), asked)
        )
    for result, alone in zip(results, expected, strict=True):
        assert (result.request, result.exit, result.prediction) == (alone.request, alone.exit, alone.prediction)
        np.testing.assert_allclose(result.logits, alone.logits, rtol=0, atol=1e-5)
    assert max(size for _, size in edge.net.stages) > 1
    assert edge.runtime.crew.present == 0


def test_a_paced_edge_takes_the_drawn_times_of_a_batch(
    make: Callable[..., Edge], model: LiveModel, images: list[Array]
) -> None:
    """Three payloads of 2 ms one after the other; a stage of 20 ms takes 30 for three, a head of 1 ms takes 1.5."""
    calibration = Calibration(
        machine={},
        stages=(Distribution.constant(0.02),) * 3,
        exits=(Distribution.constant(0.001),) * 3,
        encode={},
        decode={(1, "raw"): Distribution.constant(0.002)},
        rpc=Rpc(0, 0, Distribution.constant(0.0)),
        batch={1: 1.0, 3: 1.5},
    )
    edge = make(3, LONG_MS, hardware="somewhere", calibration=calibration)
    start_s = time.monotonic()
    futures = [edge.send(query(model, image, 1, timed=True)) for image in images[:3]]
    results = [future.result(SOON_S) for future in futures]
    assert time.monotonic() - start_s >= 0.0675
    for result in results:
        assert result.parts_s == pytest.approx((0.002, 0.03, 0.03, 0.0015))
    assert min(result.compute_s for result in results) >= 0.0675 - 1e-9


def test_warming_up_goes_through_the_sizes(model: LiveModel) -> None:
    """Of powers of two and the largest, so that a first batch finds its buffers."""
    net = Net(model.net)
    EdgeRuntime(replace(model, net=net), batching=Batching(max_size=6)).warm_up(1)
    assert Counter(size for _, size in net.stages).keys() == {1, 2, 4, 6}


def test_several_samples_in_one_pass_say_what_each_says_alone(model: LiveModel, images: list[Array]) -> None:
    """Within 1e-5, and the same class wherever the two best are further apart than that."""
    features = model.net.run_stages(np.stack(images), 0, 3)
    together = model.net.read_exit(features, 2)
    alone = np.stack([model.net.read_exit(model.net.run_stages(image, 0, 3), 2) for image in images])
    assert together.shape == alone.shape == (len(images), 10)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
    best = np.sort(alone, axis=1)
    sure = best[:, -1] - best[:, -2] > 2e-5
    assert sure.sum() > len(images) // 2
    assert (together.argmax(axis=1) == alone.argmax(axis=1))[sure].all()


def test_served_batches_are_finished_when_asked_to_end(
    live_bundle: Bundle, model: LiveModel, images: list[Array]
) -> None:
    """SIGTERM while two wait for company: both are answered, and the process ends well."""
    options = ("--listen", "127.0.0.1:0", "--batch-size", 4, "--batch-wait-ms", 1500)
    with (
        started("serve", live_bundle.path, *options) as edge,
        grpc.insecure_channel(edge.address) as channel,
    ):
        call: Any = channel.unary_unary(wire.INFER)
        grpc.channel_ready_future(channel).result(SOON_S)
        futures = [call.future(wire.pack_query(query(model, image, 1)), timeout=SOON_S) for image in images[:2]]
        time.sleep(0.5)
        edge.popen.send_signal(signal.SIGTERM)
        waits_s = [wire.parse_result(future.result()).wait_s for future in futures]
        assert edge.popen.wait(SOON_S) == 0
    assert max(waits_s) >= 1.5


def test_a_queue_of_the_command_that_is_too_short(live_bundle: Bundle) -> None:
    done = here("serve", live_bundle.path, "--batch-size", 8, "--queue", 2)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "queue of 2 is too short" in done.stderr
