"""Simulators of the same workload, one file each; the table says which there are.

A contestant's module has `run(arrivals)`, which is timed and simulates requests that arrive at these seconds, and
returns their response times in seconds, in order of arrival. Where response times are more work to get at than a user
would do, `run` returns whatever it likes and `responses(result, arrivals)` makes them of it, untimed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Contestant:
    """One simulator.

    Args:
        name, title: in the document and in print.
        module: of this package.
        package: the distribution that the module needs, pinned in requirements.txt; none for those of splitexit itself.
        times: it simulates so many times the requests that the others do, because a run would be too short to time.
    """

    name: str
    title: str
    module: str
    package: str = ""
    times: int = 1


REFERENCE = "simpy-resources"
"""Whose response times are the right ones, and whose speed is the unit of the ratios."""

CONTESTANTS = (
    Contestant(REFERENCE, "SimPy, a process per request", "simpy_resources"),
    Contestant("simpy-fewest", "SimPy, fewest events, no policy", "simpy_fewest"),
    Contestant("splitexit-simpy", "splitexit, SimPy engine, full rows", "splitexit_simpy"),
    Contestant("splitexit-simpy-asked-again", "splitexit, SimPy engine, asked again at six exits", "splitexit_again"),
    Contestant("splitexit-compiled-rows", "splitexit, compiled, full rows to Parquet", "splitexit_rows", times=50),
    Contestant("splitexit-compiled", "splitexit, compiled, summaries", "splitexit_summary", times=50),
    Contestant("ns.py", "ns.py 0.4.3", "ns_ports", "ns.py"),
    Contestant("leaf", "LEAF 0.4.2", "leaf_tasks", "leafsim"),
    Contestant("ciw", "Ciw 3.2.7", "ciw_nodes", "ciw"),
    Contestant("yafs", "YAFS 3", "yafs_relays", "yafs"),
)
