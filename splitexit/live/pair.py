"""A device and an edge in one process and in virtual time: torch for what is computed, a calibration for how long.

Messages are encoded and decoded as on the wire; links, service times and the edge's queue keep the
simulator's rules. So the same decisions and predictions must come out (tests/parity).
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from functools import partial

from splitexit.experiment import Experiment
from splitexit.live.clock import Timeline, VirtualTimeline
from splitexit.live.device import DeviceRuntime
from splitexit.live.edge import EdgeRuntime
from splitexit.live.model import Array, LiveModel
from splitexit.live.pace import Counted, PacedCpu
from splitexit.live.transport import Heard
from splitexit.live.wire import Query, Refused, Status, pack_query, parse_result
from splitexit.results import Completion


class PairTransport:
    """One device's links to an edge in the same process.

    Args:
        experiment, seed, device: where links and the edge's times come from.
        edge: what answers.
        timeline: the device's.
    """

    def __init__(self, experiment: Experiment, seed: int, device: int, edge: EdgeRuntime, timeline: Timeline) -> None:
        self._uplink, self._downlink = experiment.uplink(seed, device), experiment.downlink(seed, device)
        self._times, self._rpc = experiment.edge_times(seed, device), experiment.edge_calibration.rpc
        self._edge, self._timeline = edge, timeline
        self._free_s, self._present = [0.0] * experiment.scenario.edge.workers, 0

    def send(self, query: Query, sent_s: float, heard: Heard) -> None:
        """See splitexit.live.transport.Transport."""
        size_bytes = len(query.payload) + self._rpc.uplink_overhead_bytes
        arrive_s = self._uplink.send(sent_s, size_bytes)[2] + self._times.at(query.request).rpc_s
        give_up_s = sent_s + query.left_s
        if arrive_s < give_up_s:
            self._timeline.post(arrive_s, partial(self._arrive, pack_query(query), give_up_s, heard))

    def _arrive(self, body: bytes, give_up_s: float, heard: Heard, now_s: float) -> None:
        start_s = max(now_s, self._free_s[0])
        if start_s >= give_up_s:
            return
        query = self._edge.admit(body)
        pace = Counted(start_s, self._times.at(query.request))
        try:
            reading = self._edge.work(query, pace, lambda: start_s + pace.elapsed_s < give_up_s)
        except Refused as refused:
            if refused.status is not Status.DEADLINE_EXCEEDED:
                raise
            reading = None
        self._present += 1
        done_s = start_s + pace.elapsed_s
        heapq.heapreplace(self._free_s, done_s)

        def leave(at_s: float) -> None:
            self._present -= 1
            if reading is not None:
                reply = self._edge.reply(query, reading, start_s - now_s, pace.elapsed_s, self._present)
                back_s = self._downlink.send(at_s, self._rpc.downlink_bytes)[2]
                self._timeline.post(back_s, partial(_deliver, reply, heard))

        self._timeline.post(done_s, leave)


def _deliver(body: bytes, heard: Heard, now_s: float) -> None:
    heard(parse_result(body), now_s)


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
    transport = PairTransport(experiment, seed, 0, EdgeRuntime(model), timeline)
    device = DeviceRuntime(
        experiment, policy, seed, model, images, PacedCpu(timeline), transport, rows.append, requests=requests
    )
    device.run()
    return rows
