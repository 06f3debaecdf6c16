"""Which view and which tuner an exit rule has."""

from __future__ import annotations

from splitexit.confidence import NARROWING
from splitexit.recording import Part
from splitexit.tune.effects import Costs, View
from splitexit.tune.exclusion import ExclusionTuner, Odds
from splitexit.tune.thresholds import Seen, Tuner

AnyTuner = Tuner | ExclusionTuner


def view(part: Part, rule: str) -> View:
    """A split as one of splitexit.confidence.RULES sees it; raises what the views' `of` raise."""
    return Odds.of(part, rule) if rule in NARROWING else Seen.of(part, rule)


def tuner(part: Part, rule: str, costs: Costs) -> AnyTuner:
    """What fits thresholds of one of splitexit.confidence.RULES; raises what the tuners raise."""
    return ExclusionTuner(part, rule, costs) if rule in NARROWING else Tuner(part, rule, costs)
