"""A device's run against an edge: what `splitexit device` and the device processes of `splitexit live` do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event

import numpy as np

from splitexit.bundle import Bundle
from splitexit.calibration import Calibration
from splitexit.experiment import HOST, Experiment
from splitexit.live.address import Address
from splitexit.live.client import EdgeClient, Expected
from splitexit.live.clock import WallTimeline
from splitexit.live.device import DeviceRuntime
from splitexit.live.images import Images, check_labels, open_images
from splitexit.live.model import LiveModel, use_one_thread
from splitexit.live.pace import NativeCpu, PacedCpu
from splitexit.live.transport import GrpcTransport
from splitexit.live.wire import Query, bundle_tag
from splitexit.results import Completion
from splitexit.scenario import Scenario

Sink = Callable[[Completion], None]

GREETINGS, GREETING_S = 3, 10.0
"""Calls that a device makes before its run, and how long each may take."""


def open_experiment(
    scenario: Scenario, data: str | None = None, host: Calibration | None = None
) -> tuple[Experiment, Images]:
    """The experiment on the images at hand; raises InputError where a file is missing or does not fit.

    Args:
        data: the whole recorded test set, instead of the bundle's own samples.
        host: what this machine takes, instead of the bundle's calibration.
    """
    images = open_images(Bundle.open(scenario.bundle), data)
    experiment = Experiment.open(scenario, host, subset=tuple(images))
    check_labels(images, experiment.recording, data or str(experiment.bundle.samples))
    return experiment, images


@dataclass(frozen=True)
class Shift:
    """A device that is ready to begin its requests."""

    runtime: DeviceRuntime
    timeline: WallTimeline

    def run(self, origin_s: float | None = None) -> int:
        """Until no request is left; returns how many replies came too late.

        Args:
            origin_s: when time zero is, on time.monotonic(); by default now.
        """
        self.timeline.begin(origin_s)
        self.runtime.run()
        return self.runtime.late


@dataclass(frozen=True)
class Station:
    """Everything that a live device has of its own: the experiment on its images, and the model.

    device   its number among those of the scenario
    """

    experiment: Experiment
    images: Images
    model: LiveModel
    device: int = 0

    @classmethod
    def open(
        cls, scenario: Scenario, data: str | None = None, host: Calibration | None = None, device: int = 0
    ) -> Station:
        """Loads all; raises InputError where a file is missing or does not fit. Args as of `open_experiment`."""
        experiment, images = open_experiment(scenario, data, host)
        setting = experiment.setting(experiment.group(device))
        pairs = [(split, codec) for split, codecs in setting.codecs.items() for codec in codecs]
        return cls(experiment, images, LiveModel.open(experiment.bundle, pairs), device)

    def connect(self, address: Address, say: Callable[[str], None]) -> EdgeClient:
        """A client that has asked the edge what it serves; raises EdgeRefusedError where that does not fit."""
        client = EdgeClient(address, Expected.of(self.model), say)
        try:
            client.connect()
        except BaseException:
            client.close()
            raise
        return client

    def run(self, policy: str, seed: int, client: EdgeClient, sink: Sink, requests: int | None = None) -> int:
        """Runs the device from now on until all is answered; rows go to `sink`. Returns how many replies were late."""
        return self.prepare(policy, seed, client, sink, requests).run()

    def prepare(self, policy: str, seed: int, client: EdgeClient, sink: Sink, requests: int | None = None) -> Shift:
        """Everything up to the first request, with the model warm.

        Native on the hardware `host`, else paced to stand for the hardware of the device's group.
        """
        use_one_thread()
        timeline = WallTimeline()
        native = self.experiment.group(self.device).config.hardware == HOST
        runtime = DeviceRuntime(
            self.experiment,
            policy,
            seed,
            self.model,
            self.images,
            NativeCpu(timeline) if native else PacedCpu(timeline),
            GrpcTransport(client, timeline),
            sink,
            self.device,
            requests,
        )
        self.warm_up()
        return Shift(runtime, timeline)

    def warm_up(self, rounds: int = 3) -> None:
        """Runs every part once or more, so that the first request takes no longer than others."""
        image, spec = next(iter(self.images.values())), self.experiment.spec
        for _ in range(rounds):
            features, stage, said = image, 0, None
            for exit_, at in enumerate(spec.exit_stages):
                features, stage = self.model.net.run_stages(features, stage, at), at
                said = self.model.read(features, exit_, said)
            for (split, _), codec in self.model.codecs.items():
                codec.encode(self.model.net.run_stages(image, 0, split))

    def greet(self, client: EdgeClient) -> None:
        """A few calls that nobody counts, as little work for the edge as there is: first calls take longer."""
        if not self.model.codecs:
            return
        pair = max(self.model.codecs)
        blank = np.zeros(self.experiment.spec.shape_at(pair[0]), dtype=np.float32)
        payload = self.model.codecs[pair].encode(blank)
        query = Query(0, self.device, *pair, payload, (), GREETING_S, bundle_tag(self.model.digests))
        for _ in range(GREETINGS):
            _ask(client, query)


def _ask(client: EdgeClient, query: Query) -> None:
    """One call, whatever comes of it."""
    heard = Event()
    client.call(query, query.left_s, lambda result: heard.set())
    heard.wait(query.left_s)
