"""Everything on the device."""

from __future__ import annotations

from splitexit.decision import Observation, Plan
from splitexit.policies import Policy


class Local(Policy):
    """Runs the whole backbone on the device; the final exit answers. The baseline "device only"."""

    def decide(self, observation: Observation) -> Plan:
        """Always the empty plan."""
        return Plan()
