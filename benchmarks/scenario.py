"""The workload as a scenario of splitexit's own."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workload import DELAY_S, DEVICE_S, DOWN_BYTES, EDGE_S, PER_S, RATE_BPS, UP_BYTES, WORKERS
from splitexit.calibration import Calibration, Distribution, Rpc
from splitexit.decision import ExitCheck, Observation, Plan
from splitexit.experiment import Experiment
from splitexit.policies import Policy
from tests import synthetic

EXITS = 6
_folder = tempfile.TemporaryDirectory(prefix="splitexit-benchmark-")


class AskedAgain(Policy):
    """Reads six exits that never fire and is asked again after each; then it offloads."""

    revises = True
    reads = frozenset({"readings"})

    def __init__(self) -> None:
        checks = tuple(ExitCheck(e, "max_prob", 2.0) for e in range(EXITS))
        self._plan = Plan(exits=checks, split=EXITS, codec="uint8")

    def decide(self, observation: Observation) -> Plan:
        """The same plan every time."""
        return self._plan


@cache
def experiment(requests: int, exits: int = 1, devices: int = 1, cells: int = 0) -> Experiment:
    """The device's stages, one for every exit, take 5 ms together; the edge's one takes 2 ms.

    Args:
        requests: of every device.
        exits: stages on the device, each with an exit.
        devices: how many.
        cells: access points that they share, each as busy as the link of the single device; 0 = links of their own.
    """
    folder = Path(_folder.name) / f"{requests}-{exits}-{devices}-{cells}"
    folder.mkdir()
    model = synthetic.spec(stages=exits + 1)
    pair = (exits, "uint8")
    says = synthetic.recording(model, pairs={pair: UP_BYTES})
    for part in says.parts.values():
        part.pair(*pair).payload_bytes[:] = UP_BYTES
    per_cell = devices // cells if cells else 1
    return synthetic.experiment(
        folder,
        model=model,
        says=says,
        takes=_calibration(exits, pair),
        requests=requests,
        devices__count=devices,
        devices__arrivals={"name": "poisson", "rate_hz": PER_S / per_cell},
        devices__policy="plain",
        devices__deadline_ms=60_000.0,
        edge__workers=WORKERS * max(cells, devices if not cells else 1),
        policies={
            "plain": {"name": "offload", "split": exits, "codec": "uint8"},
            "asked-again": {"name": "benchmarks.scenario:AskedAgain"},
        },
        **_links(cells),
    )


def _calibration(exits: int, pair: tuple[int, str]) -> Calibration:
    takes = synthetic.calibration(
        synthetic.spec(stages=exits + 1), pairs=[pair], rpc=Rpc(0, DOWN_BYTES, Distribution.constant(0.0))
    )
    early_s = round(DEVICE_S / exits, 4)  # calibration.json keeps six digits, and the sum must be exact
    seconds = (*[early_s] * (exits - 1), DEVICE_S - early_s * (exits - 1), EDGE_S)
    object.__setattr__(takes, "stages", tuple(map(Distribution.constant, seconds)))
    return takes


def _links(cells: int) -> dict[str, Any]:
    link = {"name": "constant", "mbps": RATE_BPS / 1e6, "delay_ms": 1e3 * DELAY_S}
    links: dict[str, Any] = {"uplink": link, "downlink": dict(link)}
    if cells:
        links |= {"access_points": {"cell": {"count": cells}}, "devices__access_point": "cell"}
    return links


def arrivals(requests: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Seconds at which the single device's requests arrive; those of fewer requests are the first of more."""
    return np.asarray(experiment(requests).workload(0, 0).arrival_s)
