"""Devices, precision, and how often each exit is right."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from splitexit.errors import UsageError
from splitexit.models import data
from splitexit.models.multi_exit import MultiExitNet
from splitexit.models.objectives import class_logits


def pick_device(name: str) -> torch.device:
    """`auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, `mps`; raises UsageError where there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {name!r} cannot be used here ({reason}); try cpu or auto") from error


def on_device(images: data.ImageSet, device: torch.device) -> tuple[Tensor, Tensor]:
    """uint8 B×H×W×C pixels and labels of the whole set."""
    return torch.from_numpy(images.images).to(device), torch.from_numpy(images.labels).to(device)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which the network runs under this precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


@torch.no_grad()
def accuracies(net: MultiExitNet, images: data.ImageSet, precision: str = "fp32") -> tuple[float, ...]:
    """Share of `images` that every exit gets right, in evaluation mode."""
    device = next(net.parameters()).device
    net.eval()
    right = torch.zeros(len(net.heads), dtype=torch.int64, device=device)
    for pixels, labels in plain_batches(images, device):
        with autocast(device, precision):
            outputs = net(pixels)
        right += torch.stack([(z.argmax(1) == labels).sum() for z in class_logits(outputs)])
    return tuple(n / len(images) for n in right.tolist())


def plain_batches(images: data.ImageSet, device: torch.device, size: int = 500) -> Iterator[tuple[Tensor, Tensor]]:
    """B×C×H×W pixels in [0, 1] and labels, in the order of the set and without augmentation."""
    for start in range(0, len(images), size):
        part = torch.from_numpy(images.images[start : start + size]).to(device)
        labels = torch.from_numpy(images.labels[start : start + size]).to(device)
        yield part.permute(0, 3, 1, 2).float().div_(255), labels


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Enough to know what trained it."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"device": name, "torch": torch.__version__, "python": platform.python_version()}
