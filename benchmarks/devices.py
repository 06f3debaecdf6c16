"""What many devices cost the SimPy engine: devices that share access points, beside one with as many requests.

Every hundred devices share a cell that is as busy as the single device's link, and the edge grows with the cells, so
that a request meets the same queues. All of `simulate` is timed, the building of the devices too.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.scenario import experiment
from splitexit.experiment import Experiment
from splitexit.sim import simulate

PER_CELL = 100


def measure(devices: int, requests: int, rounds: int) -> dict[str, Any]:
    """Requests per CPU second of both, best of the rounds, asked in turn.

    Args:
        devices: a multiple of PER_CELL.
        requests: of all devices together, at least one each.
        rounds: how often each is timed.
    """
    each = max(1, requests // devices)
    one, many = experiment(each * devices), experiment(each, devices=devices, cells=devices // PER_CELL)
    seconds = [(_seconds(one), _seconds(many)) for _ in range(rounds)]
    of_one, of_many = (each * devices / min(column) for column in zip(*seconds, strict=True))
    return {
        "devices": devices,
        "cells": devices // PER_CELL,
        "requests": each * devices,
        "rounds": rounds,
        "requests_per_s": {"one-device": of_one, "many-devices": of_many},
        "ratio": of_many / of_one,
    }


def table(found: dict[str, Any]) -> str:
    """For people."""
    per_s = found["requests_per_s"]
    return (
        f"{found['requests']:,} requests, best of {found['rounds']}, SimPy engine, full rows\n\n"
        f"one device {per_s['one-device']:33,.0f} requests/s\n"
        f"{found['devices']:,} devices on {found['cells']:,} cells".ljust(32)
        + f"{per_s['many-devices']:12,.0f} requests/s, {found['ratio']:.2f} times as many"
    )


def _seconds(of: Experiment) -> float:
    start = time.process_time()
    simulate(of, "plain", 0)
    return time.process_time() - start
