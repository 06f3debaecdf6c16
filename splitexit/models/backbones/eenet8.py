"""The small network of EENets for MNIST (Demir and Akbas, arXiv 2409.05336): EENet-8."""

from __future__ import annotations

from torch import Tensor, nn

from splitexit.models.backbones import Backbone
from splitexit.models.spec import Count


class EENet8(Backbone):
    """A stem of `width` filters and three pre-activation residual blocks of `width`, 2·`width` and 4·`width`.

    Args:
        width: filters of the stem; 2 and 4 in the authors' code, where two exits (head `eenet`) and the final
            classifier bring it to 1,490 and 5,332 parameters for grey images and 10 classes.

    Blocks are pre-activation ones (He et al., ECCV 2016, arXiv 1603.05027), but for the first, whose activation the
    stem has done already; BN and ReLU before the classifier belong to the last. As in the authors' code, convolutions
    have a bias. No exit goes behind the stem. The authors set the cost of their two exits, behind the first and second
    block, to 0.08 and 0.26; in multiply-accumulates it is 0.42 and 0.71, with 4 filters and 28×28 pixels.
    """

    first_exit = 2

    def __init__(self, *, width: Count = 4) -> None:
        self.width = width

    def blocks(self, in_channels: int) -> list[nn.Module]:
        """The stem and three residual blocks, of which the second and third halve the map."""
        f = self.width
        return [
            nn.Sequential(_conv(in_channels, f), nn.BatchNorm2d(f), nn.ReLU()),
            FirstBlock(f),
            PreActivation(f, 2 * f),
            nn.Sequential(PreActivation(2 * f, 4 * f), nn.BatchNorm2d(4 * f), nn.ReLU()),
        ]


class FirstBlock(nn.Module):
    """x + conv-BN-ReLU-conv(x), all 3×3: B×C×H×W -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _conv(channels, channels), nn.BatchNorm2d(channels), nn.ReLU(), _conv(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """One block; see the class."""
        y: Tensor = x + self.residual(x)
        return y


class PreActivation(nn.Module):
    """BN-ReLU-conv-BN-ReLU-conv plus a 1×1 convolution of the input: B×C×H×W -> B×C'×⌈H/2⌉×⌈W/2⌉."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            _conv(channels, out, stride=2),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            _conv(out, out),
        )
        self.shortcut = nn.Conv2d(channels, out, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """One block; see the class."""
        y: Tensor = self.residual(x) + self.shortcut(x)
        return y


def _conv(channels: int, out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, stride, padding=1)
