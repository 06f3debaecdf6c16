"""Exit heads: small modules from a feature map to the logits of all classes.

A head is built as `Head(shape=(C, H, W), num_classes=K, **hyper_parameters)`, where `shape` is what it reads, and maps
B×C×H×W to B×K class logits. A head that learns when to stop maps to B×(K+1): the last column is the logit of its
confidence, before the sigmoid. What else a head can be is below: `LinearHead`, `Additive`, `Initialised`.
To add one: a file here with one class, and one line in `HEADS`.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor, nn

from splitexit.registry import Registry


class LinearHead(nn.Module):
    """A head that ends in one linear layer, `linear`, so that few classes cost less than all."""

    linear: nn.Linear

    def read(self, features: Tensor) -> Tensor:
        """What the linear layer takes: B×C×H×W -> B×f."""
        raise NotImplementedError

    def forward(self, features: Tensor, classes: Tensor | None = None) -> Tensor:
        """B×C×H×W -> B×K logits, or B×n of the n classes whose numbers are given."""
        if classes is None:
            logits: Tensor = self.linear(self.read(features))
            return logits
        bias = self.linear.bias
        return F.linear(self.read(features), self.linear.weight[classes], None if bias is None else bias[classes])


@runtime_checkable
class Additive(Protocol):
    """A head that, behind a head of its kind, puts out what it adds to what that exit says."""

    def follow(self, before: nn.Module) -> None:
        """From now on adds to `before`, the head of the exit before; called once, before any forward pass."""


@runtime_checkable
class Initialised(Protocol):
    """A head whose weights begin from what it will read."""

    def initialise(self, features: Tensor) -> None:
        """Sets them from B×C×H×W features; called once, before the training starts."""


HEADS: Registry[nn.Module] = Registry(
    "exit head",
    {
        "pooled": "splitexit.models.exits.pooled:Pooled",
        "conv": "splitexit.models.exits.conv:Conv",
        "eenet": "splitexit.models.exits.eenet:EENet",
        "sdn": "splitexit.models.exits.sdn:SDN",
        "sidenet": "splitexit.models.exits.sidenet:SideNet",
        "exclusion": "splitexit.models.exits.exclusion:Exclusion",
        "msdnet": "splitexit.models.exits.msdnet:MSDNet",
        "bof": "splitexit.models.exits.bof:BoF",
    },
)
