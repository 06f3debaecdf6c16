"""Observations that hold only what was declared, and plans that cannot be impossible."""

from __future__ import annotations

import pytest

from splitexit.decision import ExitCheck, LinkEstimate, Observation, Plan, Utility
from splitexit.errors import PolicyError
from tests import synthetic


def test_an_undeclared_field_cannot_be_read() -> None:
    observation = Observation(now_s=1.0)
    assert observation.now_s == 1.0
    with pytest.raises(PolicyError, match=r"reads observation\.queue_length without declaring it"):
        _ = observation.queue_length
    with pytest.raises(AttributeError):
        _ = observation.nonsense  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "plan",
    [
        Plan(),
        Plan(split=0, codec="jpeg"),
        Plan(exits=(ExitCheck(0), ExitCheck(1)), split=2, codec="uint8", edge_exits=(ExitCheck(2),)),
        Plan(exits=(ExitCheck(2),)),
    ],
)
def test_possible_plans(plan: Plan) -> None:
    plan.check(synthetic.spec(3))


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (Plan(split=3, codec="uint8"), "split 3"),
        (Plan(split=-1, codec="uint8"), "split -1"),
        (Plan(split=1), "codec None"),
        (Plan(exits=(ExitCheck(7),)), "exit 7"),
        (Plan(exits=(ExitCheck(1), ExitCheck(0))), "out of order"),
        (Plan(exits=(ExitCheck(1),), split=1, codec="raw"), "beyond the split"),
        (Plan(split=2, codec="raw", edge_exits=(ExitCheck(0),)), "out of order"),
    ],
)
def test_impossible_plans_are_refused(plan: Plan, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        plan.check(synthetic.spec(3))


def test_utility_of_a_hand_case() -> None:
    utility = Utility(accuracy=1.0, latency_per_s=2.0, miss=0.5)
    assert utility.of(True, 0.1, True) == pytest.approx(0.8)
    assert utility.of(False, 0.1, False) == pytest.approx(-0.7)


def test_a_round_trip_of_a_hand_case() -> None:
    assert LinkEstimate(8e6, 0.010).round_trip_s(1000) == pytest.approx(0.011)
