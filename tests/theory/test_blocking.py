"""Queues with little room against the loss formulas, each within its 99.9 % interval."""

from __future__ import annotations

from math import factorial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from splitexit.calibration import Distribution
from splitexit.results import column
from tests.theory.stations import SERVICE_S, Floats, assert_within, edge, exponential, means, two_sizes

REQUESTS = 2_000
LOADS = [0.5, 0.9, 1.5]


def shed(table: pa.Table) -> Floats:
    """1 for a request that was refused."""
    return column(table, "shed").astype(float)


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("places", [3, 6])
def test_share_of_refused_is_that_of_m_m_1_k(tmp_path: Path, places: int, load: float) -> None:
    """(1 - ρ) ρ^K / (1 - ρ^(K+1)): K - 1 wait and one is served (Kleinrock, Queueing Systems I, 1975, 3.6)."""
    experiment = edge(tmp_path, [exponential()], load / SERVICE_S, REQUESTS, edge__queue=places - 1)
    assert_within(means(experiment, shed), (1 - load) * load**places / (1 - load ** (places + 1)), widest=0.4)


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("law", [Distribution.constant(SERVICE_S), two_sizes()], ids=["deterministic", "two sizes"])
def test_share_of_refused_without_a_queue_is_erlangs(tmp_path: Path, law: Distribution, load: float) -> None:
    """Erlang's loss formula (1917) holds for any law of service (Sevastyanov 1957)."""
    workers = 3
    offered = load * workers
    experiment = edge(tmp_path, [law], offered / SERVICE_S, REQUESTS, edge__workers=workers, edge__queue=0)
    terms = [offered**k / factorial(k) for k in range(workers + 1)]
    assert_within(means(experiment, shed), terms[-1] / sum(terms))


@pytest.mark.parametrize("think_s", [0.5 * SERVICE_S, 3 * SERVICE_S, 10 * SERVICE_S])
def test_devices_that_wait_for_each_answer_and_think(tmp_path: Path, think_s: float) -> None:
    """The machine repairman: throughput of a closed network, whatever the law of thinking.

    Exact mean value analysis (Reiser and Lavenberg, JACM 27(2), 1980).
    """
    devices, law = 4, exponential()
    experiment = edge(
        tmp_path,
        [law],
        1.0,
        REQUESTS // devices,
        devices__count=devices,
        devices__arrivals={"name": "closed", "think_ms": 1e3 * think_s},
    )
    queue, response_s = 0.0, 0.0
    for n in range(1, devices + 1):
        response_s = SERVICE_S * (1 + queue)
        queue = n * response_s / (think_s + response_s)
    found = means(experiment, lambda table: np.asarray(column(table, "response_s")))
    assert_within(found, response_s)
