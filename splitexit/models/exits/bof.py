"""Bag-of-Features exits in one space of histograms (Passalis et al., Pattern Recognition 105:107346, 2020)."""

from __future__ import annotations

import warnings
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import pdist
from torch import Tensor, nn

from splitexit.errors import UsageError
from splitexit.models.exits import LinearHead

EPS = 5e-16
"""In the denominators of the authors' code."""
POINTS = 5_000
"""Features at most that codewords are clustered from."""


class BoF(LinearHead):
    """B×C×H×W -> B×K logits W·s + b, where s is a soft histogram of the map's positions over learned codewords.

    With u_jk ≥ 0 the membership of position j in codeword k, Σ_k u_jk = 1, it is s = n₂ · mean_j(n₁ · u_j); n₁ and n₂
    are learned. Its size does not depend on the map's, so the histograms of all exits lie in one space and add up:
    exit i says W·(s_1 + … + s_i) + b with the same W and b. Behind a head of its kind, this one shares that W, has no
    bias and puts out W·s_i, which is what it adds (`follow`): it brings only its memberships, n₁ and n₂.

    The authors' code starts with n₁ = K_c and n₂ = the number of positions, so that large maps weigh more than small
    ones, and trains by Adam. Here every exit starts with the same mass, Σs = K_c, in two equal factors, and learns from
    there (inferred): with a mass of 1 early exits hardly learned, and with n₁ = K_c and n₂ = 1 steps of SGD, which grow
    with the square of the other factor, made trainings diverge.

    Args:
        shape: C×H×W of the features read.
        num_classes: K.
        words: codewords, the K_c of the paper.
        variant: memberships as in the early-exit code, `logistic`, C·K_c + K_c + 2 weights; or distances to
            codewords that begin as clusters of features, `classical`, C·K_c + K_c.
        bins: the histograms of bins×bins parts of the map beside one another; 1 takes the whole map.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        num_classes: int,
        words: Annotated[int, Ge(1), Le(65536)] = 64,
        variant: Literal["logistic", "classical"] = "logistic",
        bins: Annotated[int, Ge(1), Le(16)] = 1,
    ) -> None:
        super().__init__()
        self.bins = bins
        self.membership = (Logistic if variant == "logistic" else Classical)(shape[0], words)
        # The same norm of s for any number of bins.
        self.n1, self.n2 = (nn.Parameter(torch.tensor((words / bins) ** 0.5)) for _ in range(2))
        self.linear = nn.Linear(words * bins**2, num_classes)

    def read(self, features: Tensor) -> Tensor:
        """The histogram s: B×K_c, or B×(K_c·bins²)."""
        u = self.membership(features)
        pooled = u.mean(dim=(2, 3)) if self.bins == 1 else F.adaptive_avg_pool2d(u, self.bins).flatten(1)
        return self.n1 * self.n2 * pooled  # both factors behind the mean, where they are cheaper

    def follow(self, before: nn.Module) -> None:
        """Shares the weights of `before` from now on, without a bias; raises UsageError for another histogram."""
        if not isinstance(before, BoF) or before.linear.in_features != self.linear.in_features:
            raise UsageError(
                "exit head 'bof': exits share one classifier, so words and bins must be those of the first"
            )
        self.linear = nn.Linear(self.linear.in_features, self.linear.out_features, bias=False)
        self.linear.weight = before.linear.weight

    def initialise(self, features: Tensor) -> None:
        """Begins from B×C×H×W features, as the variant has it."""
        self.membership.initialise(features)


class Logistic(nn.Module):
    """B×C×H×W -> B×K_c×H×W memberships u: a = (tanh(α·(w·x + b) + γ) + 1) / 2, u = a / (Σa + ε).

    As `LogisticConvBoF` of the authors' code; w and b are a 1×1 convolution, α and γ are learned. Random w hardly tell
    positions apart, all u are alike then, and trainings took several epochs to leave that state, or did not; so each
    w·x + b begins with mean 0 and deviation 1 over what is read (inferred).
    """

    def __init__(self, channels: int, words: int) -> None:
        super().__init__()
        self.codewords = nn.Conv2d(channels, words, 1)
        self.alpha, self.gamma = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(0.0))

    def forward(self, features: Tensor) -> Tensor:
        """Memberships, in single precision at least; see the class."""
        similar = self.codewords(features)
        similar = similar.to(torch.promote_types(similar.dtype, torch.float32))
        # (tanh(x) + 1) / 2, which rounds to 0 only far beyond where tanh rounds to −1.
        a = torch.sigmoid(torch.addcmul(2 * self.gamma, similar, 2 * self.alpha))
        return a / (a.sum(dim=1, keepdim=True) + EPS)

    @torch.no_grad()
    def initialise(self, features: Tensor) -> None:
        """Standardises the responses to these features; see the class."""
        similar, bias = self.codewords(features), self.codewords.get_parameter("bias")
        mean, factor = similar.mean(dim=(0, 2, 3)), 1 / similar.std(dim=(0, 2, 3)).clamp_min(1e-2)
        self.codewords.weight.mul_(factor.view(-1, 1, 1, 1))
        bias.sub_(mean).mul_(factor)


class Classical(nn.Module):
    """B×C×H×W -> B×K_c×H×W memberships u = softmax(−‖x − v_k‖ / |σ_k|), with codewords v and widths σ.

    The ε that the authors have in the denominator is left out: the softmax needs none.
    """

    def __init__(self, channels: int, words: int) -> None:
        super().__init__()
        self.codewords = nn.Conv2d(channels, words, 1, bias=False)
        self.widths = nn.Parameter(torch.ones(words))

    def forward(self, features: Tensor) -> Tensor:
        """Memberships, in single precision at least; see the class."""
        # ‖x‖² − 2·v·x + ‖v‖² is a small difference of large numbers: never in half precision.
        with torch.autocast(features.device.type, enabled=False):
            x = features.to(self.widths.dtype)
            own = self.codewords.weight.square().sum(dim=(1, 2, 3)).view(-1, 1, 1)
            squared = x.square().sum(dim=1, keepdim=True) - 2 * self.codewords(x) + own
            distance = squared.clamp_min(1e-12).sqrt()  # the root has no gradient at 0
            return torch.softmax(-distance / (self.widths.abs().view(-1, 1, 1) + EPS), dim=1)

    @torch.no_grad()
    def initialise(self, features: Tensor) -> None:
        """Codewords by k-means on what is read; all widths are the mean distance between codewords (inferred)."""
        points = features.movedim(1, -1).flatten(0, -2).cpu().numpy()
        rng, words = np.random.default_rng(0), len(self.widths)
        chosen = rng.choice(points, min(POINTS, len(points)), replace=False)
        # Positions are often alike, as in black corners, and k-means++ needs as many different points as clusters.
        chosen = chosen + rng.normal(0, 1e-3 * max(float(chosen.std()), 1e-3), chosen.shape)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a cluster that ends up empty stays where it began
            found, _ = kmeans2(chosen, words, minit="++", seed=rng)
        self.codewords.weight.copy_(torch.from_numpy(found).view_as(self.codewords.weight))
        self.widths.fill_(float(pdist(found).mean()) if words > 1 else 1.0)
