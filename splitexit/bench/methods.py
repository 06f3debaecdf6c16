"""Trains every network of a plan, compares each method with its twin, and keeps what is finished.

A run folder holds DATA/NETWORK-SEED/ with the bundle of every network, and beside it `score.json` of every method. What
is there is not made again, so that the same command goes on where it was stopped, within a training too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from splitexit.bench.plan import Network, Plan
from splitexit.bench.score import Comparison, listen
from splitexit.bundle import Bundle
from splitexit.errors import UsageError
from splitexit.models import data
from splitexit.models.evaluate import pick_device
from splitexit.models.fit import Watcher
from splitexit.models.train import train
from splitexit.recording import Recording

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
    if not equals or not name or not where:
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
        for name, source in self.sources.items():
            images = _Images(self.plan.data[name], source)
            for seed in self.plan.seeds:
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
        file = bundle.path / "score.json"
        twin = Bundle.open(self._path(str(network.twin), name, seed))
        weights = [bundle.spec.weights_sha256, twin.spec.weights_sha256]
        if file.exists() and (kept := json.loads(file.read_text()))["weights"] == weights:
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
            "weights": weights,
            **comparison.document(),
        }
        file.write_text(json.dumps(document, indent=1) + "\n")
        return document


class _Images:
    """A data set's validation and test images, read when they are needed, and what networks said of them."""

    def __init__(self, keys: Mapping[str, Any], source: Source) -> None:
        self._keys, self._source = keys, source
        self._heard: dict[str, Recording] = {}

    def heard(self, bundle: Bundle, device: torch.device) -> Recording:
        """What a network says of them; a twin is asked once for all methods."""
        weights = bundle.spec.weights_sha256
        if weights not in self._heard:
            share = bundle.spec.training["recipe"]["validation"]
            self._heard[weights] = listen(bundle, self.validation(share), self.test, device)
        return self._heard[weights]

    @cached_property
    def _train(self) -> data.ImageSet:
        return data.read(self._source.train, "train", resize=self._keys.get("resize"), limit=self._keys.get("limit"))

    def validation(self, share: float) -> data.ImageSet:
        """The images that every training kept apart."""
        return self._train.take(data.split_off(self._train.labels, share)[1])

    @cached_property
    def test(self) -> data.ImageSet:
        """The test images."""
        return data.read(self._source.test, "test", channels=self._train.shape[0], resize=self._keys.get("resize"))
