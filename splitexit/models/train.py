"""Training a multi-exit network: from images to a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from splitexit.bundle import Bundle
from splitexit.errors import ArtifactError
from splitexit.models import card, data, multi_exit
from splitexit.models.evaluate import accuracies, describe_machine, pick_device
from splitexit.models.fit import Run, Watcher
from splitexit.models.recipe import Recipe


def train(
    recipe: Recipe,
    *,
    source: str,
    test: str | None,
    out: Path,
    device: str = "auto",
    command: str = "",
    watcher: Watcher | None = None,
    stop_after: int | None = None,
) -> Bundle | None:
    """Trains, or goes on from the checkpoint in `out`, and writes the bundle there.

    Args:
        source, test: image sets, see data.read; the test set is looked at once, at the end.
        command: the command line, for the model card.
        stop_after: leave after this many epochs of the schedule, with a checkpoint.

    Returns the bundle, or None where `stop_after` left the training unfinished. Raises ArtifactError where `out`
    holds something else, UsageError or DataError for wrong input.
    """
    finished = _finished(out, recipe)
    if finished is not None:
        return finished
    images = data.read(source, "train", resize=recipe.resize, limit=recipe.limit)
    run = Run(recipe, images, out, pick_device(device), watcher or Watcher())
    if not run.fit(stop_after or recipe.epochs):
        return None
    return _write_bundle(run, test, command)


def _finished(out: Path, recipe: Recipe) -> Bundle | None:
    if not (out / "model.json").exists():
        return None
    bundle = Bundle.open(out)
    training = bundle.spec.training
    if "joint" in training or not _same(training.get("recipe"), recipe):
        raise ArtifactError(f"{out}: already holds a bundle trained by another recipe; choose another --out")
    return bundle


def _same(content: Any, recipe: Recipe) -> bool:
    try:
        return Recipe.from_json(content).to_json() == recipe.to_json()
    except (TypeError, KeyError):
        return False


def _write_bundle(run: Run, test: str | None, command: str) -> Bundle:
    training: dict[str, Any] = {
        "command": command,
        "recipe": run.recipe.to_json(),
        "data": {"train": run.images.origin, "train_sha256": run.images.sha256, "images": len(run.images)},
        "validation_accuracy": _rounded(accuracies(run.net, run.validation)),
        "epochs": run.history,
        "machine": describe_machine(run.device),
    }
    if test is not None:
        channels = run.images.shape[0]
        images = data.read(test, "test", channels=channels, resize=run.recipe.resize)
        training["data"] |= {"test": test, "test_sha256": images.sha256, "test_images": len(images)}
        training["test_accuracy"] = _rounded(accuracies(run.net, images))
    bundle = multi_exit.save(run.net, run.out, training)
    card.write(bundle)
    run.checkpoint.unlink(missing_ok=True)
    return bundle


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 5) for value in values]
