"""What may be known of a group of devices before a run: the setting that its policies get, and how it takes energy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from splitexit import energy
from splitexit.calibration import Calibration
from splitexit.decision import LinkEstimate, Setting
from splitexit.fleet import Group

if TYPE_CHECKING:
    from splitexit.experiment import Experiment


def setting_of(experiment: Experiment, group: Group) -> Setting:
    """What every policy of a group may know beforehand."""
    scenario, device = experiment.scenario, experiment.device_calibration(group)
    return Setting(
        spec=experiment.spec,
        device=device,
        edge=experiment.edge_calibration,
        codecs=_codecs(experiment, device),
        calibration=experiment.recording.calibration,
        link=_prior(experiment, group),
        utility=scenario.utility,
        deadline_s=group.config.deadline_s,
        retries=group.config.retries,
        edge_workers=scenario.edge.workers,
        edge_servers=scenario.edge.servers,
        energy=experiment.energy_model(group),
        cloud_split=None if scenario.cloud is None else scenario.cloud.split,
    )


def energy_model(experiment: Experiment, group: Group) -> energy.Model:
    """How the devices of a group take energy, as far as the scenario says so or figures were published."""
    given, (up, down) = group.config.energy, experiment.scenario.links(group.config)
    rpc = experiment.edge_calibration.rpc
    return energy.model(
        group.config.hardware,
        up.name,
        compute_w=given.compute_w,
        idle_w=given.idle_w,
        radio_name=given.radio,
        first=group.first,
        count=group.count,
        sent_bytes=rpc.uplink_overhead_bytes,
        reply_bytes=rpc.downlink_bytes,
        downlink_bps=experiment.links.of(down).mean_bps,
    )


def _codecs(experiment: Experiment, device: Calibration) -> dict[int, tuple[str, ...]]:
    """The recorded pairs whose encode and decode times were measured too."""
    timed = device.encode.keys() & experiment.edge_calibration.decode.keys()
    recorded = experiment.recording.codecs().items()
    offered = {split: tuple(codec for codec in codecs if (split, codec) in timed) for split, codecs in recorded}
    return {split: codecs for split, codecs in offered.items() if codecs}


def _prior(experiment: Experiment, group: Group) -> LinkEstimate:
    """The links' nominal figures, as a device would have them from its contract or a probe."""
    rpc = experiment.edge_calibration.rpc
    up, down = map(experiment.links.of, experiment.scenario.links(group.config))
    reply_s = 8.0 * rpc.downlink_bytes / down.mean_bps
    return LinkEstimate(up.mean_bps, up.delay_s + down.delay_s + reply_s + rpc.seconds.mean)
