"""Single stations of the simulator under test: everything else about a request costs nothing.

The device runs the model's first stage, which takes no time, and sends two bytes over a link as good as infinite; the
other stages are the service. A device that is refused answers at once by its first exit, so that what the edge sees of
it stays as it came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.special import stdtrit

from splitexit.calibration import Distribution, Rpc
from splitexit.experiment import Experiment
from splitexit.results import column, to_table
from splitexit.sim import simulate
from tests import synthetic

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]

NOTHING = Distribution.constant(0.0)
FREE = {"name": "constant", "mbps": 1e6, "delay_ms": 0.0}
"""A link that carries two bytes in 16 ps."""
PAIR = (1, "raw")
SERVICE_S = 0.010
ALONE = {1: 1.0}
RUNS = 20
"""Independent runs behind every interval."""


def exponential(mean_s: float = SERVICE_S, points: int = 4001) -> Distribution:
    """Nearly the exponential law: cut off at its quantile 1 - 1e-5, and linear between `points` of them."""
    u = np.minimum(np.linspace(0.0, 1.0, points), 1 - 1e-5)
    law = Distribution(tuple((-np.log1p(-u)).tolist()))
    return law.scaled(mean_s / law.mean)


def two_sizes(mean_s: float = SERVICE_S) -> Distribution:
    """Nine jobs in ten take half the mean, one 5.5 times: the squared coefficient of variation is about 2.25."""
    law = Distribution((0.5,) * 900 + (5.5,) * 100)
    return law.scaled(mean_s / law.mean)


def variation(law: Distribution) -> float:
    """Squared coefficient of variation of a piecewise linear quantile function, exactly."""
    q = np.asarray(law.quantiles)
    below, above = q[:-1], q[1:]
    return float(((below**2 + below * above + above**2) / 3).mean() / law.mean**2 - 1.0)


def edge(
    folder: Path,
    services: Sequence[Distribution],
    rate_hz: float,
    requests: int,
    *,
    batch: Mapping[int, float] = ALONE,
    sizes_bytes: Floats | None = None,
    **changes: Any,
) -> Experiment:
    """A Poisson stream of `rate_hz` from every device that reaches an edge.

    Args:
        folder: for the files.
        services: what the stages there take.
        rate_hz, requests: of each device.
        batch: relative time of a pass by the number of samples.
        sizes_bytes: of the payloads, by sample.
        changes: of the scenario, see synthetic.write_scenario.
    """
    model = synthetic.spec(stages=1 + len(services))
    passed_on = {(stage, "raw"): 2 for stage in range(1, model.num_stages)}
    says = synthetic.recording(model, samples=50 if sizes_bytes is None else len(sizes_bytes), pairs=passed_on)
    if sizes_bytes is not None:
        says.test.pair(*PAIR).payload_bytes = sizes_bytes.astype(np.uint32)
    takes = synthetic.calibration(model, pairs=list(passed_on), rpc=Rpc(0, 1, NOTHING))
    changes = {
        "requests": requests,
        "devices__arrivals": {"name": "poisson", "rate_hz": float(rate_hz)},
        "devices__deadline_ms": 3.6e6,
        "uplink": FREE,
        "downlink": FREE,
        "policies": {"send": {"name": "offload", "split": PAIR[0], "codec": PAIR[1]}},
    } | changes
    takes = replace(takes, stages=(NOTHING, *services), batch=batch)
    return synthetic.experiment(folder, model=model, says=says, takes=takes, **changes)


def tables(experiment: Experiment, policy: str = "send", runs: int = RUNS) -> list[pa.Table]:
    """The rows of every run."""
    return [to_table(simulate(experiment, policy, seed)) for seed in range(runs)]


def means(
    experiment: Experiment,
    of: Callable[[pa.Table], Floats],
    warm_up: float = 0.1,
    policy: str = "send",
    runs: int = RUNS,
) -> list[float]:
    """Mean of each run over what arrived after the first `warm_up` of it, and while every device sends."""
    found = []
    for table in tables(experiment, policy, runs):
        arrival_s, device = column(table, "arrival_s"), column(table, "device")
        end_s = min(arrival_s[device == number].max() for number in range(experiment.total_devices))
        counts = (arrival_s >= warm_up * end_s) & (arrival_s <= end_s)
        found.append(float(of(table)[counts].mean()))
    return found


def waits(table: pa.Table) -> Floats:
    """Seconds in the queues behind the link."""
    return column(table, "edge_wait_s")


def assert_within(found: list[float], expected: float, widest: float = 0.2) -> None:
    """The mean of independent runs is the expected one by Student's t at 99.9 %, and that says something."""
    half = stdtrit(len(found) - 1, 0.9995) * np.std(found, ddof=1) / np.sqrt(len(found))
    assert abs(np.mean(found) - expected) <= half, (np.mean(found), expected, half)
    assert half < widest * expected, "the interval is too wide to test anything"
