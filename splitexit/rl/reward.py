"""What an answer is worth to the learner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from splitexit.recording import ExitReadings, Part
from splitexit.results import CLOUD, EDGE, Completion

AccuracyOf = Literal["expected", "realised"]


@dataclass(frozen=True)
class Reward:
    """r = a − time_weight·min(T / Tmax, 2) − miss_weight·[T > Tmax]; T is the response time, Tmax the deadline.

    SAC-d (arXiv 2201.02968) rewards accuracy and latency; its formula is not public, so this one and its weights are
    inferred.
    """

    time_weight: Annotated[float, Ge(0)] = 0.3
    miss_weight: Annotated[float, Ge(0)] = 1.0

    def of(self, accuracy: float, response_s: float, deadline_s: float) -> float:
        """Of one answer; `accuracy` is the share of right answers to expect, or 0 or 1."""
        ratio = response_s / deadline_s
        return accuracy - self.time_weight * min(ratio, 2.0) - self.miss_weight * (ratio > 1.0)


class Accuracy:
    """How right an answer is.

    Args:
        part: the calibration split.
        kind: `expected` is a(e, q), the share of `part` that the exit which answered gets right behind that split and
            codec: the same for all samples, so there is less chance in what is learned from. `realised` is 1 or 0.
    """

    def __init__(self, part: Part, kind: AccuracyOf) -> None:
        self._part, self._kind = part, kind
        self._known: dict[tuple[int, str, int], float] = {}

    def of(self, row: Completion) -> float:
        """0 to 1."""
        if self._kind == "realised":
            return float(row.prediction == row.label)
        behind = row.answered_by in (EDGE, CLOUD)
        key = (row.split, row.codec, row.exit) if behind else (-1, "", row.exit)
        if key not in self._known:
            right = self._readings(*key).prediction == self._part.label
            self._known[key] = float(right.mean())
        return self._known[key]

    def _readings(self, split: int, codec: str, exit_: int) -> ExitReadings:
        """A lossless codec's pair holds bytes alone: there the edge says what the device would say."""
        if not codec:
            return self._part.exits[exit_]
        pair = self._part.pair(split, codec)
        return self._part.exits[exit_] if pair.lossless else pair.exits[exit_]
