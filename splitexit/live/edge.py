"""What the edge does with a message, without gRPC: check it, have it computed, answer.

The servicer in `server`, and the pair in one process, are both thin over this.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from splitexit.bundle import Bundle
from splitexit.calibration import Calibration, Pair, ServiceTimes, Times
from splitexit.confidence import RULES, remaining
from splitexit.decision import ExitCheck, Plan
from splitexit.errors import PolicyError, UsageError
from splitexit.experiment import HOST
from splitexit.hardware import calibration_on
from splitexit.inference import adds_to_device
from splitexit.live.crew import ALONE, Crew
from splitexit.live.model import LiveModel
from splitexit.live.pace import Pace, Paced
from splitexit.live.wire import (
    CLASS_BYTES,
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
from splitexit.live.work import EdgeJob, TorchWorker, Wanted
from splitexit.recording import Recording
from splitexit.scenario.sections import Batching
from splitexit.streams import EDGE_TIMES, stream


class DrawnTimes:
    """The service times that a paced edge stands for, by the seed and device that a request names.

    Args:
        calibration: of the named machine.
    """

    KEPT = 64

    def __init__(self, calibration: Calibration) -> None:
        self._calibration, self._lock = calibration, threading.Lock()
        self._times: OrderedDict[tuple[int, int], ServiceTimes] = OrderedDict()
        ServiceTimes(calibration, self._stream(0, 0)).at(0)  # loads what drawing needs, before the first request

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
        workers: requests, or batches of them, that are computed at once, each on one thread.
        queue: requests that may wait; more are shed. None: any number.
        batching: whether and how requests are computed together; None: one at a time.
        hardware: the name of the machine that it stands for, and `calibration` its times; `host`: native.

    capacity  requests that it holds at most, working and waiting; None: any number

    Raises UsageError where the queue is too short for a batch.
    """

    def __init__(
        self,
        model: LiveModel,
        *,
        workers: int = 1,
        queue: int | None = 64,
        batching: Batching | None = None,
        hardware: str = HOST,
        calibration: Calibration | None = None,
    ) -> None:
        batching = batching or ALONE
        if queue is not None and queue < batching.max_size - 1:
            raise UsageError(f"a queue of {queue} is too short for those that wait for a batch of {batching.max_size}")
        self.model, self.hardware, self.batching = model, hardware, batching
        self.tag = bundle_tag(model.digests)
        largest = max(codec.max_bytes for codec in model.codecs.values())
        self.max_request_bytes = FRAME_BYTES + CLASS_BYTES * model.spec.num_classes + largest
        self._drawn = None if calibration is None else DrawnTimes(calibration)
        pace = Pace if calibration is None else partial(Paced, factor=calibration.batch_factor)
        self.crew = Crew(model, workers, queue, batching, pace)
        self.capacity = None if queue is None else workers * batching.max_size + queue

    @classmethod
    def open(
        cls, path: Path, *, workers: int, queue: int | None, hardware: str, batching: Batching | None = None
    ) -> EdgeRuntime:
        """Serves the bundle in a folder, with every codec that it was calibrated for or recorded with.

        On the hardware `host` native, else paced to stand for that machine (a name, or the path of its
        calibration.json). Raises InputError where files do not fit.
        """
        bundle = Bundle.open(path)
        host = Calibration.load(bundle.calibration, bundle.spec)
        paced = None if hardware == HOST else calibration_on(hardware, bundle.spec, host)
        recorded = Recording.load(bundle.recording, bundle.spec).test.pairs if bundle.recording.exists() else {}
        model = LiveModel.open(bundle, host.decode.keys() | recorded.keys())
        return cls(model, workers=workers, queue=queue, batching=batching, hardware=hardware, calibration=paced)

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
        largest = self.batching.max_size
        sizes = {2**k for k in range(1, largest.bit_length())} | {largest} - {1}
        one_of_each_split = {split: (split, codec) for split, codec in self.model.codecs}.values()
        for _ in range(rounds):
            for pair in self.model.codecs:
                self._try_out(pair, 1)
            for size, pair in product(sorted(sizes), one_of_each_split):
                self._try_out(pair, size)

    def _try_out(self, pair: Pair, size: int) -> None:
        split, codec = pair
        blank = np.zeros(self.model.spec.shape_at(split), dtype=np.float32)
        query = Query(0, 0, split, codec, self.model.codecs[pair].encode(blank), (), 1.0, self.tag)
        jobs = [EdgeJob(query, 0.0, math.inf, lambda: True) for _ in range(size)]
        for _ in TorchWorker(self.model, jobs, Pace(0.0)).course:
            pass

    def describe(self, body: bytes) -> bytes:
        """DescribeRequest to DescribeReply; raises Refused."""
        check_protocol(parse_hello(body))
        return pack_description(self.description)

    def infer(self, body: bytes, wanted: Wanted) -> bytes:
        """InferRequest to InferReply; raises Refused.

        Args:
            wanted: asked before the work starts and between its parts.
        """
        arrive_s = time.monotonic()
        query = self.admit(body)
        times = None if self._drawn is None else self._drawn.of(query)
        job = EdgeJob(query, arrive_s, arrive_s + query.left_s, wanted, times)
        self.crew.serve(job)
        return self.reply(job)

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
        self._check_prior(query)
        return query

    def _check_exits(self, query: Query) -> None:
        unknown = [check.rule for check in query.exits if check.rule not in RULES]
        if unknown:
            raise Refused(Status.INVALID_ARGUMENT, f"exit rule {unknown[0]!r}; known: {', '.join(RULES)}")
        spec = self.model.spec
        read = spec.early_exits(query.split) if query.evidence else ()
        try:
            Plan(tuple(map(ExitCheck, read)), query.split, query.codec, query.exits).check(spec)
        except PolicyError as error:
            raise Refused(Status.INVALID_ARGUMENT, str(error)) from None

    def _check_prior(self, query: Query) -> None:
        spec, ruled_out = self.model.spec, query.ruled_out
        if ruled_out.bit_length() > spec.num_classes or ruled_out.bit_count() == spec.num_classes:
            raise Refused(
                Status.INVALID_ARGUMENT, f"ruled_out leaves none of {spec.num_classes} classes, or names others"
            )
        expected = spec.num_classes if adds_to_device(query.exits, spec) else 0
        if len(query.evidence) != expected:
            found = len(query.evidence)
            raise Refused(Status.INVALID_ARGUMENT, f"evidence of {found} numbers; these exits need {expected}")

    def reply(self, job: EdgeJob) -> bytes:
        """The InferReply for a job that has its reading."""
        query, reading = job.query, job.reading
        assert reading.logits is not None
        left = remaining(reading.ruled_out, len(reading.logits))
        result = Result(
            query.request,
            reading.exit,
            reading.prediction,
            reading.logits[left],
            job.start_s - job.arrive_s,
            job.end_s - job.start_s,
            job.queue_length,
            self.tag,
            tuple(job.parts_s) if query.timed else (),
            reading.confidence,
            reading.ruled_out,
        )
        return pack_result(result)
