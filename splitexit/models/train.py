"""Training a multi-exit network: from images to a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from splitexit.bundle import Bundle
from splitexit.errors import ArtifactError
from splitexit.models import card, data, multi_exit
from splitexit.models.data import ImageSet
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
    tested = None  # read now, so that what is wrong with it is said before hours of training
    if test is not None:
        tested = data.read_test(test, images.shape, images.class_names, resize=recipe.resize)
    run = Run(recipe, images, out, pick_device(device), watcher or Watcher())
    if not run.fit(stop_after or recipe.epochs):
        return None
    return _write_bundle(run, tested, command)


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


def _write_bundle(run: Run, test: ImageSet | None, command: str) -> Bundle:
    training: dict[str, Any] = {
        "command": command,
        "recipe": run.recipe.to_json(),
        "data": {"train": run.images.origin, "train_sha256": run.images.sha256, "images": len(run.images)},
        "validation_accuracy": _rounded(accuracies(run.net, run.validation)),
        "epochs": run.history,
        "machine": describe_machine(run.device),
    }
    if test is not None:
        training["data"] |= {"test": test.origin, "test_sha256": test.sha256, "test_images": len(test)}
        training["test_accuracy"] = _rounded(accuracies(run.net, test))
    bundle = multi_exit.save(run.net, run.out, training)
    card.write(bundle)
    run.checkpoint.unlink(missing_ok=True)
    return bundle


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 5) for value in values]
