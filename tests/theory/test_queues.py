"""The simulator against closed forms: waits of M/D/1 and M/M/c within the 99.9 % interval.

The mean wait of one run is an average of dependent values, so the interval comes from independent runs.
"""

from __future__ import annotations

from math import factorial
from pathlib import Path

import numpy as np
import pytest
from scipy.special import stdtrit

from splitexit.calibration import Distribution, Rpc
from splitexit.experiment import Experiment
from splitexit.results import column, to_table
from splitexit.sim import simulate
from tests import synthetic

RUNS, REQUESTS, WARM_UP = 12, 9_000, 1_000


def mean_waits(experiment: Experiment, policy: str, wait: str) -> np.ndarray:
    """Mean wait of each run, its first requests left out."""
    means = []
    for seed in range(RUNS):
        table = to_table(simulate(experiment, policy, seed))
        waits = column(table, "start_s") - column(table, "arrival_s") if wait == "device" else column(table, wait)
        means.append(waits[WARM_UP:].mean())
    return np.asarray(means)


def assert_within(means: np.ndarray, expected: float) -> None:
    half = stdtrit(RUNS - 1, 0.9995) * means.std(ddof=1) / np.sqrt(RUNS)
    assert abs(means.mean() - expected) <= half, (means.mean(), expected, half)
    assert half < 0.2 * expected, "the interval is too wide to test anything"


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_wait_at_the_device_is_that_of_m_d_1(tmp_path: Path, load: float) -> None:
    """ρ s / (2 (1 − ρ)), Pollaczek and Khinchine, for three stages of 10 ms."""
    service_s = 0.030
    experiment = synthetic.experiment(
        tmp_path,
        requests=REQUESTS,
        devices__arrivals={"name": "poisson", "rate_hz": load / service_s},
        devices__deadline_ms=60e3,
    )
    assert_within(mean_waits(experiment, "local", "device"), load * service_s / (2 * (1 - load)))


def erlang_c_wait(load: float, servers: int, service_s: float) -> float:
    """Mean wait of M/M/c."""
    a = load * servers
    tail = a**servers / (factorial(servers) * (1 - load))
    busy = tail / (sum(a**k / factorial(k) for k in range(servers)) + tail)
    return busy * service_s / (servers * (1 - load))


@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (2, 0.6), (4, 0.8)])
def test_wait_at_the_edge_is_that_of_m_m_c(tmp_path: Path, servers: int, load: float) -> None:
    """Poisson arrivals reach the edge unchanged: the device costs nothing and the link is as good as infinite."""
    service_s = 0.010
    u = np.linspace(0.0, 1.0, 4001)
    quantiles = -service_s * np.log1p(-np.minimum(u, 1 - 1e-5))
    exponential = Distribution(tuple(quantiles * (service_s / Distribution(tuple(quantiles)).mean)))
    model = synthetic.spec(stages=1)
    pair = (0, "jpeg")
    experiment = synthetic.experiment(
        tmp_path,
        model=model,
        says=synthetic.recording(model, pairs={pair: 100}),
        takes=synthetic.calibration(model, exponential, pairs=[pair], rpc=Rpc(0, 1, Distribution.constant(0.0))),
        requests=REQUESTS,
        devices__arrivals={"name": "poisson", "rate_hz": load * servers / service_s},
        devices__deadline_ms=60e3,
        uplink={"name": "constant", "mbps": 1e6, "delay_ms": 0.0},
        downlink={"name": "constant", "mbps": 1e6, "delay_ms": 0.0},
        edge__workers=servers,
    )
    assert_within(mean_waits(experiment, "offload", "edge_wait_s"), erlang_c_wait(load, servers, service_s))


def test_a_request_into_empty_queues_is_the_sum_of_its_parts(tmp_path: Path) -> None:
    """Closed form of policies.md §0 to 1e-9, for a split with every part priced."""
    model = synthetic.spec()
    rpc = Rpc(60, 100, Distribution.constant(0.0007))
    experiment = synthetic.experiment(
        tmp_path,
        takes=synthetic.calibration(model, 0.010, head=0.001, codec=0.002, rpc=rpc),
        devices__arrivals={"name": "periodic", "rate_hz": 1.0},
        requests=20,
    )
    table = to_table(simulate(experiment, "split", 0))
    sizes = column(table, "payload_bytes") + 60
    up_s, down_s = 8 * sizes / 8e6 + 0.005, 8 * 100 / 8e6 + 0.005
    device_s, edge_s = 0.010 + 0.002, 0.002 + 0.020 + 0.001
    np.testing.assert_allclose(
        column(table, "response_s"), device_s + up_s + 0.0007 + edge_s + down_s, rtol=0, atol=1e-9
    )
    assert (column(table, "start_s") == column(table, "arrival_s")).all()
