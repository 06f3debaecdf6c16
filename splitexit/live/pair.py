"""Devices and an edge in one process and in virtual time: torch for what is computed, a calibration for how long.

Messages are encoded and decoded as on the wire; links, service times and the edge's queue and batches keep the
simulator's rules. So the same decisions and predictions must come out (tests/parity).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from splitexit.batching import Line
from splitexit.calibration import Times
from splitexit.experiment import Experiment
from splitexit.live.clock import Timeline, VirtualTimeline
from splitexit.live.crew import ALONE
from splitexit.live.device import DeviceRuntime
from splitexit.live.edge import EdgeRuntime
from splitexit.live.model import Array, LiveModel
from splitexit.live.pace import Counted, PacedCpu
from splitexit.live.transport import Failure, Heard
from splitexit.live.wire import Query, Refused, Status, pack_query, parse_result
from splitexit.live.work import EdgeJob, TorchWorker
from splitexit.results import Completion

Back = Callable[[bytes | Failure, float], None]
"""Takes a reply, or a refusal for want of room, and when it leaves the edge."""


class PairEdge:
    """The scenario's edge in virtual time.

    Args:
        experiment: with its queue, workers, batches and calibration.
        model: what computes.
        timeline: of the world.
    """

    def __init__(self, experiment: Experiment, model: LiveModel, timeline: Timeline) -> None:
        edge = experiment.scenario.edge
        batching = edge.batching or ALONE
        self._line: Line[EdgeJob] = Line(
            edge.workers, edge.queue, batching.max_size, batching.max_wait_s, self._start, self._alarm
        )
        self._runtime, self._model, self._timeline = EdgeRuntime(model), model, timeline
        self._factor = experiment.edge_calibration.batch_factor
        self._running, self._back = 0, dict[EdgeJob, Back]()

    def arrive(self, body: bytes, give_up_s: float, times: Times, back: Back, now_s: float) -> None:
        """An InferRequest is here."""
        if give_up_s <= now_s:
            return  # refused on sight: nobody waits any more
        job = EdgeJob(self._runtime.admit(body), now_s, give_up_s, lambda: True, times)
        self._back[job] = back
        if not self._line.arrive(job, now_s):
            self._back.pop(job)(Failure.SHED, now_s)

    def _alarm(self, due_s: float) -> None:
        self._timeline.post(due_s, self._line.dispatch)

    def _start(self, jobs: list[EdgeJob], now_s: float) -> None:
        over: list[EdgeJob] = []
        worker = TorchWorker(self._model, jobs, Counted(now_s, self._factor), over.append)
        for _ in worker.course:
            pass
        self._running += len(jobs)
        for job in over:
            self._timeline.post(job.end_s, partial(self._leave, job))
        self._timeline.post(worker.pace.now_s, self._line.free)

    def _leave(self, job: EdgeJob, now_s: float) -> None:
        self._running -= 1
        job.queue_length = self._running + self._line.length(now_s)
        back = self._back.pop(job)
        if job.error is None:
            back(self._runtime.reply(job), now_s)
        elif not isinstance(job.error, Refused) or job.error.status is not Status.DEADLINE_EXCEEDED:
            raise job.error


class PairTransport:
    """One device's links to an edge in the same process.

    Args:
        experiment, seed, device: where links and the edge's times come from.
        edge: what answers.
        timeline: the device's.
    """

    def __init__(self, experiment: Experiment, seed: int, device: int, edge: PairEdge, timeline: Timeline) -> None:
        self._uplink, self._downlink = experiment.uplink(seed, device), experiment.downlink(seed, device)
        self._times, self._rpc = experiment.edge_times(seed, device), experiment.edge_calibration.rpc
        self._edge, self._timeline = edge, timeline

    def send(self, query: Query, sent_s: float, heard: Heard) -> None:
        """See splitexit.live.transport.Transport."""
        size_bytes = len(query.payload) + self._rpc.uplink_overhead_bytes
        times = self._times.at(query.request)
        arrive_s = self._uplink.send(sent_s, size_bytes)[2] + times.rpc_s
        back = partial(self._send_back, heard)
        arrive = partial(self._edge.arrive, pack_query(query), sent_s + query.left_s, times, back)
        self._timeline.post(arrive_s, arrive)

    def _send_back(self, heard: Heard, said: bytes | Failure, leaves_s: float) -> None:
        back_s = self._downlink.send(leaves_s, self._rpc.downlink_bytes)[2]
        result = parse_result(said) if isinstance(said, bytes) else said
        self._timeline.post(back_s, partial(heard, result))


def run_pair(
    experiment: Experiment,
    policy: str,
    seed: int,
    model: LiveModel,
    images: Mapping[int, Array],
    requests: int | None = None,
) -> list[Completion]:
    """The rows of device 0, computed by a device and an edge that share `model`, in the order of completion."""
    timeline, rows = VirtualTimeline(), list[Completion]()
    transport = PairTransport(experiment, seed, 0, PairEdge(experiment, model, timeline), timeline)
    device = DeviceRuntime(
        experiment, policy, seed, model, images, PacedCpu(timeline), transport, rows.append, requests=requests
    )
    device.run()
    return rows
