"""Does the number of requests in the system grow as the run goes on?

An average over a queue that grows says how long the run was and nothing else. So every summary has a verdict:

    stable       no growth
    backlogged   it grew and levelled off, or a bounded queue turns work away: more comes than can be done in time
    unstable     it grows, and still does in the second half of the run

The test: the run, from the end of the warm-up to where devices run out of requests, is cut into 32 windows of equal
length (batches, as Schmeiser, Operations Research 30, 1982, 556, has them), and the changes of the number in system
over the windows, of all replications, are put to Student's one-sided t test at 1 %. Where the system is unstable the
number is a random walk that drifts upward, so its changes are as good as independent (Asmussen, Applied Probability
and Queues, 2003, III.6); where it is stable they cancel out, and the test refuses less often than it may. The growth
must also be 2 % of the requests that arrived meanwhile, for an unstable queue keeps 1 − 1/load of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

STABLE, BACKLOGGED, UNSTABLE = "stable", "backlogged", "unstable"
WINDOWS = 32
SIGNIFICANCE = 0.01
GROWTH = 0.02
"""Growth relative to the arrivals: loads over 1.02 can be found out."""

TURNED_AWAY = 0.01
"""A larger share of shed requests is a backlog that the bounded queue hides."""


class Changes(NamedTuple):
    """What each window of one run added to the number in system, and the arrivals of all windows together."""

    added: Array
    arrivals: int


def changes(arrival_s: Array, done_s: Array, from_s: float = 0.0, until_s: float | None = None) -> Changes:
    """Of one run's rows, from `from_s` to `until_s` (default: the last arrival)."""
    end_s = float(arrival_s.max(initial=from_s)) if until_s is None else max(until_s, from_s)
    edges = np.linspace(from_s, end_s, WINDOWS + 1)
    present = np.searchsorted(np.sort(arrival_s), edges, "right") - np.searchsorted(np.sort(done_s), edges, "right")
    return Changes(np.diff(present), int(((arrival_s >= from_s) & (arrival_s <= end_s)).sum()))


def while_all_work(device: Array, arrival_s: Array) -> float:
    """Until when nearly all devices still had requests: where the first tenth of them has run out.

    Devices make equally many requests, so that some end before others, and the load falls before the run is over.
    """
    _, number = np.unique(device, return_inverse=True)
    last_s = np.zeros(number.max(initial=0) + 1)
    np.maximum.at(last_s, number, arrival_s)
    return float(np.quantile(last_s, 0.1, method="lower"))


def verdict(runs: Sequence[Changes], shed_rate: float = 0.0) -> str:
    """STABLE, BACKLOGGED or UNSTABLE, of all replications together."""
    added, arrivals = np.array([run.added for run in runs]), float(np.mean([run.arrivals for run in runs]))
    if not _grows(added, arrivals):
        return BACKLOGGED if shed_rate > TURNED_AWAY else STABLE
    return UNSTABLE if _grows(added[:, WINDOWS // 2 :], arrivals / 2) else BACKLOGGED


def _grows(added: Array, arrivals: float) -> bool:
    """Whether the changes (replications x windows) have a mean above zero that matters."""
    return added.sum(axis=1).mean() > max(1.0, GROWTH * arrivals) and p_value(added.ravel()) < SIGNIFICANCE


def p_value(added: Array) -> float:
    """How likely so large a mean is where the true one is not above zero."""
    from scipy.special import stdtr

    n, mean, spread = len(added), float(added.mean()), float(added.std(ddof=1))
    if spread == 0:
        return 0.0 if mean > 0 else 1.0
    return 1 - float(stdtr(n - 1, mean * math.sqrt(n) / spread))
