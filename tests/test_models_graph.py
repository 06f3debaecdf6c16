"""Networks as graphs of layers, and where minimum cuts go through them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from splitexit.models import multi_exit
from splitexit.models.graph import graph_of
from splitexit.partition import Cut, Dag, envelope, min_cut
from splitexit.regression import Law, Regression

# 20 GMAC/s for convolutions, 2 µs and 0.2 ns an element for everything else.
LAWS = Regression(
    {
        "conv": Law("linear", (0.0, 0.0, 0.0, 5e-11), 0.0, 1),
        "linear": Law("linear", (0.0, 0.0, 0.0, 5e-11), 0.0, 1),
        "pool": Law("linear", (2e-6, 2e-10, 0.0, 0.0), 0.0, 1),
        "other": Law("linear", (2e-6, 2e-10), 0.0, 1),
    }
)


class Block(nn.Module):
    """A residual block whose shortcut and branch are convolutions, so that there is something to cut inside."""

    def __init__(self) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(4, 4, 1)
        self.narrow, self.widen = nn.Conv2d(4, 2, 3, padding=1), nn.Conv2d(2, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.widen(torch.relu(self.narrow(x))))


def test_a_residual_block_is_a_graph() -> None:
    """Input, shortcut, two convolutions with an activation between, an addition, an activation."""
    dag = graph_of(Block().eval(), (4, 8, 8), LAWS, edge_factor=0.5)
    assert dag.readers == ((1, 2), (5,), (3,), (4,), (5,), (6,), ())
    assert [ways[0].size_bytes for ways in dag.ways] == [4 * 64 * c for c in (4, 4, 2, 2, 4, 4, 4)]
    assert dag.device_s[2] == pytest.approx(5e-11 * 64 * 9 * 4 * 2)
    assert dag.edge_s[1:] == pytest.approx(tuple(0.5 * s for s in dag.device_s[1:]))


def test_views_are_no_layers_and_what_nobody_reads_is_left_out() -> None:
    def net(x: Tensor) -> Tensor:
        torch.exp(x)  # nobody reads it
        first, second = x.flatten(1).split(32, dim=1)
        return first * second.relu()

    dag = graph_of(net, (4, 4, 4), LAWS)
    assert dag.readers == ((1, 2), (2,), ())


def closed(dag: Dag) -> Iterator[Cut]:
    """Every possible cut: with a node, all that it reads is on the device."""
    reads: list[set[int]] = [set() for _ in dag.readers]
    for node, readers in enumerate(dag.readers):
        for reader in readers:
            reads[reader].add(node)

    def extend(node: int, device: frozenset[int]) -> Iterator[Cut]:
        if node == len(dag.readers):
            yield device
            return
        yield from extend(node + 1, device)
        if reads[node] <= device:
            yield from extend(node + 1, device | {node})

    return extend(1, frozenset({0}))


def test_the_minimum_cut_of_a_network_is_brute_force() -> None:
    torch.manual_seed(0)
    dag = graph_of(nn.Sequential(nn.MaxPool2d(2), Block(), Block()).eval(), (4, 32, 32), LAWS, edge_factor=0.1)
    every, inside = list(closed(dag)), 0
    assert len(every) > len(dag.readers)
    for rate_bps in np.geomspace(1e6, 1e12, 40):
        per_byte_s = 8 / rate_bps
        found = min_cut(dag, per_byte_s, offload_s=1e-5)
        best_s = min(dag.delay_s(cut, per_byte_s, 1e-5) for cut in every)
        assert dag.delay_s(found, per_byte_s, 1e-5) == pytest.approx(best_s, rel=1e-9)
        inside += 1 < len(found) < len(dag.readers)
    assert inside >= 3, "some links call for a cut between input and answer"


BACKBONES: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "resnet": ({"name": "resnet", "depth": 20}, (3, 32, 32)),
    "resnet18": ({"name": "resnet18", "stem": "imagenet"}, (3, 224, 224)),
    "mobilenetv2": ({"name": "mobilenetv2", "stem": "imagenet"}, (3, 224, 224)),
    "msdnet": ({"name": "msdnet"}, (3, 32, 32)),
}


@cache
def backbone(name: str) -> Dag:
    spec, shape = BACKBONES[name]
    net = multi_exit.build(multi_exit.NetConfig(spec, shape, num_classes=10, shares=())).eval()
    return graph_of(nn.Sequential(*net.stages, net.heads[-1]), shape, LAWS, edge_factor=0.1)


@pytest.mark.parametrize("name", BACKBONES)
def test_no_link_calls_for_a_cut_inside_a_block(name: str) -> None:
    """Graphs these are; but whatever the link, the best cut sends one tensor, so a chain of blocks loses nothing."""
    dag = backbone(name)
    assert sum(len(readers) > 1 for readers in dag.readers) >= 8
    for cut in envelope(dag):
        assert sum(node in cut and not cut.issuperset(readers) for node, readers in enumerate(dag.readers)) == 1


def test_mobilenet_is_cut_in_between() -> None:
    """Its narrow ends of blocks hold less than the image does: interior cuts, unlike those of the residual networks."""
    assert len(envelope(backbone("mobilenetv2"))) > len(envelope(backbone("resnet18")))
