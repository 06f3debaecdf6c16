"""What must hold between the keys of a scenario, each of which is fine by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from splitexit.errors import did_you_mean
from splitexit.scenario.events import Burst, EdgeDown, Event, GroupEvent, LinkEvent
from splitexit.scenario.explain import Finding
from splitexit.scenario.scalars import shown
from splitexit.scenario.schema import OWN, Scenario
from splitexit.scenario.sections import MAX_DEVICES, Devices, Energy
from splitexit.scenario.strict_yaml import Keys

Found = Iterator[tuple[Keys, Finding]]


def broken(scenario: Scenario, raw: Mapping[str, Any]) -> dict[Keys, Finding]:
    """What is wrong, at its path; `raw` is the document, which says what was given and what inherited."""
    rules = (_labels(scenario), _counts(scenario), _devices(scenario, raw), _servers(scenario), _events(scenario))
    return {path: finding for rule in rules for path, finding in rule}


def _labels(scenario: Scenario) -> Found:
    """Events name groups and access points by one label."""
    for label in scenario.access_points:
        if label in scenario.fleet:
            taken = f"the label {shown(label)} is that of a group too; choose another"
            yield ("access_points", label), Finding(taken, of_key=True)
    if OWN in scenario.policies:
        taken = f"the label {shown(OWN)} stands for every group's own policy; choose another"
        yield ("policies", OWN), Finding(taken, of_key=True)


def _counts(scenario: Scenario) -> Found:
    for key, parts in (("groups", scenario.groups), ("access_points", scenario.access_points)):
        total = sum(part.count for part in parts.values())
        if total > MAX_DEVICES:
            yield (key,), Finding(f"{total} altogether; expected at most {MAX_DEVICES}")


def _servers(scenario: Scenario) -> Found:
    """Whoever waits for company is waiting."""
    for key, tier in (("edge", scenario.edge), ("cloud", scenario.cloud)):
        if tier is None or tier.batching is None or tier.queue is None:
            continue
        company = tier.batching.max_size - 1
        if tier.queue < company:
            what = f"found {tier.queue}; expected at least {company}, for those that wait for company count: "
            yield (key, "queue"), Finding(f"{what}a batch of {company + 1} could never fill")


def _devices(scenario: Scenario, raw: Mapping[str, Any]) -> Found:
    """Of `devices` and every group what they were given; what is wrong with the inherited is said there."""
    places: list[tuple[Keys, Devices]] = [(("devices",), scenario.devices)]
    places += [(("groups", label), devices) for label, devices in scenario.groups.items()]
    for path, devices in places:
        given: Any = raw
        for key in path:
            given = given.get(key) or {}
        yield from _links(scenario, path, devices, given)
        if "energy" in given:
            yield from _powers((*path, "energy"), devices.energy)


def _links(scenario: Scenario, path: Keys, devices: Devices, given: Mapping[str, Any]) -> Found:
    """Devices have links of their own or an access point."""
    point = devices.access_point
    if point is None:
        return
    if "access_point" in given and point not in scenario.access_points:
        known = did_you_mean(point, scenario.access_points) or "; there are no `access_points`"
        yield (*path, "access_point"), Finding(f"unknown access point {shown(point)}{known}")
    for key in ("uplink", "downlink"):
        if given.get(key) is not None:
            both = f"the devices share the links of the access point {shown(point)}; take out one of the two keys"
            yield (*path, key), Finding(both, of_key=True)


def _powers(path: Keys, energy: Energy) -> Found:
    compute_w, idle_w = energy.compute_w, energy.idle_w
    if (compute_w is None) != (idle_w is None):
        alone, missing = ("idle_w", "compute_w") if compute_w is None else ("compute_w", "idle_w")
        yield (*path, alone), Finding(f"the two powers go together; give {missing} too", of_key=True)
    elif compute_w is not None and idle_w is not None and compute_w < idle_w:
        yield (*path, "compute_w"), Finding(f"found {compute_w:g}; idle power is included, so at least {idle_w:g}")


def _events(scenario: Scenario) -> Found:
    for n, event in enumerate(scenario.events):
        path: Keys = ("events", n)
        match event:
            case EdgeDown(server=int(server)) if server >= scenario.edge.servers:
                there = f"the edge has the servers 0 to {scenario.edge.servers - 1} (edge.servers)"
                yield (*path, "server"), Finding(f"found {server}; {there}")
            case LinkEvent() | GroupEvent() if event.on is not None and (what := _misdirected(scenario, event)):
                yield (*path, "on"), Finding(what)
            case Burst():
                yield from _closed(scenario, event, path)
    yield from _twice_down(scenario)


def _misdirected(scenario: Scenario, event: LinkEvent | GroupEvent) -> str:
    """Why the event cannot happen to what it names."""
    label, fleet, points = str(event.on), scenario.fleet, scenario.access_points
    if isinstance(event, GroupEvent) and label in points:
        return f"{shown(label)} are access points, which make no requests; name a group: {', '.join(fleet)}"
    known = [*fleet, *points] if isinstance(event, LinkEvent) else [*fleet]
    if label not in known:
        return f"unknown label {shown(label)}{did_you_mean(label, known)}"
    if isinstance(event, LinkEvent) and label in fleet and (point := fleet[label].access_point):
        return f"the devices of {shown(label)} share the links of an access point; name that: {point}"
    return ""


def _closed(scenario: Scenario, event: Burst, path: Keys) -> Found:
    for label, devices in scenario.fleet.items():
        if event.on in (None, label) and devices.arrivals.create().closed:
            why = f"the arrivals of {shown(label)} are closed: they follow the answers and cannot be made denser"
            yield ((*path, "on") if event.on else path), Finding(why)
            return


def _twice_down(scenario: Scenario) -> Found:
    """A server cannot go down while it is."""
    down = [(n, event) for n, event in enumerate(scenario.events) if isinstance(event, EdgeDown)]
    for (first, one), (second, other) in combinations(down, 2):
        same = one.server == other.server or None in (one.server, other.server)
        if same and _overlap(one, other):
            what = f"the server is down already, by events.{first}; make it one event, or two apart"
            yield ("events", second), Finding(what)


def _overlap(one: Event, other: Event) -> bool:
    return one.at_s < other.end_s and other.at_s < one.end_s
