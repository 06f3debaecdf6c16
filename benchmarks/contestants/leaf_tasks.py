"""LEAF: tasks on nodes and data flows on links, reserved and released for every request.

LEAF has neither queues nor requests: what does not fit is refused. So SimPy's Resources do the queueing in front of
its nodes and links, as its own examples have SimPy processes place tasks.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import simpy
from leaf.application import DataFlow, Task
from leaf.infrastructure import Infrastructure, Link, Node
from leaf.power import PowerModelLink, PowerModelNode

from benchmarks.workload import DELAY_S, DEVICE_S, DOWN_S, EDGE_S, RATE_BPS, UP_S, WORKERS

Process = Generator[simpy.Event, Any, None]


def run(arrivals: list[float]) -> list[float]:
    """Response times in seconds, in order of arrival."""
    env = simpy.Environment()
    device = Node("device", cu=1, power_model=PowerModelNode(max_power=5, static_power=1))
    edge = Node("edge", cu=WORKERS, power_model=PowerModelNode(max_power=100, static_power=20))
    up = Link(device, edge, RATE_BPS, PowerModelLink(1e-9), DELAY_S)
    down = Link(edge, device, RATE_BPS, PowerModelLink(1e-9), DELAY_S)
    infrastructure = Infrastructure()
    for link in (up, down):
        infrastructure.add_link(link)
    turns = {place: simpy.Resource(env, n) for place, n in ((device, 1), (up, 1), (edge, WORKERS), (down, 1))}
    answered = [0.0] * len(arrivals)

    def compute(node: Node, seconds: float) -> Process:
        with turns[node].request() as turn:
            yield turn
            task = Task(cu=1)
            task.allocate(node)
            yield env.timeout(seconds)
            task.deallocate()

    def send(link: Link, seconds: float) -> Process:
        with turns[link].request() as turn:
            yield turn
            flow = DataFlow(RATE_BPS)
            flow.allocate([link])
            yield env.timeout(seconds)
            flow.deallocate()
        yield env.timeout(link.latency)

    def request(number: int) -> Process:
        yield from compute(device, DEVICE_S)
        yield from send(up, UP_S)
        yield from compute(edge, EDGE_S)
        yield from send(down, DOWN_S)
        answered[number] = env.now - arrivals[number]

    def source() -> Process:
        for number, at in enumerate(arrivals):
            yield env.timeout(at - env.now)
            env.process(request(number))

    env.process(source())
    env.run()
    return answered
