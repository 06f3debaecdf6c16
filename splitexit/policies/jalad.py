"""Split and bits under a bound on accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Le

from splitexit.decision import Observation, Plan, Setting
from splitexit.policies import Policy, _options

if TYPE_CHECKING:
    import numpy as np

ROUNDING = 1e-12
"""Accuracies are shares of samples; their differences are off by less."""


class Jalad(Policy):
    """Picks split and bit depth by expected latency, under a bound on accuracy (JALAD, Li et al., ICPADS 2018).

        min over i, c of  T_device(i) + S(i, c) / B + T_edge(i)   such that   A(i, c) ≤ loss

    with S the mean bytes and A the accuracy lost behind split i and codec c, both looked up on the calibration split.
    The present estimate of the link and the wait that the edge last reported decide for each request, so the bits
    follow the bandwidth. The depths are those of the codecs on offer: `affine:bits=4`, `range:bits=2` and the like,
    recorded by `splitexit record BUNDLE --pair affine:bits=4@all`; any other codec that was recorded counts as well.

    Args:
        loss: how much accuracy may be lost against the whole network, as a share of all answers; 0.1 is the paper's.
        codecs: only these are considered; by default all that were recorded.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"link", "edge_load"})

    def __init__(self, *, loss: Annotated[float, Ge(0), Le(1)] = 0.1, codecs: list[str] | None = None) -> None:
        self.loss, self.codecs = loss, codecs

    def prepare(self, setting: Setting, rng: np.random.Generator) -> None:
        """Drops what loses too much on the calibration split."""
        part, final = setting.calibration, setting.spec.final_exit

        def right(split: int, codec: str) -> float:
            return float((part.edge_exit(split, codec, final).prediction == part.label).mean())

        least = float((part.exits[final].prediction == part.label).mean()) - self.loss - ROUNDING
        self._local = _options.local(setting)
        self._offered = [
            option
            for option in _options.offered(setting, self.codecs)
            if right(option.plan.split or 0, option.plan.codec or "") >= least
        ]

    def decide(self, observation: Observation) -> Plan:
        """The fastest under the present link estimate and edge load."""
        load = observation.edge_load
        wait_s = 0.0 if load is None else load.wait_s
        return _options.soonest(self._local, self._offered, observation.link, wait_s).plan
