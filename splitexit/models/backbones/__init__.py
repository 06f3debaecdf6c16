"""Backbones: the networks that are cut into stages.

A backbone is a recipe: hyper-parameters, and `blocks`, which builds its finest units in order. It is a chain, so
the network may be cut behind any block; `multi_exit` groups blocks into stages and hangs the exit heads on them.
To add one: a file here with one class, and one line in `BACKBONES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from splitexit.registry import Registry

if TYPE_CHECKING:
    from torch import nn


class Backbone(ABC):
    """Hyper-parameters of a network without its classifier."""

    first_exit: int = 1
    """The number of blocks in front of the earliest place for an exit."""

    @abstractmethod
    def blocks(self, in_channels: int) -> list[nn.Module]:
        """New modules, randomly initialised, that run one after another: B×in_channels×H×W -> B×C×H'×W'.

        The input is already normalised. Every block maps one tensor to one tensor.
        """

    def head_channels(self, number: int) -> int | None:
        """How many channels, the last ones, exit heads read behind `number` blocks; None stands for all."""
        return None


BACKBONES: Registry[Backbone] = Registry(
    "backbone",
    {
        "resnet": "splitexit.models.backbones.resnet:ResNet",
        "resnet18": "splitexit.models.backbones.resnet18:ResNet18",
        "vgg-small": "splitexit.models.backbones.vgg_small:VGGSmall",
        "mobilenetv2": "splitexit.models.backbones.mobilenetv2:MobileNetV2",
        "msdnet": "splitexit.models.backbones.msdnet:MSDNet",
        "eenet8": "splitexit.models.backbones.eenet8:EENet8",
    },
)
