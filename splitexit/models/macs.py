"""What modules cost: multiply-accumulates of convolutions and linear layers, for one image.

Batch normalisation, activations and pooling are left out, as in torch.utils.flop_counter, which counts two
operations where this counts one multiply-accumulate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates, number of conv and linear layers, and the shape that comes out (no batch)."""

    macs: int
    layers: int
    output_shape: Shape


def measure(module: nn.Module, shape: Shape) -> Cost:
    """Runs `module` once on zeros of 1×`shape` and counts; leaves it in the mode it was in."""
    counts: list[int] = []

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counts.append(_macs(layer, output))

    layers = [m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    training = module.training
    try:
        with torch.no_grad():
            output = module.eval()(torch.zeros(1, *shape))
    finally:
        module.train(training)
        for hook in hooks:
            hook.remove()
    return Cost(sum(counts), len(counts), tuple(output.shape[1:]))


def _macs(layer: nn.Module, y: Tensor) -> int:
    # The weights that one output element reads: (out, in) or (out, in / groups, height, width), less the first.
    weight: Tensor = layer.get_parameter("weight")
    return y.numel() * weight[0].numel()
