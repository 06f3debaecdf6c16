"""Devices on one access point against closed forms, each within its 99.9 % interval."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from splitexit.experiment import Experiment
from splitexit.results import column
from tests.theory.stations import FREE, NOTHING, Floats, assert_within, edge, means

REQUESTS, DEVICES = 250, 10
BYTES, MBPS = 1000.0, 0.8
SERVICE_S = 8 * BYTES / (MBPS * 1e6)
"""A mean message alone on the link."""
LOADS = [0.3, 0.6, 0.8]
SIZES: dict[str, Floats] = {
    "one size": np.full(500, BYTES),
    "two sizes": np.where(np.arange(500) % 10, 0.5, 5.5) * BYTES,
    "exponential": np.maximum(np.rint(-BYTES * np.log1p(-(np.arange(5000) + 0.5) / 5000)), 1.0),
}


def crowd(folder: Path, sizes: str, load: float, sharing: str) -> Experiment:
    """Ten devices with a Poisson stream each; messages are sent once and nothing else takes time."""
    return edge(
        folder,
        [NOTHING],
        load / (SIZES[sizes].mean() / BYTES * SERVICE_S) / DEVICES,
        REQUESTS,
        sizes_bytes=SIZES[sizes],
        devices__count=DEVICES,
        devices__access_point="cell",
        access_points={"cell": {"sharing": sharing, "uplink": {"name": "constant", "mbps": MBPS}, "downlink": FREE}},
    )


def transit(table: pa.Table) -> Floats:
    """Seconds from the device to the edge and back."""
    return column(table, "network_s")


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("sizes", SIZES)
def test_processor_sharing_depends_on_the_load_alone(tmp_path: Path, sizes: str, load: float) -> None:
    """E[S] / (1 - ρ), whatever the law of sizes (Kleinrock, Queueing Systems II, 1976, section 4.4)."""
    found = means(crowd(tmp_path, sizes, load, "processor"), transit)
    assert_within(found, SIZES[sizes].mean() / BYTES * SERVICE_S / (1 - load), widest=0.3)


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("sizes", SIZES)
def test_first_come_first_served_is_m_g_1(tmp_path: Path, sizes: str, load: float) -> None:
    """Pollaczek and Khinchine, with the time on the link."""
    service_s = SIZES[sizes] / BYTES * SERVICE_S
    wait_s = load * (service_s**2).mean() / service_s.mean() / (2 * (1 - load))
    found = means(crowd(tmp_path, sizes, load, "fifo"), transit)
    assert_within(found, service_s.mean() + wait_s, widest=0.35)
