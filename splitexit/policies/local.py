"""Everything on the device."""

from __future__ import annotations

from typing import ClassVar

from splitexit.decision import Observation, Plan
from splitexit.policies import Policy


class Local(Policy):
    """Runs the whole backbone on the device; the final exit answers. The baseline "device only"."""

    stateless: ClassVar[bool] = True

    def decide(self, observation: Observation) -> Plan:
        """Always the empty plan."""
        return _PLAN


_PLAN = Plan()
