"""Codecs as they are trained: networks that take features to features through what would be sent.

What is learned becomes tensors of a bundle, which the codec of the same name (`splitexit.codecs`) computes with, and
without torch. To add one: the codec there, a file here with one class, and one line in `LEARNED`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitexit.registry import Registry

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Batch:
    """What a loss is computed of.

    features: B×C×H×W, of the frozen network.
    labels: B class numbers.
    tail: features -> logits of the final exit, B×K; its weights are frozen, gradients pass.
    weight: of the squared error of decoded features beside the cross entropy.
    generator: for what is drawn at random, on the device of the features.
    """

    features: Tensor
    labels: Tensor
    tail: Callable[[Tensor], Tensor]
    weight: float
    generator: torch.Generator


@dataclass(frozen=True)
class Stage:
    """One training: what it changes, its loss, and its learning rate as a multiple of the recipe's."""

    parameters: Iterable[nn.Parameter]
    loss: Callable[[Batch], Tensor]
    pace: float = 1.0


@dataclass(frozen=True)
class JointStage:
    """One training of codec and network together, behind which the network is another one.

    parameters: of the codec, what changes.
    through: features, B×C×H×W -> decoded ones as the exits behind the split learn from them, and what is to be paid
        for them beside the losses of the exits, a scalar.
    head: whether the stages before the split, and the exits there, change with the rest of the network.
    """

    parameters: Iterable[nn.Parameter]
    through: Callable[[Tensor], tuple[Tensor, Tensor]]
    head: bool = True


class LearnedNet(nn.Module, ABC):
    """A codec as it is trained; a member's `forward` takes features, B×C×H×W, to decoded ones.

    Its constructor takes `features`, those of some training images, to start from; then by name the parameters of the
    codec, which have no defaults here because the codec has them; then options of the training, with defaults.
    Whatever it draws comes from torch's global generator, which the caller seeds.
    """

    fits_tables: ClassVar[bool] = True
    """Whether the entropy coder's tables are still to be fitted to what the codec sends, or come of the training."""

    def stages(self) -> Iterator[Stage]:
        """The trainings, one after the other; what stands between them sees what the one before has come to."""
        yield Stage(self.parameters(), lambda batch: recovery(batch, self(batch.features)))

    joins: ClassVar[bool] = True
    """Whether it can be fine-tuned together with the network."""

    def joint_stages(self) -> Iterator[JointStage]:
        """The trainings behind `stages`, in which the network learns too. By default all weights, at no price."""
        yield JointStage(self.parameters(), lambda features: (self(features), features.new_zeros(())))

    @abstractmethod
    def tensors(self) -> Mapping[str, Array]:
        """As the codec reads them; its docstring says what they are."""

    def codec_ids(self, codec_id: str) -> list[str]:
        """The ids of all codecs that these tensors are for, of which `codec_id`, in canonical form, is the first."""
        return [codec_id]


def recovery(batch: Batch, decoded: Tensor) -> Tensor:
    """Cross entropy of the final exit behind decoded features, plus their weighted squared error."""
    error = F.mse_loss(decoded, batch.features)
    return F.cross_entropy(batch.tail(decoded), batch.labels) + batch.weight * error


LEARNED: Registry[LearnedNet] = Registry(
    "learned codec",
    {
        "bottleneck": "splitexit.models.learned.bottleneck:BottleneckNet",
        "aecnn": "splitexit.models.learned.aecnn:AecnnNet",
        "bottlenetpp": "splitexit.models.learned.bottlenetpp:BottleNetPlusPlusNet",
        "progressive": "splitexit.models.learned.progressive:ProgressiveNet",
        "entropic": "splitexit.models.learned.entropic:EntropicNet",
        "crbq": "splitexit.models.learned.crbq:CrBqNet",
    },
)
