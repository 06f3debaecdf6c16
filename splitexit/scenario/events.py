"""What goes wrong while a scenario runs: sections that are told apart by their `kind`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import Field, ValidationInfo, WrapValidator

from splitexit.errors import did_you_mean
from splitexit.scenario.explain import Finding, problem, problems
from splitexit.scenario.scalars import shown
from splitexit.scenario.sections import Label, Number, Section, Whole

MAX_S = 1e9
"""Latest time of an event, in simulated seconds: about 30 years."""

Factor = Annotated[Number, Gt(0), Le(1000)]


class Event(Section):
    """Something that happens for a while."""

    kind: str
    """What happens."""
    at_s: Annotated[Number, Ge(0), Le(MAX_S)]
    """When it begins, in simulated seconds."""
    for_s: Annotated[Number, Gt(0), Le(MAX_S)] | None = None
    """For how long. Default: to the end."""

    @property
    def end_s(self) -> float:
        """When it is over; infinite where it lasts."""
        return math.inf if self.for_s is None else self.at_s + self.for_s


class EdgeDown(Event):
    """Edge servers stop, lose what runs or waits there, and refuse what arrives."""

    kind: Literal["edge-down"]
    """`edge-down`: servers stop; what runs or waits there is lost, what arrives meanwhile is refused."""
    server: Annotated[Whole, Ge(0)] | None = None
    """Number of the server, from 0. Default: all of them."""


class LinkEvent(Event):
    """Something that happens to links of devices or access points."""

    on: Label | None = None
    """Label of a group whose devices have links of their own, or of access points. Default: the links of all devices
    and access points."""
    direction: Literal["up", "down", "both"] = "both"
    """Which links. Default: both."""


class Outage(LinkEvent):
    """Links carry nothing."""

    kind: Literal["outage"]
    """`outage`: links carry nothing; what is under way goes on afterwards."""


class Bandwidth(LinkEvent):
    """Links are faster or slower."""

    kind: Literal["bandwidth"]
    """`bandwidth`: the rate of links is multiplied; overlapping ones multiply each other."""
    factor: Factor
    """By what."""


class GroupEvent(Event):
    """Something that happens to the arrivals of groups."""

    on: Label | None = None
    """Label of a group. Default: all of them."""


class Leave(GroupEvent):
    """Devices make no requests."""

    kind: Literal["leave"]
    """`leave`: devices make no requests; those of an open process come later, in the same order."""
    share: Annotated[Number, Gt(0), Le(1)] = 1.0
    """Which part of the group's devices, the first ones, rounded up. Default: all of them."""


class Burst(GroupEvent):
    """Arrivals are denser or rarer."""

    kind: Literal["burst"]
    """`burst`: arrivals are so many times as dense; overlapping ones multiply each other."""
    factor: Factor
    """How many times."""


KINDS: dict[str, type[Event]] = {
    "edge-down": EdgeDown,
    "outage": Outage,
    "bandwidth": Bandwidth,
    "leave": Leave,
    "burst": Burst,
}


def _by_kind(raw: Any, handler: Any, info: ValidationInfo) -> Event:
    """The section that `raw` names by its kind; the JSON schema comes from the union."""
    kinds = ", ".join(KINDS)
    if not isinstance(raw, dict):
        raise problem(f"found {shown(raw)}; expected a mapping with the key 'kind' (one of {kinds}) and its keys")
    kind = raw.get("kind")
    if isinstance(kind, str) and kind in KINDS:
        return KINDS[kind].model_validate(raw, context=info.context)
    what = f"unknown event {shown(kind)}{did_you_mean(kind, KINDS)}" if isinstance(kind, str) else ""
    missing = "the key 'kind' is missing" if "kind" not in raw else f"found {shown(kind)}"
    raise problems("event", {("kind",): Finding(what or f"{missing}; expected one of {kinds}")})


AnyEvent = Annotated[
    Annotated[EdgeDown | Outage | Bandwidth | Leave | Burst, Field(discriminator="kind")], WrapValidator(_by_kind)
]
