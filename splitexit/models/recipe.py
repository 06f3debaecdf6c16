"""What decides which network a training ends in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from splitexit.errors import UsageError
from splitexit.models.augment import Augmentation
from splitexit.models.placement import SDN_SHARES
from splitexit.models.spec import Spec


@dataclass(frozen=True)
class Recipe:
    """Everything that decides which network comes out; it is stored in model.json and in every checkpoint.

    Args:
        backbone, head, objective: specs of their zoos.
        shares: the early exits, as shares of the exit-free network's cost; empty trains the exit-free twin.
        coupling: share of the early exits' gradient that reaches the backbone. 1 is plain joint training; 0 trains
            the heads on a backbone that only the final exit shapes (SDN's "IC-only", arXiv 1810.07052); between,
            the final exit gives up less for the early ones (compare Li et al., ICCV 2019, arXiv 1908.06294).
        cuts: stages end behind every exit (`exits`) or every block (`blocks`).
        epochs, batch: length of the training; batches smaller than `batch` at an epoch's end are left out.
        lr: the highest learning rate of the one-cycle schedule (Smith and Topin, arXiv 1708.07120).
        momentum, weight_decay: of SGD with Nesterov's momentum.
        augment: see augment.Batches.
        validation: share of every class kept from the training, for thresholds and every other choice.
        resize: height and width to scale images to; None leaves them as they are.
        limit: train on the first so many images only; None takes all.
        precision: `bf16` (autocast, channels last) or `fp32`.
        seed: of weights, order and augmentation.
        init: a bundle whose backbone and final head the training starts from, as BranchyNet starts from the trained
            baseline (arXiv 1709.01686); None starts from random weights.
        freeze: train the early heads alone, on the backbone and final head of `init` as they are: the second of two
            phases (SDN's "IC-only", arXiv 1810.07052). The final exit then answers what the exit-free network does.
    """

    backbone: Spec = field(default_factory=lambda: {"name": "resnet", "depth": 32})
    shares: tuple[float, ...] = SDN_SHARES
    head: Spec = field(default_factory=lambda: {"name": "pooled"})
    objective: Spec = field(default_factory=lambda: {"name": "joint", "weights": "cost"})
    coupling: float = 1.0
    cuts: str = "exits"
    epochs: int = 30
    batch: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: Augmentation = "crop-flip"
    validation: float = 0.1
    resize: int | None = None
    limit: int | None = None
    precision: str = "bf16"
    seed: int = 0
    init: str | None = None
    freeze: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: expected a number from 1, found {getattr(self, name)}")
        if self.precision not in ("bf16", "fp32"):
            raise UsageError(f"precision: expected bf16 or fp32, found {self.precision!r}")
        if not 0 <= self.coupling <= 1:
            raise UsageError(f"coupling: expected a share from 0 to 1, found {self.coupling}")
        if self.freeze and (self.init is None or not self.shares):
            raise UsageError("freeze: needs a trained network to start from (--init) and early exits to train")
        if not 0 < self.validation < 1:
            raise UsageError(f"validation: expected a share between 0 and 1, found {self.validation}")

    def to_json(self) -> dict[str, Any]:
        """As model.json and checkpoints hold it."""
        return {**dataclasses.asdict(self), "shares": list(self.shares)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Recipe:
        """The inverse; keys that an older version did not know take their default. Raises TypeError for others."""
        return cls(**{**content, "shares": tuple(content["shares"])})
