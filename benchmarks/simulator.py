"""Requests per second of the simulator beside plain SimPy, on the same arrivals; response times must agree.

The workload: Poisson arrivals at 120/s; device 5 ms; 8,192 bytes at 20 Mbit/s and 5 ms of propagation; an edge of two
workers at 2 ms; 100 bytes back. Everything first come, first served. Seconds are CPU seconds of this process, the best
of some rounds, because other work on the machine only ever adds to them.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simpy

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from splitexit.calibration import Distribution, Rpc
from splitexit.decision import ExitCheck, Observation, Plan
from splitexit.experiment import Experiment
from splitexit.policies import Policy
from splitexit.sim import simulate
from tests import synthetic

DEVICE_S, EDGE_S, WORKERS = 0.005, 0.002, 2
UP_BYTES, DOWN_BYTES, RATE_BPS, DELAY_S, PER_S = 8192, 100, 20e6, 0.005, 120.0
UP_S, DOWN_S = 8 * UP_BYTES / RATE_BPS, 8 * DOWN_BYTES / RATE_BPS
EXITS = 6


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


def experiment(folder: Path, requests: int, exits: int) -> Experiment:
    """The workload as a scenario: the device's stages take 5 ms together, the edge's one takes 2 ms."""
    model = synthetic.spec(stages=exits + 1)
    pair = (exits, "uint8")
    says = synthetic.recording(model, pairs={pair: UP_BYTES})
    for part in says.parts.values():
        part.pair(*pair).payload_bytes[:] = UP_BYTES
    takes = synthetic.calibration(model, pairs=[pair], rpc=Rpc(0, DOWN_BYTES, Distribution.constant(0.0)))
    stages = tuple(Distribution.constant(t) for t in (*[DEVICE_S / exits] * exits, EDGE_S))
    object.__setattr__(takes, "stages", stages)
    link = {"name": "constant", "mbps": RATE_BPS / 1e6, "delay_ms": 1e3 * DELAY_S}
    return synthetic.experiment(
        folder,
        model=model,
        says=says,
        takes=takes,
        requests=requests,
        devices__arrivals={"name": "poisson", "rate_hz": PER_S},
        devices__policy="plain",
        devices__deadline_ms=60_000.0,
        uplink=link,
        downlink=dict(link),
        edge__workers=WORKERS,
        policies={
            "plain": {"name": "offload", "split": exits, "codec": "uint8"},
            "asked-again": {"name": "benchmarks.simulator:AskedAgain"},
        },
    )


def naive(arrivals: list[float]) -> list[float]:
    """Plain SimPy as its tutorial has it: a process for every request, a Resource for every station."""
    env = simpy.Environment()
    device, up, edge, down = (simpy.Resource(env, n) for n in (1, 1, WORKERS, 1))
    responses = [0.0] * len(arrivals)

    def request(number: int) -> object:
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

    def source() -> object:
        for number, at in enumerate(arrivals):
            yield env.timeout(at - env.now)
            env.process(request(number))

    env.process(source())
    env.run()
    return responses


def fewest(arrivals: list[float]) -> list[float]:
    """Plain SimPy with the fewest events: busy-until clocks, one callback where order may change, no policy."""
    env = simpy.Environment()
    free, edge, responses = [0.0, 0.0, 0.0], [0.0] * WORKERS, [0.0] * len(arrivals)

    def then(at: float, function: Callable[[simpy.Event], None], value: int) -> None:
        env.timeout(max(0.0, at - env.now), value).callbacks.append(function)

    def take(station: int, seconds: float) -> float:
        free[station] = max(env.now, free[station]) + seconds
        return free[station]

    def arrived(event: simpy.Event) -> None:
        then(take(0, DEVICE_S), sent, event.value)

    def sent(event: simpy.Event) -> None:
        then(take(1, UP_S) + DELAY_S, at_edge, event.value)

    def at_edge(event: simpy.Event) -> None:
        done = max(env.now, edge[0]) + EDGE_S
        heapq.heapreplace(edge, done)
        then(done, back, event.value)

    def back(event: simpy.Event) -> None:
        responses[event.value] = take(2, DOWN_S) + DELAY_S - arrivals[event.value]

    for number, at in enumerate(arrivals):
        then(at, arrived, number)
    env.run()
    return responses


def rate(work: Callable[[], object], requests: int, rounds: int) -> float:
    """Requests per CPU second, the best of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return requests / best


def measure(requests: int, rounds: int) -> dict[str, float]:
    """Every contestant's requests per second; raises AssertionError where response times differ."""
    with tempfile.TemporaryDirectory() as folder:
        one = experiment(Path(folder) / "one", requests, 1)
        six = experiment(Path(folder) / "six", requests, EXITS)
    arrivals = list(one.workload(0, 0).arrival_s or ())
    rows = sorted(simulate(one, "plain", 0))
    for plain in (naive, fewest):
        np.testing.assert_allclose([row.response_s for row in rows], plain(arrivals), rtol=0, atol=1e-9)
    contestants: dict[str, Callable[[], object]] = {
        "splitexit, plan without revision": lambda: simulate(one, "plain", 0),
        "splitexit, asked again at six exits": lambda: simulate(six, "asked-again", 0),
        "SimPy, a process per request": lambda: naive(arrivals),
        "SimPy, fewest events, no policy": lambda: fewest(arrivals),
    }
    return {name: rate(work, requests, rounds) for name, work in contestants.items()}


def main() -> None:
    """Prints the table, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20,000 requests, 3 rounds instead of 100,000 and 5")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    requests, rounds = (20_000, 3) if options.quick else (100_000, 5)
    found = measure(requests, rounds)
    base = found["SimPy, a process per request"]
    if options.json:
        print(json.dumps({"requests": requests, "requests_per_s": found}, indent=2))
        return
    print(f"{requests:,} requests, best of {rounds}; response times agree to 1e-9 s")
    for name, per_s in found.items():
        print(f"{name:38s} {per_s:10,.0f} requests/s   {per_s / base:5.2f} x")


if __name__ == "__main__":
    main()
