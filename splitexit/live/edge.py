"""What the edge does with a message, without gRPC: check it, wait for a worker, decode, run the rest.

The servicer in `server`, and the pair in one process, are both thin over this.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from splitexit.bundle import Bundle
from splitexit.calibration import Calibration, ServiceTimes, Times
from splitexit.confidence import RULES
from splitexit.decision import Plan, Reading
from splitexit.errors import PayloadError, PolicyError
from splitexit.experiment import HOST
from splitexit.hardware import named
from splitexit.inference import infer_on_edge
from splitexit.live.gate import Gate
from splitexit.live.model import Array, LiveModel
from splitexit.live.pace import Pace, Paced
from splitexit.live.wire import (
    FRAME_BYTES,
    PROTOCOL,
    Description,
    Query,
    Refused,
    Result,
    Split,
    Status,
    bundle_tag,
    check_protocol,
    pack_description,
    pack_result,
    parse_hello,
    parse_query,
)
from splitexit.recording import Recording
from splitexit.steps import ReadExit
from splitexit.streams import EDGE_TIMES, stream

Wanted = Callable[[], bool]
"""Whether anybody still waits for the answer."""


class DrawnTimes:
    """The service times that a paced edge stands for, by the seed and device that a request names.

    Args:
        calibration: of the named machine.
    """

    KEPT = 64

    def __init__(self, calibration: Calibration) -> None:
        self._calibration, self._lock = calibration, threading.Lock()
        self._times: OrderedDict[tuple[int, int], ServiceTimes] = OrderedDict()

    def of(self, query: Query) -> Times:
        """What every part of this request takes."""
        key = (query.seed, query.device)
        with self._lock:
            times = self._times.pop(key, None) or ServiceTimes(self._calibration, self._stream(*key))
            self._times[key] = times
            if len(self._times) > self.KEPT:
                self._times.popitem(last=False)
            return times.at(query.request)

    @staticmethod
    def _stream(seed: int, device: int) -> Callable[[int], np.random.Generator]:
        return lambda block: stream(seed, EDGE_TIMES, device, block)


class EdgeRuntime:
    """Serves one model.

    Args:
        model: with the codecs on offer.
        workers: requests computed at once, each on one thread.
        queue: requests that may wait; more are shed.
        hardware: the name of the machine that it stands for, and `calibration` its times; `host`: native.
    """

    def __init__(
        self,
        model: LiveModel,
        *,
        workers: int = 1,
        queue: int = 64,
        hardware: str = HOST,
        calibration: Calibration | None = None,
    ) -> None:
        self.model, self.hardware = model, hardware
        self.gate = Gate(workers, queue)
        self.tag = bundle_tag(model.digests)
        self.max_request_bytes = FRAME_BYTES + max(codec.max_bytes for codec in model.codecs.values())
        self._drawn = None if calibration is None else DrawnTimes(calibration)

    @classmethod
    def open(cls, path: Path, *, workers: int, queue: int, hardware: str) -> EdgeRuntime:
        """Serves the bundle in a folder, with every codec that it was calibrated for or recorded with.

        On the hardware `host` native, else paced to stand for that machine. Raises InputError where files do not fit.
        """
        bundle = Bundle.open(path)
        host = Calibration.load(bundle.calibration, bundle.spec)
        paced = None if hardware == HOST else named(hardware).calibrate(bundle.spec, host)
        recorded = Recording.load(bundle.recording, bundle.spec).test.pairs if bundle.recording.exists() else {}
        model = LiveModel.open(bundle, host.decode.keys() | recorded.keys())
        return cls(model, workers=workers, queue=queue, hardware=hardware, calibration=paced)

    @property
    def description(self) -> Description:
        """What this edge serves."""
        from splitexit.models.calibrate import describe_machine

        spec, pairs = self.model.spec, sorted(self.model.codecs)
        splits = sorted({split for split, _ in pairs})
        return Description(
            protocol=PROTOCOL,
            bundle=spec.name,
            digests=self.model.digests,
            stages=spec.num_stages,
            exits=len(spec.exits),
            num_classes=spec.num_classes,
            splits=tuple(Split(s, spec.shape_at(s), tuple(c for at, c in pairs if at == s)) for s in splits),
            max_request_bytes=self.max_request_bytes,
            hardware=self.hardware,
            machine={name: str(value) for name, value in describe_machine().items()},
        )

    def warm_up(self, rounds: int = 3) -> None:
        """Runs every codec and every part of the model, so that the first request takes no longer than others."""
        for split, codec in [*self.model.codecs] * rounds:
            blank = np.zeros(self.model.spec.shape_at(split), dtype=np.float32)
            payload = self.model.codecs[split, codec].encode(blank)
            query = Query(0, 0, split, codec, payload, (), 1.0, self.tag)
            self.work(query, Pace(time.monotonic()), lambda: True)

    def describe(self, body: bytes) -> bytes:
        """DescribeRequest to DescribeReply; raises Refused."""
        check_protocol(parse_hello(body))
        return pack_description(self.description)

    def infer(self, body: bytes, wanted: Wanted) -> bytes:
        """InferRequest to InferReply; raises Refused.

        Args:
            wanted: asked before the work starts and between its parts.
        """
        arrived_s = time.monotonic()
        query = self.admit(body)
        give_up_s = arrived_s + query.left_s
        if not self.gate.enter(query.left_s):
            raise Refused(Status.DEADLINE_EXCEEDED, "no worker was free in time")
        try:
            start_s = time.monotonic()
            pace = Pace(start_s) if self._drawn is None else Paced(start_s, self._drawn.of(query))
            reading = self.work(query, pace, lambda: time.monotonic() < give_up_s and wanted())
            compute_s = pace.elapsed_s
        finally:
            self.gate.leave()
        parts_s = tuple(pace.parts_s) if query.timed else ()
        return self.reply(query, reading, start_s - arrived_s, compute_s, self.gate.present, parts_s)

    def admit(self, body: bytes) -> Query:
        """The request in a message, if this edge can serve it; raises Refused."""
        query = parse_query(body)
        check_protocol(query.protocol)
        if query.bundle != self.tag:
            raise Refused(Status.FAILED_PRECONDITION, f"made for another bundle than {self.model.spec.name!r} here")
        codec = self.model.codecs.get((query.split, query.codec))
        if codec is None:
            raise Refused(Status.FAILED_PRECONDITION, f"codec {query.codec!r} at split {query.split} is not served")
        if len(query.payload) > codec.max_bytes:
            size = len(query.payload)
            raise Refused(Status.RESOURCE_EXHAUSTED, f"payload of {size} bytes; {codec.max_bytes} at most")
        self._check_exits(query)
        return query

    def _check_exits(self, query: Query) -> None:
        unknown = [check.rule for check in query.exits if check.rule not in RULES]
        if unknown:
            raise Refused(Status.INVALID_ARGUMENT, f"exit rule {unknown[0]!r}; known: {', '.join(RULES)}")
        try:
            Plan(split=query.split, codec=query.codec, edge_exits=query.exits).check(self.model.spec)
        except PolicyError as error:
            raise Refused(Status.INVALID_ARGUMENT, str(error)) from None

    def work(self, query: Query, pace: Pace, wanted: Wanted) -> Reading:
        """Decodes, then runs what follows the split; raises Refused, between two parts, if nobody waits any more."""
        self._stop_unless(wanted)
        pair, model = (query.split, query.codec), self.model
        try:
            features = model.codecs[pair].decode(query.payload)
        except PayloadError as error:
            raise Refused(Status.INVALID_ARGUMENT, str(error)) from None
        pace.did(lambda times: times.decode_s(pair))
        steps = infer_on_edge(model.spec, query.split, query.exits)
        result: Any = None
        try:
            while True:
                step = steps.send(result)
                assert isinstance(step, ReadExit)  # an edge that has all stages is asked for nothing else
                features = self._run(features, step, pace, wanted)
                self._stop_unless(wanted)
                result = self._read(features, step, pace)
        except StopIteration as done:
            reading: Reading = done.value
            return reading

    def _run(self, features: Array, step: ReadExit, pace: Pace, wanted: Wanted) -> Array:
        for stage in range(step.first, step.last):
            self._stop_unless(wanted)
            features = self.model.net.run_stages(features, stage, stage + 1)
            pace.did(partial(Times.run_s, first=stage, last=stage + 1))
        return features

    def _read(self, features: Array, step: ReadExit, pace: Pace) -> tuple[Reading, float]:
        reading = self.model.read(features, step.exit)
        pace.did(lambda times: times.exits[step.exit])
        return reading, 0.0

    @staticmethod
    def _stop_unless(wanted: Wanted) -> None:
        if not wanted():
            raise Refused(Status.DEADLINE_EXCEEDED, "nobody waits any more")

    def reply(
        self,
        query: Query,
        reading: Reading,
        wait_s: float,
        compute_s: float,
        queue_length: int,
        parts_s: tuple[float, ...] = (),
    ) -> bytes:
        """The InferReply for a reading."""
        assert reading.logits is not None
        result = Result(
            query.request,
            reading.exit,
            reading.prediction,
            reading.logits,
            wait_s,
            compute_s,
            queue_length,
            self.tag,
            parts_s,
        )
        return pack_result(result)
