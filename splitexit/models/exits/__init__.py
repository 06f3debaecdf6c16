"""Exit heads: small modules from a feature map to the logits of all classes.

A head is built as `Head(shape=(C, H, W), num_classes=K, **hyper_parameters)`, where `shape` is what it reads, and maps
B×C×H×W to B×K class logits. A head that learns when to stop maps to B×(K+1): the last column is the logit of its
confidence, before the sigmoid.
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
        "eenet": "splitexit.models.exits.eenet:EENet",
        "sdn": "splitexit.models.exits.sdn:SDN",
        "sidenet": "splitexit.models.exits.sidenet:SideNet",
        "exclusion": "splitexit.models.exits.exclusion:Exclusion",
        "msdnet": "splitexit.models.exits.msdnet:MSDNet",
    },
)
