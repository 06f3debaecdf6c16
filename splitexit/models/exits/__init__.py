"""Exit heads: small modules from a feature map to the logits of all classes.

A head is built as `Head(shape=(C, H, W), num_classes=K, **hyper_parameters)`, where `shape` is what it reads.
To add one: a file here with one class, and one line in `HEADS`.
"""

from __future__ import annotations

from torch import nn

from splitexit.registry import Registry

HEADS: Registry[nn.Module] = Registry(
    "exit head",
    {
        "pooled": "splitexit.models.exits.pooled:Pooled",
        "conv": "splitexit.models.exits.conv:Conv",
    },
)
