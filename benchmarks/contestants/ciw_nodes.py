"""Ciw: a node for every station, and nodes of infinitely many servers for propagation."""

from __future__ import annotations

from typing import Any

import ciw
import numpy as np

from benchmarks.workload import DELAY_S, DEVICE_S, DOWN_S, EDGE_S, UP_S, WORKERS

STATIONS = (
    (1, DEVICE_S),
    (1, UP_S),
    (float("inf"), DELAY_S),
    (WORKERS, EDGE_S),
    (1, DOWN_S),
    (float("inf"), DELAY_S),
)
"""(servers, seconds) in the order of a request."""


def run(arrivals: list[float]) -> list[Any]:
    """Ciw's records, one per customer and node."""
    gaps = [*np.diff(arrivals, prepend=0.0).tolist(), float("inf")]
    count = len(STATIONS)
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Sequential(gaps), *[None] * (count - 1)],
        service_distributions=[ciw.dists.Deterministic(seconds) for _, seconds in STATIONS],
        routing=[[float(there == here + 1) for there in range(count)] for here in range(count)],
        number_of_servers=[servers for servers, _ in STATIONS],
    )
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(len(arrivals))
    records: list[Any] = simulation.get_all_records()
    return records


def responses(records: list[Any], arrivals: list[float]) -> list[float]:
    """From arrival at the first node to leaving the last."""
    left = {record.id_number: record.exit_date for record in records if record.node == len(STATIONS)}
    came = {record.id_number: record.arrival_date for record in records if record.node == 1}
    return [left[customer] - came[customer] for customer in sorted(left)]
