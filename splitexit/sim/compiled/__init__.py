"""The same simulation, compiled: where decisions can be known before the queues are.

    journeys, choices   what the policy does with every sample, by driving splitexit.inference beforehand
    times, requests     the same random streams, stretch by stretch
    paths, layout       all of it as arrays
    loop                the event loop: calendar, device, server
    engine              feeds the loop; table, summary, parquet take its rows

Needs numba, the extra `fast`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitexit.experiment import Experiment
from splitexit.sim.compiled.support import supports

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["simulate", "summarise_run", "supports", "to_parquet"]


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


def to_parquet(experiment: Experiment, policy: str, seed: int, path: Path, requests: int | None = None) -> int:
    """The same rows as a Parquet file, written while they come; returns how many.

    Memory does not grow with the number of requests; with several devices the rows go through a file beside `path`
    first, which takes 128 bytes for each. Raises what `simulate` raises, and OSError.
    """
    from splitexit.sim.compiled.engine import Engine
    from splitexit.sim.compiled.parquet import write

    return write(Engine(experiment, policy, seed, requests), path)


def summarise_run(experiment: Experiment, policy: str, seed: int, requests: int | None = None) -> dict[str, Any]:
    """What splitexit.results.summarise says of the rows behind the warm-up, without ever having them all.

    Percentiles are at most 1e-4 off, relatively; memory does not grow with the number of requests. Raises what
    `simulate` raises.
    """
    from splitexit.sim.compiled.engine import Engine
    from splitexit.sim.compiled.summary import Summary

    engine = Engine(experiment, policy, seed, requests)
    summary = Summary(experiment, engine.book)
    for rows in engine.rows():
        summary.add(rows)
    return summary()
