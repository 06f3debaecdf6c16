"""What may be known of a group of devices before a run: the setting that its policies get, and how it takes energy.

A mode of the devices is their setting once more, with the times, codecs and energy that they have in it. Between
requests they wait as their `hardware` does, so a mode takes their idle power.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from splitexit import energy, hardware
from splitexit.calibration import Calibration
from splitexit.decision import LinkEstimate, Setting
from splitexit.fleet import Group
from splitexit.scenario import Mode
from splitexit.scenario.strict_yaml import Keys

if TYPE_CHECKING:
    from splitexit.experiment import Experiment


def setting_of(experiment: Experiment, group: Group) -> Setting:
    """What every policy of a group may know beforehand."""
    scenario, device = experiment.scenario, experiment.device_calibration(group)
    taken = experiment.energy_model(group)
    plain = Setting(
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
        energy=taken,
        cloud_split=None if scenario.cloud is None else scenario.cloud.split,
    )
    modes = {
        name: replace(plain, device=times, codecs=_codecs(experiment, device, times), energy=taken.in_mode(name))
        for name, times in experiment.mode_calibrations(group).items()
    }
    return replace(plain, modes=modes)


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
        modes={name: _compute_w(mode) for name, mode in group.config.modes.items()},
        first=group.first,
        count=group.count,
        sent_bytes=rpc.uplink_overhead_bytes,
        reply_bytes=rpc.downlink_bytes,
        downlink_bps=experiment.links.of(down).mean_bps,
    )


def _compute_w(mode: Mode) -> float | None:
    """Watts while the devices compute in that mode; None where nobody says."""
    if mode.energy.compute_w is not None:
        return mode.energy.compute_w
    published = hardware.named(mode.hardware).power if mode.hardware in hardware.names() else None
    return None if published is None else published.compute_w


def mode_misfits(experiment: Experiment) -> Iterator[tuple[Keys, str]]:
    """Modes whose power contradicts that of the devices, each with what is wrong."""
    for group in experiment.groups:
        power = experiment.energy_model(group).power
        if power is None:
            continue
        for name, mode in group.config.modes.items():
            path = (*experiment.scenario.place(group.label), "modes", name)
            compute_w, idle_w = _compute_w(mode), mode.energy.idle_w
            if compute_w is not None and compute_w < power.idle_w:
                yield path, f"computes at {compute_w:g} W; the devices wait at {power.idle_w:g} W, so at least that"
            if idle_w is not None and idle_w != power.idle_w:
                waits = f"whatever its modes, a device waits at {power.idle_w:g} W"
                yield (*path, "energy", "idle_w"), f"found {idle_w:g}; {waits}; leave it out"


def _codecs(experiment: Experiment, *device: Calibration) -> dict[int, tuple[str, ...]]:
    """The recorded pairs whose encode and decode times were measured too."""
    timed = experiment.edge_calibration.decode.keys() & set.intersection(*(set(of.encode) for of in device))
    recorded = experiment.recording.codecs().items()
    offered = {split: tuple(codec for codec in codecs if (split, codec) in timed) for split, codecs in recorded}
    return {split: codecs for split, codecs in offered.items() if codecs}


def _prior(experiment: Experiment, group: Group) -> LinkEstimate:
    """The links' nominal figures, as a device would have them from its contract or a probe."""
    rpc = experiment.edge_calibration.rpc
    up, down = map(experiment.links.of, experiment.scenario.links(group.config))
    reply_s = 8.0 * rpc.downlink_bytes / down.mean_bps
    return LinkEstimate(up.mean_bps, up.delay_s + down.delay_s + reply_s + rpc.seconds.mean)
