"""Devices and an edge in one process and in virtual time: torch for what is computed, a calibration for how long.

Messages are encoded and decoded as on the wire; links, service times and the edge's queue and batches keep the
simulator's rules. So the same decisions and predictions must come out (tests/parity).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

from splitexit.batching import Line
from splitexit.calibration import Times
from splitexit.errors import UsageError
from splitexit.experiment import Experiment
from splitexit.fleet import require_live
from splitexit.links import Fifo
from splitexit.live.clock import Timeline
from splitexit.live.crew import ALONE
from splitexit.live.device import DeviceRuntime
from splitexit.live.edge import EdgeRuntime
from splitexit.live.model import Array, LiveModel
from splitexit.live.pace import Counted, PacedCpu
from splitexit.live.together import Together
from splitexit.live.transport import Failure, Heard
from splitexit.live.ways import fresh_ways, way_of
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
        status = job.error.status if isinstance(job.error, Refused) else None
        if job.error is None:
            back(self._runtime.reply(job), now_s)
        elif status is Status.NOT_FOUND:
            back(Failure.FORGOTTEN, now_s)
        elif status is not Status.DEADLINE_EXCEEDED:
            raise job.error


class PairTransport:
    """One device's links to an edge in the same process.

    Args:
        experiment, seed, device: where the edge's times come from.
        links: up and down, its own or its access point's.
        edge, world: what answers, and the timeline that everybody shares.
        timeline: the device's.
    """

    def __init__(
        self,
        experiment: Experiment,
        seed: int,
        device: int,
        links: tuple[Fifo, Fifo],
        edge: PairEdge,
        world: Timeline,
        timeline: Timeline,
    ) -> None:
        (self._uplink, self._downlink), self._device = links, device
        self._shared = experiment.cell(device) is not None
        self._times, self._rpc = experiment.edge_times(seed, device), experiment.edge_calibration.rpc
        self._edge, self._world, self._timeline = edge, world, timeline

    def send(self, query: Query, sent_s: float, heard: Heard) -> None:
        """See splitexit.live.transport.Transport."""
        self._world.post(sent_s, partial(self._leave, query, heard))

    def _leave(self, query: Query, heard: Heard, now_s: float) -> None:
        size_bytes, give_up_s = query.size_bytes + self._rpc.uplink_overhead_bytes, now_s + query.left_s
        times = self._times.at(query.request)
        arrive_s = self._through(self._uplink, now_s, size_bytes) + times.rpc_s
        if arrive_s < give_up_s:
            back = partial(self._send_back, heard)
            self._world.post(arrive_s, partial(self._edge.arrive, pack_query(query), give_up_s, times, back))

    def _send_back(self, heard: Heard, said: bytes | Failure, now_s: float) -> None:
        back_s = self._through(self._downlink, now_s, self._rpc.downlink_bytes)
        result = parse_result(said) if isinstance(said, bytes) else said
        if back_s < math.inf:
            self._timeline.post(back_s, partial(heard, result))

    def _through(self, link: Fifo, now_s: float, size_bytes: int) -> float:
        """When a message arrives that is offered now."""
        sender = self._device if self._shared and link.connections is not None else None
        return link.send(now_s, size_bytes, sender)[2]


def run_pair(
    experiment: Experiment,
    policy: str,
    seed: int,
    model: LiveModel,
    images: Mapping[int, Array],
    requests: int | None = None,
) -> list[Completion]:
    """The rows of all devices, computed by them and an edge that share `model`, in the order of completion.

    Raises UsageError where the scenario needs what the live system cannot do, or its edge breaks down.
    """
    scenario, rows = experiment.scenario, list[Completion]()
    require_live(scenario)
    if experiment.downtimes:
        raise UsageError(f"{scenario.file}: events: an edge in the same process does not break down")
    together = Together(experiment.total_devices)
    edge = PairEdge(experiment, model, together.world)
    ways, runs = fresh_ways(experiment, seed), []
    for number, timeline in enumerate(together.devices):
        links = ways[way_of(experiment, number)]
        way = PairTransport(experiment, seed, number, links, edge, together.world, timeline)
        cpu = PacedCpu(timeline)
        runs.append(DeviceRuntime(experiment, policy, seed, model, images, cpu, way, rows.append, number, requests).run)
    together.run(runs)
    return rows
