"""The exit of early exit with class exclusion (Wang, Li and Zhang, arXiv 2309.13443)."""

from __future__ import annotations

from splitexit.models.exits.pooled import Pooled


class Exclusion(Pooled):
    """B×C×H×W -> B×K logits of K questions: may the sample be of class k? Average pooling and one linear layer.

    The logits are made for a sigmoid each, not for one softmax: the exit rules classes out rather than choose one, and
    is trained by binary cross entropies. The layer is that of the authors' code (`Snet`), whose `size` is 1, and 2 for
    VGG on CIFAR-100. A side that is smaller than `size` is left as it is (inferred; theirs would repeat its values).
    """
