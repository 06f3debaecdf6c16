"""What a scenario's devices share in the simulated world, built from an experiment."""

from __future__ import annotations

from functools import cache, partial

from splitexit.experiment import CLOUD_CODEC, Experiment
from splitexit.fleet import Cell, Downtime
from splitexit.links import Fifo
from splitexit.links.sharing import Sharing
from splitexit.results import CLOUD, EDGE
from splitexit.scenario import Edge
from splitexit.sim.batch import BatchServer
from splitexit.sim.calendar import Calendar, Event
from splitexit.sim.device import Device
from splitexit.sim.lane import FifoLane, Lane, SharedLane
from splitexit.sim.server import Server
from splitexit.sim.tier import Onward, Tier
from splitexit.sim.transport import Transport


class World:
    """Edge, cloud and access points of one run.

    Args:
        experiment, seed: where everything comes from.
        calendar: the run's.
    """

    def __init__(self, experiment: Experiment, seed: int, calendar: Calendar) -> None:
        self._experiment, self._seed, self._calendar = experiment, seed, calendar
        self._cells: dict[int, tuple[Lane, Lane]] = {}
        cloud = experiment.scenario.cloud
        stages = experiment.spec.num_stages
        self.edge = self._tier(EDGE, stages if cloud is None else cloud.split, experiment.scenario.edge)
        if cloud is not None:
            self._put_behind(self._tier(CLOUD, stages, cloud), cloud.split)
        for downtime in experiment.downtimes:
            self._schedule(downtime)

    def _tier(self, name: str, until: int, config: Edge) -> Tier:
        experiment, calendar = self._experiment, self._calendar
        tier = Tier(calendar, experiment.spec, name, until, config.balancer)
        batching, calibration = config.batching, experiment.edge_calibration
        for _ in range(config.servers):
            if batching is None:
                tier.servers.append(Server(calendar, tier, config.workers, config.queue))
            else:
                wait_s, factor = batching.max_wait_ms / 1000.0, calibration.batch_factor
                tier.servers.append(
                    BatchServer(calendar, tier, config.workers, config.queue, batching.max_size, wait_s, factor)
                )
        return tier

    def _put_behind(self, cloud: Tier, split: int) -> None:
        """Connects the edge to the cloud."""
        experiment, seed, calendar = self._experiment, self._seed, self._calendar
        rpc = experiment.edge_calibration.rpc
        pair = experiment.recording.test.pairs.get((split, CLOUD_CODEC))
        size_bytes = 0 if pair is None else int(pair.payload_bytes[0]) + rpc.uplink_overhead_bytes
        uplink = FifoLane(calendar, experiment.cloud_uplink(seed))
        times = cache(lambda device: experiment.cloud_times(seed, device))
        self.edge.onward = Onward(cloud, uplink, split, CLOUD_CODEC, size_bytes, times)
        cloud.back = FifoLane(calendar, experiment.cloud_downlink(seed)), rpc.downlink_bytes

    def _schedule(self, downtime: Downtime) -> None:
        for number in downtime.servers:
            server = self.edge.servers[number]
            self._calendar.put(downtime.start_s, Event(), (partial(self._fail, server),))
            if downtime.end_s < float("inf"):
                self._calendar.put(downtime.end_s, Event(), (partial(self._recover, server),))

    @staticmethod
    def _recover(server: Server, _: Event) -> None:
        server.recover()

    @staticmethod
    def _fail(server: Server, _: Event) -> None:
        for job in server.fail():
            job.home.reset(job)

    def connect(self, device: Device, number: int) -> None:
        """Gives a device its way to the edge."""
        experiment, seed = self._experiment, self._seed
        uplink, downlink = self._lanes(number)
        device.transport = Transport(
            self._calendar,
            self.edge,
            uplink,
            downlink,
            experiment.edge_times(seed, number),
            experiment.edge_calibration.rpc,
            device.sense,
            device.heard,
        )

    def _lanes(self, number: int) -> tuple[Lane, Lane]:
        experiment, seed = self._experiment, self._seed
        cell = experiment.cell(number)
        if cell is None:
            up, down = experiment.uplink(seed, number), experiment.downlink(seed, number)
            return FifoLane(self._calendar, up, radio=True), FifoLane(self._calendar, down)
        if cell.index not in self._cells:
            self._cells[cell.index] = self._shared_lanes(cell)
        return self._cells[cell.index]

    def _shared_lanes(self, cell: Cell) -> tuple[Lane, Lane]:
        experiment, seed = self._experiment, self._seed
        up, down = experiment.cell_uplink(seed, cell), experiment.cell_downlink(seed, cell)
        return self._shared(up, True), self._shared(down, False)

    def _shared(self, link: Fifo | Sharing, radio: bool) -> Lane:
        if isinstance(link, Sharing):
            return SharedLane(self._calendar, link, radio=radio)
        return FifoLane(self._calendar, link, radio=radio, shared=link.connections is not None)
