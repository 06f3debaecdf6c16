"""Plain SimPy with the fewest events: busy-until clocks, one callback where order may change, no policy, no rows."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import simpy

from benchmarks.workload import DELAY_S, DEVICE_S, DOWN_S, EDGE_S, UP_S, WORKERS


def run(arrivals: list[float]) -> list[float]:
    """Response times in seconds, in order of arrival."""
    env = simpy.Environment()
    free, edge, responses = [0.0, 0.0, 0.0], [0.0] * WORKERS, [0.0] * len(arrivals)
    coming = iter(enumerate(arrivals))

    def then(at: float, function: Callable[[simpy.Event], None], value: int) -> None:
        env.timeout(max(0.0, at - env.now), value).callbacks.append(function)

    def take(station: int, seconds: float) -> float:
        free[station] = max(env.now, free[station]) + seconds
        return free[station]

    def expect() -> None:
        for number, at in coming:
            then(at, arrived, number)
            return

    def arrived(event: simpy.Event) -> None:
        expect()
        then(take(0, DEVICE_S), sent, event.value)

    def sent(event: simpy.Event) -> None:
        then(take(1, UP_S) + DELAY_S, at_edge, event.value)

    def at_edge(event: simpy.Event) -> None:
        done = max(env.now, edge[0]) + EDGE_S
        heapq.heapreplace(edge, done)
        then(done, back, event.value)

    def back(event: simpy.Event) -> None:
        responses[event.value] = take(2, DOWN_S) + DELAY_S - arrivals[event.value]

    expect()
    env.run()
    return responses
