"""A network as a graph of layers (splitexit.partition.Dag): what torch carries out, and what reads what.

Seconds are those that regressions per type of layer say (splitexit.regression).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

import torch
from torch import Tensor

from splitexit.models.layers import Operation, operations
from splitexit.partition import Dag, Way
from splitexit.regression import Regression

FLOAT_BYTES = 4


def graph_of(
    net: Callable[[Tensor], Tensor], input_shape: Sequence[int], laws: Regression, edge_factor: float = 1.0
) -> Dag:
    """The graph of a network that maps one tensor to one tensor; features are sent as they are, in float32.

    Args:
        net: in evaluation mode.
        input_shape: C×H×W.
        laws: of the device.
        edge_factor: what the edge takes, relative to the device.
    """
    found = _needed(operations(lambda: net(torch.zeros(1, *input_shape))))  # the first one makes the input
    readers: list[set[int]] = [set() for _ in found]
    for number, one in enumerate(found):
        for read in one.reads:
            readers[read].add(number)
    device_s = [0.0, *(laws.seconds([one.layer]) for one in found[1:])]
    return Dag(
        tuple(device_s),
        (inf, *(edge_factor * seconds for seconds in device_s[1:])),
        tuple((Way(0.0, 0.0, float(FLOAT_BYTES * one.numbers)),) for one in found),
        tuple(tuple(sorted(numbers)) for numbers in readers),
    )


def _needed(found: Sequence[Operation]) -> list[Operation]:
    """Those that the last one depends on, with their numbers made anew."""
    needed = {len(found) - 1}
    for number in range(len(found) - 1, -1, -1):
        if number in needed:
            needed |= found[number].reads
    new = {number: at for at, number in enumerate(sorted(needed))}
    return [
        Operation(one.layer, one.key, one.run, frozenset(new[read] for read in one.reads), one.numbers)
        for one in (found[number] for number in sorted(needed))
    ]
