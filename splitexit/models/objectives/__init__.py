"""Training objectives: what the outputs of all exits are pushed towards.

To add one: a file here with one class, and one line in `OBJECTIVES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from splitexit.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Progress:
    """What an objective may depend on beside the outputs.

    costs: for every exit, the multiply-accumulates spent up to and including its head, relative to the
        exit-free network; the last is 1.
    done: share of the training that is over, from 0 to 1.
    """

    costs: tuple[float, ...]
    done: float


class Objective(ABC):
    """A loss over all exits."""

    @abstractmethod
    def loss(self, logits: Sequence[Tensor], labels: Tensor, progress: Progress) -> Tensor:
        """Scalar loss of a batch: for every exit B×K logits, and B class numbers."""


OBJECTIVES: Registry[Objective] = Registry(
    "objective",
    {
        "joint": "splitexit.models.objectives.joint:Joint",
    },
)
