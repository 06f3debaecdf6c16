"""An exit head that learns when to stop, for tests; it needs torch."""

from __future__ import annotations

from splitexit.models.exits.pooled import Pooled

HEAD = f"{__name__}:Confident"


class Confident(Pooled):
    """B×C×H×W -> B×(K+1): class logits, then the logit of a confidence."""

    def __init__(self, *, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__(shape=shape, num_classes=num_classes + 1)
