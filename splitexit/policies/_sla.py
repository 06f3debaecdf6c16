"""A service-level agreement: hard limits in the order of their importance, then soft objectives in theirs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from splitexit.errors import InputError

Array = np.ndarray[Any, Any]

Metric = Literal["latency_ms", "throughput_rps", "server_ms", "device_ms", "bytes", "accuracy", "loss"]
"""What limits and objectives are about; throughput and accuracy the more the better, the rest the less."""

MORE = frozenset({"throughput_rps", "accuracy"})

TOLERANCE = 0.01
"""What is worse than the best by no more than this share is as good, for all objectives but the last [inferred]."""

ROUNDING = 1e-12
"""A limit is still met by what is beyond it by no more than this share of it: sums of floats."""


class Limit(NamedTuple):
    """A hard limit: `latency_ms <= 80`, `accuracy >= 0.9`."""

    metric: str
    sign: str
    bound: float

    @classmethod
    def read(cls, text: str, metrics: Sequence[str]) -> Limit:
        """Raises InputError where `text` is none."""
        found = re.fullmatch(r"\s*(\w+)\s*(<=|>=)\s*([-+.\deE]+)\s*", text)
        try:
            if found is None or found[1] not in metrics:
                raise ValueError
            return cls(found[1], found[2], float(found[3]))
        except ValueError:
            raise InputError(
                f"limit {text!r}: expected a metric, <= or >=, and a number, as in latency_ms <= 80; metrics are "
                f"{', '.join(metrics)}"
            ) from None

    def met(self, values: Array) -> Array:
        """Where values keep to it."""
        slack = ROUNDING * abs(self.bound)
        found: Array = values <= self.bound + slack if self.sign == "<=" else values >= self.bound - slack
        return found


def choose(figures: Mapping[str, Array], limits: Sequence[Limit], objectives: Sequence[str]) -> int:
    """The number of the best configuration.

    Args:
        figures: metric -> its value for every configuration, (n,).
        limits: the most important first; where no configuration keeps to all, the last one is dropped, and so on.
        objectives: at least one. Each leaves those that are as good as the best of what the ones before it left; the
            last one decides, and of equals the first configuration.
    """
    met = [limit.met(figures[limit.metric]) for limit in limits]
    left = np.ones(len(figures[objectives[0]]), bool)
    for kept in met:
        if not (left & kept).any():
            break
        left &= kept
    rows = np.flatnonzero(left)
    for metric in objectives[:-1]:
        values = _badness(figures, metric)[rows]
        rows = rows[values <= values.min() + TOLERANCE * abs(values.min())]
    return int(rows[_badness(figures, objectives[-1])[rows].argmin()])


def _badness(figures: Mapping[str, Array], metric: str) -> Array:
    return -figures[metric] if metric in MORE else figures[metric]
