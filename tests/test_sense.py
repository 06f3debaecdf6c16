"""A device's memory."""

from __future__ import annotations

import pytest

from splitexit.decision import EdgeLoad, LinkEstimate, Observation
from splitexit.errors import PolicyError
from splitexit.sense import Sense


def sense(*reads: str) -> Sense:
    return Sense(LinkEstimate(8e6, 0.010), frozenset(reads))


def test_it_tells_only_what_was_declared() -> None:
    observation = sense("now_s").observe(3.0, (), 2, 5.0)
    assert observation.now_s == 3.0
    with pytest.raises(PolicyError):
        _ = observation.queue_length


def test_every_field_of_an_observation_can_be_asked_for() -> None:
    device = sense(*Observation.FIELDS)
    device.sent(1, 1.0)
    device.sent(2, 2.0)
    device.computed(2.5, 2.75)
    observation = device.observe(3.0, (), 4, 5.0)
    assert (observation.queue_length, observation.deadline_left_s) == (4, 2.0)
    assert (observation.in_flight, observation.oldest_in_flight_s) == (2, 2.0)
    assert observation.cpu_load == pytest.approx(0.25)
    assert observation.edge_load is None
    assert observation.link == LinkEstimate(8e6, 0.010)
    device.replied(1, 1000, 0.011, EdgeLoad(3, 0.002))
    device.given_up(2)
    observation = device.observe(9.0, (), 0, 5.0)
    assert (observation.in_flight, observation.oldest_in_flight_s, observation.cpu_load) == (0, 0.0, 0.0)
    assert observation.edge_load == EdgeLoad(3, 0.002)


def test_an_unknown_field_is_an_error() -> None:
    with pytest.raises(ValueError, match="weather"):
        sense("weather").observe(0.0, (), 0, 1.0)
