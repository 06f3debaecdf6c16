"""Over which link every device of an experiment sends, and the links as they are when a run begins."""

from __future__ import annotations

from splitexit.errors import UsageError
from splitexit.experiment import Experiment
from splitexit.links import Fifo

Ways = dict[str, tuple[Fifo, Fifo]]
"""Up and down, by the name of the link."""


def way_of(experiment: Experiment, device: int) -> str:
    """The name of the link that a device sends over: its own, or that of its access point."""
    cell = experiment.cell(device)
    return f"device {device}" if cell is None else f"{cell.label} {cell.number}"


def require_fifo(experiment: Experiment) -> None:
    """Raises UsageError, naming the key, where an access point does not serve first come, first served."""
    for label, point in experiment.scenario.access_points.items():
        if point.sharing != "fifo":
            where = f"{experiment.scenario.file}: access_points.{label}.sharing"
            raise UsageError(f"{where}: a real network here serves packets first come, first served; try fifo")


def fresh_ways(experiment: Experiment, seed: int) -> Ways:
    """All links in use, under the scenario's events, with their chance as this seed draws it."""
    ways = Ways()
    for device in range(experiment.total_devices):
        name, cell = way_of(experiment, device), experiment.cell(device)
        if name in ways:
            continue
        if cell is None:
            ways[name] = experiment.uplink(seed, device), experiment.downlink(seed, device)
            continue
        up, down = experiment.cell_uplink(seed, cell), experiment.cell_downlink(seed, cell)
        assert isinstance(up, Fifo), "see require_fifo"
        assert isinstance(down, Fifo), "see require_fifo"
        ways[name] = up, down
    return ways
