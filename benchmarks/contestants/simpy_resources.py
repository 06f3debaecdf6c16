"""Plain SimPy as its tutorial has it: a process for every request, a Resource for every station."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import simpy

from benchmarks.workload import DELAY_S, DEVICE_S, DOWN_S, EDGE_S, UP_S, WORKERS

Process = Generator[simpy.Event, Any, None]


def run(arrivals: list[float]) -> list[float]:
    """Response times in seconds, in order of arrival."""
    env = simpy.Environment()
    device, up, edge, down = (simpy.Resource(env, n) for n in (1, 1, WORKERS, 1))
    responses = [0.0] * len(arrivals)

    def request(number: int) -> Process:
        for station, seconds, delay in ((device, DEVICE_S, 0.0), (up, UP_S, DELAY_S), (edge, EDGE_S, 0.0)):
            with station.request() as turn:
                yield turn
                yield env.timeout(seconds)
            if delay:
                yield env.timeout(delay)
        with down.request() as turn:
            yield turn
            yield env.timeout(DOWN_S)
        yield env.timeout(DELAY_S)
        responses[number] = env.now - arrivals[number]

    def source() -> Process:
        for number, at in enumerate(arrivals):
            yield env.timeout(at - env.now)
            env.process(request(number))

    env.process(source())
    env.run()
    return responses
