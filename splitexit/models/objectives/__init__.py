"""Training objectives: what the outputs of all exits are pushed towards.

To add one: a file here with one class, and one line in `OBJECTIVES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from splitexit.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from splitexit.models.multi_exit import MultiExitNet


@dataclass(frozen=True)
class Progress:
    """What an objective may depend on beside the outputs.

    costs: for every exit, the multiply-accumulates spent up to and including its own head (the heads before it left
        out), relative to the exit-free network; the last is 1.
    done: share of the training that is over, from 0 to 1.
    """

    costs: tuple[float, ...]
    done: float


class Objective(ABC):
    """A loss over all exits, and how its gradient reaches the network."""

    routes: ClassVar[bool] = False
    """Whether `backward` decides which parts a loss reaches; the recipe's coupling must then be 1."""

    @abstractmethod
    def loss(self, outputs: Sequence[Tensor], labels: Tensor, progress: Progress) -> Tensor:
        """Scalar loss of a batch: for every exit its output, B×K or B×(K+1) (see MultiExitNet), and B class numbers.

        Raises UsageError where the outputs are not what the objective needs.
        """

    def backward(self, net: MultiExitNet, outputs: Sequence[Tensor], labels: Tensor, progress: Progress) -> Tensor:
        """Adds the gradient to every parameter of `net` that may be trained; returns the loss, detached.

        `outputs` are what one forward pass of `net` gave.
        """
        loss = self.loss(outputs, labels, progress)
        loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
        return loss.detach()


def class_logits(outputs: Sequence[Tensor]) -> list[Tensor]:
    """The class logits of every exit, B×K, without the column of a learned confidence; in single precision at least.

    K is the width of the last output, since the final exit learns no confidence.
    """
    classes = outputs[-1].shape[1]
    return [at_least_single(output[:, :classes]) for output in outputs]


def at_least_single(values: Tensor) -> Tensor:
    """The same numbers, half precision made single: losses are taken in no less."""
    return values.float() if values.element_size() < 4 else values


OBJECTIVES: Registry[Objective] = Registry(
    "objective",
    {
        "joint": "splitexit.models.objectives.joint:Joint",
        "block-dependent": "splitexit.models.objectives.block_dependent:BlockDependent",
        "eenet": "splitexit.models.objectives.eenet:EENetLoss",
        "exclusion": "splitexit.models.objectives.exclusion:ClassExclusion",
    },
)
