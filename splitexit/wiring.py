"""A scenario's links, made once and handed out fresh, under its events."""

from __future__ import annotations

import numpy as np

from splitexit.links import Link
from splitexit.links.modulated import Modulated, Window
from splitexit.scenario import AccessPoint, Devices, Scenario, Spec
from splitexit.scenario.events import Bandwidth, LinkEvent

DIRECTIONS = {"up": (0,), "down": (1,), "both": (0, 1)}
"""An event's direction, and the numbers of the links that it means: 0 is up, 1 down."""


class Links:
    """Links of a scenario, by whose they are and their direction."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._read: list[tuple[Spec, Link]] = []
        self._modulated: dict[tuple[str, int], Link] = {}

    def of(self, spec: Spec) -> Link:
        """The link that the scenario describes so; equal ones are one, and a trace is read once."""
        found = [link for known, link in self._read if known == spec]
        if not found:
            found = [spec.create()]
            self._read.append((spec, found[0]))
        return found[0]

    def fresh(self, label: str, of: Devices | AccessPoint, direction: int, rng: np.random.Generator) -> Link:
        """A new link of a group or access point, under the events that mean it."""
        key = (label, direction)
        if key not in self._modulated:
            link, windows = self.of(self._scenario.links(of)[direction]), self.windows(label, direction)
            self._modulated[key] = Modulated(link, windows) if windows else link
        return fresh(self._modulated[key], rng)

    def windows(self, label: str, direction: int) -> list[Window]:
        """When the links of a group or access point are slower, and by what factor."""
        return [
            (event.at_s, event.end_s, event.factor if isinstance(event, Bandwidth) else 0.0)
            for event in self._scenario.events
            if isinstance(event, LinkEvent) and event.on in (None, label) and direction in DIRECTIONS[event.direction]
        ]


def fresh(link: Link, rng: np.random.Generator) -> Link:
    """A link like this one that nothing has been sent on."""
    new = link.fork()
    new.reseed(rng)
    return new
