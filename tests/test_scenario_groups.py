"""Groups, access points, servers, a cloud and events: what they mean, and what is wrong with them and where."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import Path

import pytest

from splitexit import cli
from splitexit.errors import ScenarioError, UsageError
from splitexit.fleet import require_live, require_single
from splitexit.scenario import OWN, Scenario, Spec, dump, load
from splitexit.scenario.events import Burst, EdgeDown, Leave, Outage

TEXT = """\
bundle: bundle
devices:
  hardware: raspberry-pi-4
  arrivals: {name: poisson, rate_hz: 10}
  policy: early
  deadline_ms: 200
  access_point: cell
groups:
  cameras: {count: 8}
  phones: {count: 3, hardware: pixel-2-xl, policy: local, uplink: {name: constant, mbps: 2}}
access_points:
  cell: {count: 2, sharing: processor, downlink: {name: constant, mbps: 7}}
uplink: {name: constant, mbps: 20}
downlink: {name: constant, mbps: 30}
edge: {servers: 2, balancer: least-loaded, queue: 7, batching: {max_size: 8, max_wait_ms: 2}}
cloud: {hardware: workstation-gpu, split: 2, uplink: {name: constant, mbps: 100}, downlink: ethernet}
policies:
  early: {name: threshold, threshold: 0.5}
events:
  - {kind: edge-down, at_s: 10, for_s: 5, server: 1}
  - {kind: outage, at_s: 20, on: cell, direction: up}
  - {kind: bandwidth, at_s: 30, for_s: 10, factor: 0.2, on: phones}
  - {kind: leave, at_s: 40, for_s: 10, share: 0.5, on: cameras}
  - {kind: burst, at_s: 60, for_s: 10, factor: 5}
"""


def read(folder: Path, text: str = TEXT, overrides: Sequence[str] = ()) -> Scenario:
    """A scenario from its text."""
    path = folder / "scenario.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, overrides)


def failure(folder: Path, text: str, overrides: Sequence[str] = ()) -> list[str]:
    """The lines of the error, without the folder."""
    with pytest.raises(ScenarioError) as caught:
        read(folder, text, overrides)
    return [line.removeprefix(f"{folder}/") for line in str(caught.value).splitlines()]


def test_groups_have_what_they_are_not_given_from_devices(tmp_path: Path) -> None:
    cameras, phones = read(tmp_path).groups.values()
    assert (cameras.count, cameras.hardware, cameras.deadline_s) == (8, "raspberry-pi-4", 0.2)
    assert (phones.count, phones.hardware, phones.deadline_s) == (3, "pixel-2-xl", 0.2)
    assert phones.arrivals == cameras.arrivals
    assert (cameras.policy.name, phones.policy.name) == ("threshold", "local")


def test_links_drop_an_inherited_access_point_and_the_other_way_round(tmp_path: Path) -> None:
    scenario = read(tmp_path)
    cameras, phones = scenario.groups.values()
    assert (cameras.access_point, phones.access_point) == ("cell", None)
    turned = read(
        tmp_path, TEXT, ["devices.access_point=null", "devices.uplink=lte", "groups.cameras.access_point=cell"]
    )
    assert turned.groups["cameras"].uplink is None
    assert turned.groups["cameras"].access_point == "cell"


def test_links_of_devices_are_their_own_or_shared_or_the_scenarios(tmp_path: Path) -> None:
    scenario = read(tmp_path)
    rates = [[link.parameters["mbps"] for link in scenario.links(of)] for of in scenario.groups.values()]
    assert rates == [[20.0, 7.0], [2.0, 30.0]]
    assert scenario.links(scenario.access_points["cell"]) == scenario.links(scenario.groups["cameras"])


def test_without_groups_there_is_one(tmp_path: Path) -> None:
    scenario = read(tmp_path, "bundle: b\nuplink: lte\ndownlink: lte\ndevices: {count: 4}\n")
    assert scenario.fleet == {"devices": scenario.devices}
    assert (scenario.cloud, scenario.events, scenario.warmup_s) == (None, (), 0.0)


def test_edge_cloud_and_events_are_read(tmp_path: Path) -> None:
    scenario = read(tmp_path)
    edge, cloud = scenario.edge, scenario.cloud
    assert (edge.servers, edge.balancer, edge.queue) == (2, "least-loaded", 7)
    assert edge.batching is not None
    assert (edge.batching.max_size, edge.batching.max_wait_s) == (8, 0.002)
    assert cloud is not None
    assert (cloud.split, cloud.servers, cloud.uplink.name) == (2, 1, "constant")
    assert cloud.downlink.parameters["direction"] == "down"
    down, outage, _, leave, burst = scenario.events
    assert isinstance(down, EdgeDown)
    assert (down.at_s, down.end_s, down.server) == (10.0, 15.0, 1)
    assert isinstance(outage, Outage)
    assert (outage.end_s, outage.on, outage.direction) == (inf, "cell", "up")
    assert isinstance(leave, Leave)
    assert leave.share == 0.5
    assert isinstance(burst, Burst)
    assert (burst.factor, burst.on) == (5.0, None)


def test_resolved_reads_back_equal(tmp_path: Path) -> None:
    scenario = read(tmp_path)
    again = read(tmp_path, dump(scenario.resolved()))
    assert again == scenario
    assert again.digest() == scenario.digest()
    assert again.groups == scenario.groups


@pytest.mark.parametrize(
    "override",
    ["groups.phones.count=4", "access_points.cell.count=3", "cloud.split=1", "events.0.at_s=11", "edge.queue=9"],
)
def test_the_digest_is_of_every_key(tmp_path: Path, override: str) -> None:
    assert read(tmp_path).digest() != read(tmp_path, TEXT, [override]).digest()


def test_overrides_reach_everywhere(tmp_path: Path) -> None:
    overrides = [
        "groups.cameras.count=5",
        "groups.cameras.arrivals.rate_hz=2",
        "groups.cameras.policy.threshold=0.9",
        "access_points.cell.uplink.mbps=9",
        "groups.phones.downlink.delay_ms=4",
        "cloud.batching.max_size=3",
        "events.0.at_s=12",
        "events.4.on=phones",
        "warmup_s=3",
    ]
    scenario = read(tmp_path, TEXT, overrides)
    cameras, phones = scenario.groups.values()
    assert (cameras.count, cameras.arrivals.parameters["rate_hz"]) == (5, 2.0)
    assert phones.arrivals.parameters["rate_hz"] == 10.0, "what the other group inherits stays"
    assert cameras.policy.parameters["threshold"] == 0.9
    assert scenario.policies["early"].parameters["threshold"] == 0.5
    assert scenario.links(cameras)[0].parameters["mbps"] == 9.0
    assert phones.downlink is not None
    assert phones.downlink.parameters.items() >= {"mbps": 30.0, "delay_ms": 4.0}.items(), "begun from the scenario's"
    assert scenario.cloud is not None
    assert scenario.cloud.batching is not None
    assert (scenario.cloud.batching.max_size, scenario.events[0].at_s, scenario.warmup_s) == (3, 12.0, 3.0)


def test_an_override_below_a_default_begins_from_it(tmp_path: Path) -> None:
    scenario = read(tmp_path, "bundle: b\nuplink: lte\ndownlink: lte\n", ["devices.arrivals.rate_hz=9"])
    assert scenario.devices.arrivals == Spec("arrivals", "poisson", {"rate_hz": 9.0})


def test_policies_of_groups(tmp_path: Path) -> None:
    scenario = read(tmp_path)
    assert scenario.policy_label == OWN, "the groups have different ones"
    own = [scenario.policy(OWN, group).name for group in scenario.groups.values()]
    assert own == ["threshold", "local"]
    same = read(tmp_path, TEXT, ["groups.phones.policy=early"])
    assert same.policy_label == "early"
    assert scenario.labels() == [OWN, *same.labels()], "compared with what each could do alike"
    assert same.policy("threshold").parameters["threshold"] == 0.5, "the name of what all of them have"
    assert scenario.policy("threshold").parameters["threshold"] == 0.8, "else the shipped one"


AT = "events.0={kind: %s, at_s: 1, %s}"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("groups.phones.cunt=3", "groups.phones.cunt: unknown key 'cunt'; did you mean 'count'?"),
        ("groups.phones.retries=3", "groups.phones.retries: found 3; expected a number less than or equal to 2; the"),
        ("groups.cameras.access_point=cel", "groups.cameras.access_point: unknown access point 'cel'; did you mean"),
        ("devices.access_point=x", "devices.access_point: unknown access point 'x'; known: cell"),
        ("devices.uplink=lte", "devices.uplink: the devices share the links of the access point 'cell'; take out one"),
        ("groups.cameras={access_point: cell, downlink: lte}", "groups.cameras.downlink: the devices share the links"),
        ("groups=[1]", "groups: found a list; expected a mapping"),
        ("groups.a b.count=1", "groups.a b: the label 'a b' is not 1 to 40 letters"),
        ("access_points.cell.sharing=tdma", "access_points.cell.sharing: found 'tdma'; expected 'fifo' or 'processor'"),
        ("access_points.phones.count=1", "access_points.phones: the label 'phones' is that of a group too; choose"),
        ("policies.own=local", "policies.own: the label 'own' stands for every group's own policy; choose another"),
        ("edge.balancer=random", "edge.balancer: found 'random'; expected 'round-robin' or 'least-loaded'"),
        ("edge.queue=-1", "edge.queue: found -1; expected a number greater than or equal to 0; the default is none"),
        (
            "edge.queue=3",
            "edge.queue: found 3; expected at least 7, for those that wait for company count",
        ),
        ("edge.batching=true", "edge.batching: found true; expected a mapping with the keys max_size, max_wait_ms;"),
        ("edge.batching={max_wait_ms: 2}", "edge.batching.max_size: the key 'max_size' is missing; requests of one"),
        ("cloud={split: 2, downlink: lte}", "cloud.uplink: the key 'uplink' is missing; from the edge to the cloud"),
        ("cloud.split=0", "cloud.split: found 0; expected a number greater than 0; stages that device and edge run"),
        ("devices.energy={compute_w: 3}", "devices.energy.compute_w: the two powers go together; give idle_w too"),
        ("groups.phones.energy={idle_w: 3}", "groups.phones.energy.idle_w: the two powers go together; give compute_w"),
        ("devices.energy={idle_w: 3, compute_w: 2}", "devices.energy.compute_w: found 2; idle power is included, s"),
        ("devices.energy.radio=lt", "devices.energy.radio: unknown radio 'lt'; did you mean 'lte'?"),
        ("warmup_s=-1", "warmup_s: found -1; expected a number greater than or equal to 0; the default is 0"),
        ("events=5", "events: found 5; expected a list; the default is []"),
        ("events.0=5", "events.0: found 5; expected a mapping with the key 'kind' (one of edge-down, outage, "),
        ("events.0.kind=edge-up", "events.0.kind: unknown event 'edge-up'; did you mean 'edge-down'?"),
        ("events.0.kind=5", "events.0.kind: found 5; expected one of edge-down, outage, bandwidth, leave, burst"),
        ("events.0={at_s: 5}", "events.0.kind: the key 'kind' is missing; expected one of edge-down, outage, "),
        ("events.0={kind: outage}", "events.0.at_s: the key 'at_s' is missing; when it begins, in simulated seconds"),
        ("events.0.for_s=0", "events.0.for_s: found 0; expected a number greater than 0; the default is none"),
        ("events.0.sever=0", "events.0.sever: unknown key 'sever'; did you mean 'server'?"),
        ("events.0.server=2", "events.0.server: found 2; the edge has the servers 0 to 1 (edge.servers)"),
        ("events.1={kind: edge-down, at_s: 14}", "events.1: the server is down already, by events.0; make it one e"),
        (AT % ("outage", "on: camera"), "events.0.on: unknown label 'camera'; did you mean 'cameras'?"),
        (AT % ("outage", "on: cameras"), "events.0.on: the devices of 'cameras' share the links of an access point"),
        (AT % ("leave", "on: cell"), "events.0.on: 'cell' are access points, which make no requests; name a group:"),
        (AT % ("burst", "on: x, factor: 2"), "events.0.on: unknown label 'x'; known: cameras, phones"),
        (AT % ("burst", "factor: 0"), "events.0.factor: found 0; expected a number greater than 0; how many times"),
        (AT % ("leave", "share: 1.5"), "events.0.share: found 1.5; expected a number less than or equal to 1; the"),
        (AT % ("outage", "direction: left"), "events.0.direction: found 'left'; expected 'up', 'down' or 'both'; the"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_with_its_place(tmp_path: Path, override: str, expected: str) -> None:
    (line,) = failure(tmp_path, TEXT, [override])
    assert line.startswith(f"--set {override}: {expected}"), line


def test_what_follows_from_several_keys_has_the_place_of_the_one_that_it_is_about(tmp_path: Path) -> None:
    assert failure(tmp_path, TEXT, ["groups.phones.arrivals=closed"]) == [
        "scenario.yaml:24:5: events.4: the arrivals of 'phones' are closed: they follow the answers and cannot be made "
        "denser"
    ]
    assert failure(tmp_path, TEXT, ["groups.phones.count=99999"]) == [
        "scenario.yaml:9:3: groups: 100007 altogether; expected at most 100000"
    ]


def test_what_a_group_inherits_is_blamed_on_devices_alone(tmp_path: Path) -> None:
    text = TEXT.replace("access_point: cell\n", "access_point: nowhere\n")
    assert failure(tmp_path, text) == [
        "scenario.yaml:7:17: devices.access_point: unknown access point 'nowhere'; known: cell"
    ]
    (line,) = failure(tmp_path, TEXT.replace("deadline_ms: 200", "deadline_ms: -1"))
    assert line.startswith("scenario.yaml:6:16: devices.deadline_ms: found -1")


def test_places_in_the_file(tmp_path: Path) -> None:
    lines = failure(
        tmp_path,
        TEXT.replace("count: 3", "count: many")
        .replace("share: 0.5", "share: all")
        .replace("max_size: 8", "max_size: 0"),
    )
    assert [line.split(": found")[0] for line in lines] == [
        "scenario.yaml:10:19: groups.phones.count",
        "scenario.yaml:15:75: edge.batching.max_size",
        "scenario.yaml:23:47: events.3.share",
    ]


def test_events_may_follow_one_another(tmp_path: Path) -> None:
    events = "[{kind: edge-down, at_s: 1, for_s: 1}, {kind: edge-down, at_s: 2, for_s: 1, server: 0}]"
    assert len(read(tmp_path, TEXT, [f"events={events}"]).events) == 2


SMALL = "bundle: b\nuplink: lte\ndownlink: lte\n"


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("groups.a.count=1", "groups"),
        ("access_points={a: {}}", ""),
        ("edge.servers=2", "edge.servers"),
        ("edge.batching.max_size=2", "edge.batching"),
        ("cloud={split: 1, uplink: lte, downlink: lte}", "cloud"),
        ("events=[{kind: outage, at_s: 1}]", "events"),
        ("devices.count=2", ""),
        ("edge.queue=3", ""),
    ],
)
def test_what_single_processes_cannot_do_is_named(tmp_path: Path, override: str, key: str) -> None:
    scenario = read(tmp_path, SMALL, [override])
    if not key:
        require_single(scenario)
        return
    with pytest.raises(UsageError, match=rf"scenario.yaml: {key}: .*; try `splitexit (live|simulate)`"):
        require_single(scenario)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("groups.a.count=1", ""),
        ("access_points={a: {}}", ""),
        ("events=[{kind: outage, at_s: 1}]", ""),
        ("edge.servers=2", "edge.servers"),
        ("access_points={a: {sharing: processor}}", "access_points.a.sharing"),
        ("cloud={split: 1, uplink: lte, downlink: lte}", "cloud"),
    ],
)
def test_what_the_live_system_cannot_do_yet_is_named(tmp_path: Path, override: str, key: str) -> None:
    scenario = read(tmp_path, SMALL, [override])
    if not key:
        require_live(scenario)
        return
    with pytest.raises(UsageError, match=rf"scenario.yaml: {key}: only the simulator can do that yet; try `splitexit"):
        require_live(scenario)


@pytest.mark.parametrize("command", ["device", "link"])
def test_live_commands_refuse_it_in_one_line(tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    read(tmp_path, SMALL.replace("b\n", "nowhere\n", 1) + "events: [{kind: outage, at_s: 1}]\n")
    path = str(tmp_path / "scenario.yaml")
    arguments = {"device": [path, "--edge", "127.0.0.1:1"], "link": ["--scenario", path, "--to", "127.0.0.1:1"]}
    assert cli.run([command, *arguments[command]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: {path}: events: needs all processes together; try `splitexit live`"
