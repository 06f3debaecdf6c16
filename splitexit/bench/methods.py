"""Trains every network of a plan, compares each method with its twin, and keeps what is finished.

A run folder holds DATA/NETWORK-SEED/ with the bundle of every network, and beside it `score.json` of every method. What
is there is not made again, so that the same command goes on where it was stopped, within a training too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from splitexit.bench.plan import Network, Plan
from splitexit.bench.score import FORMAT, Comparison, listen
from splitexit.bundle import Bundle
from splitexit.errors import UsageError
from splitexit.models import data
from splitexit.models.evaluate import pick_device
from splitexit.models.fit import Watcher
from splitexit.models.train import train
from splitexit.recording import Recording
from splitexit.report.folder import to_json

Say = Callable[[str], None]
Document = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """Where a data set is: sources of `splitexit.models.data.read`."""

    train: str
    test: str


def parse_source(text: str) -> tuple[str, Source]:
    """`NAME=TRAIN,TEST`, or `NAME=SOURCE` for a folder or hub name with both; raises UsageError."""
    name, equals, where = text.partition("=")
    if not equals or Path(name).name != name or not where:  # the name becomes that of a folder
        raise UsageError(f"--data {text!r}: expected NAME=TRAIN,TEST, for example mnist=train.parquet,test.parquet")
    train, comma, test = where.partition(",")
    return name, Source(train, test if comma else train)


@dataclass(frozen=True)
class Bench:
    """A plan on the data sets at hand.

    sources  data set -> where it is
    folder   what holds everything
    device   `auto`, `cpu`, `cuda`, …
    say      told, in a line each, what is being done
    watcher  told how a training goes
    """

    plan: Plan
    sources: Mapping[str, Source]
    folder: Path
    device: str
    say: Say
    watcher: Watcher

    def run(self) -> Iterator[Document]:
        """Trains and scores; every method's document as soon as it is there."""
        for source in self.sources.values():  # what is not there is said before hours of training
            data.read(source.train, "train", limit=1)
            data.read(source.test, "test", limit=1)
        for name, source in self.sources.items():
            images = _Images(source)
            for seed in self.plan.seeds_on(name):
                for network in self.plan.on(name):
                    bundle = self._trained(network, name, seed, source)
                    if network.twin is not None:
                        yield self._scored(network, name, seed, bundle, images)

    def _path(self, network: str, name: str, seed: int) -> Path:
        return self.folder / name / f"{network}-{seed}"

    def _trained(self, network: Network, name: str, seed: int, source: Source) -> Bundle:
        path = self._path(network.name, name, seed)
        start = None if network.init is None else str(self._path(network.init, name, seed))
        recipe = self.plan.recipe(network, name, seed, start)
        self.say(f"{name}: {network.name}, seed {seed}, {recipe.epochs} epochs")
        bundle = train(
            recipe,
            source=source.train,
            test=None,  # looked at once, by the scores
            out=path,
            device=self.device,
            command="splitexit bench methods",
            watcher=self.watcher,
        )
        assert bundle is not None, "trained to its end"
        return bundle

    def _scored(self, network: Network, name: str, seed: int, bundle: Bundle, images: _Images) -> Document:
        """The document of a method; made again where it is not of these networks, this rule or this code."""
        file = bundle.path / "score.json"
        twin = Bundle.open(self._path(str(network.twin), name, seed))
        what = {
            "format": FORMAT,
            "weights": [bundle.spec.weights_sha256, twin.spec.weights_sha256],
            "rule": network.rule,
        }
        if file.exists() and (kept := json.loads(file.read_text())).items() >= what.items():
            return dict(kept)
        device = pick_device(self.device)
        heard, of_twin = images.heard(bundle, device), images.heard(twin, device)
        comparison = Comparison(bundle.spec, heard, of_twin, network.rule)
        document: Document = {
            "data": name,
            "network": network.name,
            "seed": seed,
            "twin": network.twin,
            "epochs": self.plan.epochs(network, name),
            "twin_epochs": self.plan.epochs(self.plan.networks[str(network.twin)], name),
            **what,
            **comparison.document(),
        }
        text = to_json(document)
        file.write_text(text + "\n")
        return dict(json.loads(text))


class _Images:
    """A data set's validation and test images, as networks were trained to see them, and what networks said of them."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._read: dict[tuple[int | None, int | None], tuple[data.ImageSet, data.ImageSet]] = {}
        self._heard: dict[str, Recording] = {}

    def heard(self, bundle: Bundle, device: torch.device) -> Recording:
        """What a network says of them; a twin is asked once for all methods."""
        weights = bundle.spec.weights_sha256
        if weights not in self._heard:
            recipe = bundle.spec.training["recipe"]
            train, test = self._sets(recipe["resize"], recipe["limit"])
            kept_apart = train.take(data.split_off(train.labels, recipe["validation"])[1])
            self._heard[weights] = listen(bundle, kept_apart, test, device)
        return self._heard[weights]

    def _sets(self, resize: int | None, limit: int | None) -> tuple[data.ImageSet, data.ImageSet]:
        """Training and test images."""
        if (resize, limit) not in self._read:
            train = data.read(self._source.train, "train", resize=resize, limit=limit)
            test = data.read_test(self._source.test, train.shape, train.class_names, resize=resize)
            self._read[resize, limit] = train, test
        return self._read[resize, limit]
