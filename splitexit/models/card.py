"""The model card: README.md of a bundle, written from model.json."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from splitexit.bundle import Bundle, ModelSpec

TUNED = """
Then all weights, from `{digest}…` of {name} on, were fine-tuned together with the codec `{codec}` behind stage {split},
in {minutes:.0f} minutes:

```
{command}
```

Behind that codec, of some {bytes:.0f} bytes, the final exit gets {joint:.2%} of the validation images right, and got
{frozen:.2%} before the network learned. The table below is without a codec.
"""

TEMPLATE = """# {name}

A multi-exit image classifier, trained with splitexit: {backbone}, {stages} stages, input {shape}, {classes} classes.

## How it was made

```
{command}
```

{epochs} epochs in {minutes:.0f} minutes on {machine} with torch {torch}. Training data: {data} (sha256 of
labels and pixels `{digest}…`), of which {validation:.0%} of every class were kept for validation. Recipe and loss
of every epoch are in `model.json`.
{tuned}
## Accuracy

Costs are multiply-accumulates of convolutions and linear layers up to and including the exit's own head, for one
image; the exit-free network has {macs:.2f} million. Validation images were not trained on; the test set was looked
at once, after the training.

| exit | after stage | million MACs | validation | test |
|---|---|---|---|---|
{rows}

## Use and licence

The weights come under the licence of splitexit (Apache-2.0). The images they were trained on have terms of their
own, which may allow research only: look at their source before you use the weights for anything else. The network
knows only the classes below, and its confidence says nothing about images of any other kind.

Classes: {class_names}.
"""


def write(bundle: Bundle) -> None:
    """Writes README.md into the bundle's folder."""
    spec, training = bundle.spec, bundle.spec.training
    text = TEMPLATE.format(
        name=spec.name,
        backbone=", ".join(f"{k} {v}" for k, v in spec.backbone.items() if k != "cuts"),
        stages=spec.num_stages,
        shape="×".join(map(str, spec.input_shape)),
        classes=spec.num_classes,
        command=training["command"] or "(trained from Python)",
        epochs=len(training["epochs"]),
        minutes=sum(epoch["seconds"] for epoch in training["epochs"]) / 60,
        machine=training["machine"]["device"],
        torch=training["machine"]["torch"],
        data=training["data"]["train"],
        digest=training["data"]["train_sha256"][:12],
        validation=training["recipe"]["validation"],
        tuned=_tuned(training["joint"]) if "joint" in training else "",
        macs=spec.macs / 1e6,
        rows="\n".join(_rows(spec)),
        class_names=", ".join(spec.class_names),
    )
    (bundle.path / "README.md").write_text(text, encoding="utf-8")


def _tuned(joint: Mapping[str, Any]) -> str:
    return TUNED.format(
        codec=joint["codec"],
        split=joint["split"],
        digest=joint["from"]["weights_sha256"][:12],
        name=joint["from"]["name"],
        minutes=joint["seconds"] / 60,
        command=joint["command"] or "(tuned from Python)",
        bytes=joint["payload_bytes"],
        **joint["validation_accuracy"],
    )


def _rows(spec: ModelSpec) -> list[str]:
    spent = list(accumulate(stage.macs for stage in spec.stages))
    validation = spec.training["validation_accuracy"]
    test = spec.training.get("test_accuracy", [None] * len(validation))
    return [
        f"| {number} | {exit_.stage} | {(spent[exit_.stage - 1] + exit_.macs) / 1e6:.2f} | {v:.2%} | "
        f"{'not measured' if t is None else f'{t:.2%}'} |"
        for number, (exit_, v, t) in enumerate(zip(spec.exits, validation, test, strict=True))
    ]
