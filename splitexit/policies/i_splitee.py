"""I-SplitEE: SplitEE for images, one bandit for every distortion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt

from splitexit.decision import Observation, Setting
from splitexit.policies._bandit import Unit
from splitexit.policies.splitee import SplitEE


class ISplitEE(SplitEE):
    """SplitEE that learns apart for every distortion of the capture (Bajpai, Jaiswal & Hanawal, arXiv 2401.10541).

    Noise and blur move the confidences of all exits, so that each has a best split of its own. `observation.context`
    names the distortion; the contexts are those of the calibration split (`splitexit record --distort`), and any other
    counts as undistorted. Without recorded contexts it is SplitEE with this paper's constants. One bandit for every
    context is inferred: the paper runs one distortion at a time.

    Args:
        alpha: confidence from which the device answers; 0.5 is the paper's. `fitted`: see splitee.
        lambda1: cost of running from one exit to the next; 0.3 is the paper's three blocks at 0.1.
        lambda2: cost of reading one head; the paper has none.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"context"})

    def __init__(
        self,
        *,
        alpha: Annotated[float, Ge(0)] | Literal["fitted"] = 0.5,
        codec: str = "uint8",
        arms: list[int] | None = None,
        cost: Unit = "exits",
        lambda1: Annotated[float, Ge(0)] = 0.3,
        lambda2: Annotated[float, Ge(0)] = 0.0,
        offload: Annotated[float, Ge(0)] = 0.5,
        mu: Annotated[float, Gt(0)] = 1.0,
        c: Annotated[float, Ge(0)] = 1.0,
    ) -> None:
        super().__init__(
            alpha=alpha,
            codec=codec,
            arms=arms,
            cost=cost,
            lambda1=lambda1,
            lambda2=lambda2,
            offload=offload,
            mu=mu,
            c=c,
        )

    def _contexts(self, setting: Setting) -> Mapping[str, int]:
        recorded = setting.calibration.context
        names = [] if recorded is None else np.unique(recorded).tolist()
        return {name: number for number, name in enumerate(["", *filter(None, names)])}

    def _row(self, observation: Observation) -> int:
        return self.contexts.get(observation.context or "", 0)
