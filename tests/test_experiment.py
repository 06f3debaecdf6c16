"""Experiments by group: numbers, calibrations, settings, links, policies, requests, and events on all of them."""

from __future__ import annotations

import pickle
import time
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitexit.arrivals import Intensity
from splitexit.calibration import Distribution
from splitexit.errors import InputError
from splitexit.experiment import Experiment
from splitexit.fleet import Downtime
from splitexit.links import Fifo
from splitexit.links.modulated import Modulated
from splitexit.links.sharing import Sharing
from splitexit.scenario import OWN
from splitexit.streams import ARRIVALS, CELL_UPLINK, DEVICE_TIMES, UPLINK, stream
from tests import synthetic

GROUPS = {
    "cameras": {"count": 3, "access_point": "cell"},
    "phones": {
        "count": 2,
        "hardware": "raspberry-pi-4",
        "policy": "threshold",
        "deadline_ms": 50,
        "retries": 1,
        "arrivals": {"name": "periodic", "rate_hz": 2},
        "uplink": {"name": "constant", "mbps": 1.0},
    },
}
POINTS = {"cell": {"count": 2, "uplink": {"name": "constant", "mbps": 3.0, "jitter_ms": 2}}}


def world(folder: Path, **changes: Any) -> Experiment:
    """Two groups, two access points."""
    return synthetic.experiment(folder, **{"groups": GROUPS, "access_points": POINTS} | changes)


def test_devices_are_numbered_through_all_groups(tmp_path: Path) -> None:
    experiment = world(tmp_path)
    cameras, phones = experiment.groups
    assert (cameras.first, cameras.count, phones.first, phones.count) == (0, 3, 3, 2)
    assert experiment.total_devices == 5
    assert [experiment.group(device).label for device in range(5)] == ["cameras"] * 3 + ["phones"] * 2
    assert list(phones.devices) == [3, 4]


def test_without_groups_all_devices_are_one(tmp_path: Path) -> None:
    experiment = synthetic.experiment(tmp_path, devices__count=4)
    (group,) = experiment.groups
    assert (group.label, group.count, group.config) == ("devices", 4, experiment.scenario.devices)
    assert experiment.setting() is experiment.setting(group)
    assert experiment.device_calibration() is experiment.host
    assert experiment.cell(0) is None


def test_devices_of_a_group_take_turns_on_access_points(tmp_path: Path) -> None:
    experiment = world(tmp_path, groups=GROUPS | {"more": {"count": 2, "access_point": "b"}},
                       access_points={"a": {}, "b": {"count": 3}} | POINTS)  # fmt: skip
    cells = [experiment.cell(device) for device in range(experiment.total_devices)]
    assert [None if cell is None else (cell.label, cell.number) for cell in cells] == [
        *[("cell", 0), ("cell", 1), ("cell", 0)],
        *[None, None],
        *[("b", 0), ("b", 1)],
    ]
    assert [cell.index for cell in experiment.cells] == list(range(6))


def test_calibrations_are_made_once_per_hardware(tmp_path: Path) -> None:
    experiment = world(tmp_path, edge__hardware="raspberry-pi-4")
    cameras, phones = experiment.groups
    assert experiment.device_calibration(cameras) is experiment.host
    assert experiment.device_calibration(phones) is experiment.edge_calibration
    assert experiment.cloud_calibration is None


def test_every_group_has_its_setting(tmp_path: Path) -> None:
    experiment = world(tmp_path)
    cameras, phones = map(experiment.setting, experiment.groups)
    assert (cameras.deadline_s, cameras.retries, phones.deadline_s, phones.retries) == (1.0, 0, 0.05, 1)
    assert (cameras.link.rate_bps, phones.link.rate_bps) == (3e6, 1e6), "the shared link, and its own"
    assert phones.device is experiment.device_calibration(experiment.groups[1])


def test_links_of_single_group_scenarios_are_drawn_as_ever(tmp_path: Path) -> None:
    uplink = {"name": "constant", "mbps": 1, "jitter_ms": 5}
    experiment = synthetic.experiment(tmp_path, uplink=uplink)
    link = experiment.scenario.uplink.create()
    link.reseed(stream(7, UPLINK, 0))
    assert experiment.uplink(7, 0).send(0.0, 1000) == Fifo(link).send(0.0, 1000)


def test_links_are_by_device_and_by_access_point(tmp_path: Path) -> None:
    experiment = world(tmp_path)
    first, second = experiment.cells
    assert experiment.uplink(0, 3).send(0.0, 125_000)[1] == 1.0
    sent = [experiment.cell_uplink(0, cell).send(0.0, 100)[2] for cell in (first, second, first)]  # type: ignore[union-attr]
    assert sent[0] == sent[2] != sent[1], "chance of their own, the same every time"
    link = POINTS["cell"]["uplink"]
    own = experiment.scenario.access_points["cell"].uplink
    assert own is not None
    drawn = own.create()
    drawn.reseed(stream(0, CELL_UPLINK, 1))
    assert sent[1] == Fifo(drawn).send(0.0, 100)[2], link


def test_processor_sharing(tmp_path: Path) -> None:
    points = {"cell": {"sharing": "processor"}}
    experiment = world(tmp_path, access_points=points)
    assert isinstance(experiment.cell_uplink(0, experiment.cells[0]), Sharing)
    assert isinstance(experiment.cell_downlink(0, experiment.cells[0]), Sharing)


BURSTY = {"name": "token-bucket", "mbps": 1, "depth_kb": 1}


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"access_points": {"cell": {"sharing": "processor", "uplink": BURSTY}}}, "access_points.cell.sharing"),
        ({"uplink": BURSTY, "events": [{"kind": "outage", "at_s": 1, "on": "cell", "direction": "up"}]}, ""),
        ({"downlink": BURSTY, "events": [{"kind": "outage", "at_s": 1, "on": "cell"}]}, "events.0"),
        ({"downlink": BURSTY, "events": [{"kind": "outage", "at_s": 1, "direction": "up"}]}, ""),
        ({"downlink": BURSTY, "events": [{"kind": "bandwidth", "factor": 2, "at_s": 1}]}, "events.0"),
    ],
)
def test_links_that_can_be_neither_shared_nor_modulated(tmp_path: Path, changes: dict[str, Any], where: str) -> None:
    if not where:
        world(tmp_path, **changes)
        return
    with pytest.raises(
        InputError, match=rf"scenario.yaml: {where}: token-bucket: its capacity depends on what is sent"
    ):
        world(tmp_path, **changes)


def test_events_on_links(tmp_path: Path) -> None:
    events = [
        {"kind": "outage", "at_s": 1, "for_s": 2},
        {"kind": "bandwidth", "at_s": 5, "factor": 0.5, "on": "cell", "direction": "down"},
    ]
    experiment = world(tmp_path, events=events)
    assert experiment.links.windows("phones", 0) == [(1.0, 3.0, 0.0)]
    assert experiment.links.windows("cell", 0) == [(1.0, 3.0, 0.0)]
    assert experiment.links.windows("cell", 1) == [(1.0, 3.0, 0.0), (5.0, inf, 0.5)]
    assert isinstance(experiment.uplink(0, 3).link, Modulated)
    assert experiment.uplink(0, 3).send(0.5, 125_000)[1] == pytest.approx(3.5), "half of it before, half after"
    nothing = world(tmp_path, events=[{"kind": "outage", "at_s": 1, "on": "cell"}])
    assert not isinstance(nothing.uplink(0, 3).link, Modulated)


def test_downtimes(tmp_path: Path) -> None:
    events = [{"kind": "edge-down", "at_s": 5}, {"kind": "edge-down", "at_s": 1, "for_s": 1, "server": 1}]
    experiment = world(tmp_path, edge__servers=2, events=events)
    assert experiment.downtimes == (Downtime(1.0, 2.0, (1,)), Downtime(5.0, inf, (0, 1)))


def test_own_gives_every_group_its_policy(tmp_path: Path) -> None:
    experiment = world(tmp_path)
    names = [type(experiment.decider(OWN, 0, device).policy).__name__ for device in (0, 3)]
    assert names == ["Local", "Threshold"]
    labelled = [type(experiment.decider("offload", 0, device).policy).__name__ for device in (0, 3)]
    assert labelled == ["Offload", "Offload"]


def test_only_stateless_policies_are_shared_by_devices(tmp_path: Path) -> None:
    experiment = world(tmp_path)
    assert experiment.decider("local", 0, 0) is experiment.decider("local", 0, 1)
    assert experiment.decider("local", 0, 0) is not experiment.decider("local", 0, 3), "another setting"
    assert experiment.decider("random", 0, 0) is not experiment.decider("random", 0, 1)


def test_a_misfit_names_the_group(tmp_path: Path) -> None:
    groups = GROUPS | {"odd": {"policy": {"name": "offload", "split": 9, "codec": "raw"}}}
    with pytest.raises(InputError, match=r"^policy 'own' of the group 'odd': split 9: the model has splits 0..2"):
        world(tmp_path, groups=groups).decider(OWN, 0, 5)


def test_workloads_are_those_of_the_group(tmp_path: Path) -> None:
    experiment = world(tmp_path)
    camera, phone = experiment.workload(0, 0, 4), experiment.workload(0, 4, 4)
    assert phone.arrival_s == [0.0, 0.5, 1.0, 1.5]
    assert (camera.deadline_s, phone.deadline_s) == (1.0, 0.05)
    assert camera.positions != phone.positions
    alone = synthetic.experiment(tmp_path).workload(0, 0, 4)
    assert camera == alone, "the first device is as it would be alone"


LEAVE = {"kind": "leave", "at_s": 0.5, "for_s": 1.0, "on": "phones", "share": 0.5}
BURST = {"kind": "burst", "at_s": 1.5, "for_s": 0.5, "factor": 2, "on": "phones"}


def test_frames_come_in_order(tmp_path: Path) -> None:
    """As they were recorded, round and round, from another one on in every run and on every device."""
    experiment = synthetic.experiment(tmp_path, requests=450, devices__order="in-order", devices__count=3)
    starts = set()
    for seed in range(3):
        for device in range(3):
            positions = np.array(experiment.workload(seed, device).positions)
            assert len(positions) == 450
            assert (np.diff(positions) % 200 == 1).all()
            assert sorted(positions[:200]) == list(range(200))
            starts.add(positions[0])
    assert len(starts) > 3


def test_leave_and_burst_warp_arrivals(tmp_path: Path) -> None:
    experiment = world(tmp_path, events=[LEAVE, BURST])
    assert experiment.workload(0, 3, 5).arrival_s == [0.0, 1.5, 1.75, 2.0, 2.5], "the first half of the group leaves"
    assert experiment.workload(0, 4, 5).arrival_s == [0.0, 0.5, 1.0, 1.5, 1.75]
    assert experiment.workload(0, 0, 5) == world(tmp_path).workload(0, 0, 5), "other groups do not"


def test_requests_that_never_come_do_not_exist(tmp_path: Path) -> None:
    forever = {"kind": "leave", "at_s": 1.0, "on": "phones"}
    workload = world(tmp_path, events=[forever]).workload(0, 3, 5)
    assert workload.arrival_s == [0.0, 0.5]
    assert len(workload) == len(workload.samples) == len(workload.labels) == 2
    assert workload.next_arrival_s(2, None) is None


def test_who_leaves_before_the_first_request_has_none(tmp_path: Path) -> None:
    workload = world(tmp_path, events=[{"kind": "leave", "at_s": 0}]).workload(0, 3, 5)
    assert (len(workload), workload.next_arrival_s(0, None)) == (0, None)


def test_closed_arrivals_wait_for_the_end_of_an_absence(tmp_path: Path) -> None:
    closed = {"name": "closed", "think_ms": 10}
    leave = [{"kind": "leave", "at_s": 1, "for_s": 2}, {"kind": "leave", "at_s": 2, "for_s": 2}, LEAVE | {"at_s": 9}]
    events = [{key: value for key, value in event.items() if key != "on"} for event in leave]
    experiment = synthetic.experiment(tmp_path, devices__arrivals=closed, events=events)
    workload = experiment.workload(0, 0, 5)
    assert [workload.next_arrival_s(1, at_s) for at_s in (0.5, 1.0, 3.0, 4.0, 9.5)] == [0.5, 4.0, 4.0, 4.0, 10.0]
    assert workload.next_arrival_s(1, None) is None
    gone = synthetic.experiment(tmp_path, devices__arrivals=closed, events=[{"kind": "leave", "at_s": 1}])
    assert gone.workload(0, 0, 5).next_arrival_s(1, 1.5) is None


@pytest.mark.parametrize(("count", "share", "leaving"), [(3, 0.5, 2), (30, 0.1, 3), (1, 0.01, 1), (4, 1.0, 4)])
def test_shares_are_rounded_up_but_not_for_rounding_errors(
    tmp_path: Path, count: int, share: float, leaving: int
) -> None:
    (group,) = synthetic.experiment(tmp_path, devices__count=count).groups
    assert group.leaving(share) == leaving


def test_intensity_is_the_inverse_of_its_integral() -> None:
    """For random windows: the integral of the intensity up to a warped time is the unwarped time."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        edges = np.sort(rng.uniform(0, 10, (4, 2)), axis=1)
        windows = [(a, b, factor) for (a, b), factor in zip(edges.tolist(), (0.0, 0.5, 3.0, 2.0), strict=True)]
        warped = Intensity(windows).warp(times := np.sort(rng.uniform(0, 20, 100)))
        assert (np.diff(warped) >= 0).all()
        cuts = np.unique([0.0, 1e3, *edges.ravel()])
        factor = [np.prod([f for a, b, f in windows if a <= cut < b]) for cut in cuts]
        passed = [
            sum(f * max(0.0, min(t, b) - a) for f, a, b in zip(factor, cuts, cuts[1:], strict=False)) for t in warped
        ]
        assert passed == pytest.approx(times.tolist(), abs=1e-9)
        assert all(Intensity(windows).back_s(t) == t for t in warped.tolist())


RAW = {(0, "jpeg"): 900, (1, "uint8"): 400, (2, "raw"): 512}
LINK = {"name": "constant", "mbps": 100.0}


def test_the_cloud_has_times_and_links_of_its_own(tmp_path: Path) -> None:
    model = synthetic.spec()
    cloud = {"split": 2, "hardware": "workstation-gpu", "uplink": LINK, "downlink": LINK}
    takes = synthetic.calibration(model, stage=Distribution((0.01, 0.02)), pairs=list(RAW))
    says = synthetic.recording(model, pairs=RAW)
    experiment = synthetic.experiment(tmp_path, model=model, says=says, takes=takes, cloud=cloud)
    assert experiment.cloud_calibration is not None
    assert experiment.cloud_calibration.machine["name"] == "workstation-gpu"
    assert experiment.cloud_uplink(0).send(0.0, 12_500_000)[1] == 1.0
    assert experiment.cloud_downlink(0).send(0.0, 12_500_000)[1] == 1.0
    assert experiment.cloud_times(0, 1).at(3).stages != experiment.cloud_times(0, 0).at(3).stages


@pytest.mark.parametrize(
    ("split", "pairs", "expected"),
    [
        (3, RAW, "found 3; expected 1 to 2: the model has 3 stages"),
        (
            1,
            RAW,
            r"the edge passes raw@1 on, which was not recorded and calibrated; run `splitexit record --pair raw@1`",
        ),
        (1, {(1, "uint8"): 400, (2, "raw"): 512}, ""),
    ],
)
def test_what_the_edge_passes_on_must_have_been_recorded(
    tmp_path: Path, split: int, pairs: dict[tuple[int, str], int], expected: str
) -> None:
    model = synthetic.spec()
    cloud = {"split": split, "uplink": LINK, "downlink": LINK}
    files = {"says": synthetic.recording(model, pairs=pairs), "takes": synthetic.calibration(model, pairs=list(pairs))}
    if not expected:
        synthetic.experiment(tmp_path, model=model, cloud=cloud, **files)  # type: ignore[arg-type]
        return
    with pytest.raises(InputError, match=f"scenario.yaml: cloud.split: {expected}"):
        synthetic.experiment(tmp_path, model=model, cloud=cloud, **files)  # type: ignore[arg-type]


def test_an_experiment_travels_between_processes(tmp_path: Path) -> None:
    experiment = world(tmp_path, events=[LEAVE])
    experiment.uplink(0, 0), experiment.decider("local", 0, 0), experiment.workload(0, 3)
    again = pickle.loads(pickle.dumps(experiment))
    assert again.workload(0, 3) == experiment.workload(0, 3)
    assert again.scenario == experiment.scenario
    assert "_deciders" not in vars(again)


def test_ten_thousand_devices_are_cheap(tmp_path: Path) -> None:
    """About 0.1 ms each here; traces are read once, calibrations derived once."""
    (tmp_path / "lte.txt").write_text("".join(f"{t} {1 + t % 7}\n" for t in range(10_000)))
    trace = {"name": "trace", "trace": "lte.txt"}
    groups = {"a": {"count": 5000, "uplink": trace}, "b": {"count": 5000, "hardware": "pixel-2-xl", "uplink": trace}}
    experiment = synthetic.experiment(tmp_path, groups=groups, events=[{"kind": "leave", "at_s": 1, "for_s": 1}])
    begin = time.perf_counter()
    for device in range(experiment.total_devices):
        experiment.uplink(0, device)
        experiment.decider("threshold", 0, device)
        experiment.workload(0, device, 10)
    seconds = time.perf_counter() - begin
    print(f"\n{seconds / experiment.total_devices * 1e6:.0f} µs per device")
    assert seconds < 20.0


def test_streams_are_independent() -> None:
    assert stream(0, ARRIVALS, 0).random() != stream(0, ARRIVALS, 1).random() != stream(0, CELL_UPLINK, 1).random()


def test_times_are_the_same_however_many_are_drawn_at_once(tmp_path: Path) -> None:
    """Few at a time in the first block, of which many devices need only the beginning."""
    model = synthetic.spec()
    takes = synthetic.calibration(model, stage=Distribution((0.01, 0.02, 0.05)))
    experiment = synthetic.experiment(tmp_path, model=model, takes=takes)
    forth, back = experiment.device_times(0, 0), experiment.device_times(0, 0)
    numbers = [0, 7, 8, 100, 511, 512, 1023]
    assert [forth.at(n) for n in numbers] == [back.at(n) for n in numbers[::-1]][::-1]
    u = stream(0, DEVICE_TIMES, 0, 0).random((512, 8))
    assert [forth.at(n).codec_u for n in range(512)] == u[:, -2].tolist()
    assert [forth.at(n).stages[0] for n in range(512)] == takes.stages[0].many(u[:, 0]).tolist()
