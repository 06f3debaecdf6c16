"""The same simulation, compiled: where decisions can be known before the queues are.

    journeys, choices   what the policy does with every sample, by driving splitexit.inference beforehand
    times, requests     the same random streams, stretch by stretch
    paths, layout       all of it as arrays
    loop                the event loop: calendar, device, server
    engine              feeds the loop; table, summary, parquet take its rows

Needs numba, the extra `fast`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from splitexit.experiment import Experiment
from splitexit.sim.compiled.support import supports

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["simulate", "supports"]


def simulate(experiment: Experiment, policy: str, seed: int, requests: int | None = None) -> pa.Table:
    """What splitexit.sim.simulate says, as a table in order of (device, request); energy is NaN.

    Args and errors as there.

    Raises:
        InputError: also where the compiled engine cannot run this (see `supports`).
        ModuleNotFoundError: numba is not installed.
    """
    from splitexit.sim.compiled.engine import Engine
    from splitexit.sim.compiled.table import Columns

    engine = Engine(experiment, policy, seed, requests)
    return Columns(experiment, engine.book).table(engine.ordered())
