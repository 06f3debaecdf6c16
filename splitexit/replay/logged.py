"""An experiment whose requests and links are those of a log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from splitexit.errors import ArtifactError
from splitexit.experiment import Experiment, Workload
from splitexit.fleet import Cell
from splitexit.links import Fifo, Link
from splitexit.links.constant import Constant
from splitexit.links.modulated import Modulated
from splitexit.links.sharing import Sharing
from splitexit.replay.links import Measured, measure, uploads
from splitexit.results import column


@dataclass(frozen=True)
class Path:
    """Links there and back, of a device or an access point."""

    up: Link
    down: Link
    measured: Measured


@dataclass(frozen=True, kw_only=True)
class Logged(Experiment):
    """An experiment whose requests, and links where they were measured, are those of a log.

    log    device -> its rows, in the order of requests without a gap
    paths  by the number of a device with links of its own
    cells  by the index of an access point
    """

    log: Mapping[int, pa.Table]
    own: Mapping[int, Path]
    shared: Mapping[int, Path]

    def workload(self, seed: int, device: int, requests: int | None = None) -> Workload:
        """The requests of the log, however many were asked for."""
        rows = self.log.get(device)
        drawn = super().workload(seed, device, 0 if rows is None else len(rows))
        if rows is None:
            return drawn
        samples, test = column(rows, "sample"), self.recording.test
        order = np.argsort(test.sample)
        at = order[np.minimum(np.searchsorted(test.sample, samples, sorter=order), len(test) - 1)]
        labels = column(rows, "label")
        if (test.sample[at] != samples).any() or (test.label[at] != labels).any():
            raise ArtifactError(f"{self.bundle.recording}: it was made of other images than this run saw")
        arrival_s = None if drawn.arrival_s is None else column(rows, "arrival_s").tolist()
        return replace(
            drawn, positions=at.tolist(), samples=samples.tolist(), labels=labels.tolist(), arrival_s=arrival_s
        )

    def uplink(self, seed: int, device: int) -> Fifo:
        """As measured, if it was."""
        return Fifo(self.own[device].up) if device in self.own else super().uplink(seed, device)

    def downlink(self, seed: int, device: int) -> Fifo:
        """Likewise."""
        return Fifo(self.own[device].down) if device in self.own else super().downlink(seed, device)

    def cell_uplink(self, seed: int, cell: Cell) -> Fifo | Sharing:
        """Likewise, with the discipline of the access point."""
        if cell.index not in self.shared:
            return super().cell_uplink(seed, cell)
        return _disciplined(self.shared[cell.index].up, cell)

    def cell_downlink(self, seed: int, cell: Cell) -> Fifo | Sharing:
        """Likewise."""
        if cell.index not in self.shared:
            return super().cell_downlink(seed, cell)
        return _disciplined(self.shared[cell.index].down, cell)


def _disciplined(link: Link, cell: Cell) -> Fifo | Sharing:
    return Fifo(link) if cell.config.sharing == "fifo" else Sharing(link)


def logged(experiment: Experiment, rows: pa.Table) -> Logged:
    """The experiment with the requests of these rows (by device and request), and the links of the scenario."""
    numbers, starts, counts = np.unique(column(rows, "device"), return_index=True, return_counts=True)
    parts = zip(numbers.tolist(), starts.tolist(), counts.tolist(), strict=True)
    log = {number: rows.slice(start, count) for number, start, count in parts}
    scenario, bundle, recording = experiment.scenario, experiment.bundle, experiment.recording
    return Logged(scenario, bundle, recording, experiment.host, experiment.subset, log=log, own={}, shared={})


def with_links(plain: Logged, seed: int) -> Logged:
    """The same with measured links, wherever one can be measured; `seed` draws what fills in."""
    alone = [device for device in plain.log if plain.cell(device) is None]
    own = {device: _path(plain, [device], None, plain.uplink(seed, device).link) for device in alone}
    shared = {}
    for cell in plain.cells:
        if devices := [device for device in plain.log if plain.cell(device) == cell]:
            shared[cell.index] = _path(plain, devices, cell, plain.cell_uplink(seed, cell).link)
    return replace(
        plain,
        own={device: path for device, path in own.items() if path},
        shared={index: path for index, path in shared.items() if path},
    )


def _path(plain: Logged, devices: Sequence[int], cell: Cell | None, scenario: Link) -> Path | None:
    """The links of a device, or of all that are on an access point, as measured; None if nothing was."""
    group, rpc = plain.group(devices[0]), plain.edge_calibration.rpc
    found = uploads(pa.concat_tables([plain.log[device] for device in devices]), rpc, scenario.transport == "tcp")
    if not found.known.any():
        return None
    end_s = max(float(column(plain.log[device], "done_s").max()) for device in devices)
    at_once = cell is not None and cell.config.sharing == "processor"
    measured = measure(found, plain.setting(group).link, rpc, scenario, end_s, at_once)
    down: Link = plain.scenario.links(group.config)[1].create()
    # The reply's own time is part of the base; what is left divides as the scenario's delays do.
    delay_s = max(0.0, measured.base_s - 8.0 * rpc.downlink_bytes / down.mean_bps)
    nominal_s = scenario.delay_s + down.delay_s
    up_s = delay_s * (scenario.delay_s / nominal_s if nominal_s else 0.5)
    back: Link = Constant(mbps=down.mean_bps / 1e6, delay_ms=1e3 * (delay_s - up_s))
    if windows := plain.links.windows(cell.label if cell else group.label, 1):
        back = Modulated(back, windows)
    return Path(measured.uplink(scenario, up_s), back, measured)
