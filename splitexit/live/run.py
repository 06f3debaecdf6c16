"""A device's run against an edge: what `splitexit device` and the demo do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
from splitexit.results import Completion
from splitexit.scenario import Scenario


@dataclass(frozen=True)
class Station:
    """Everything that a live device has of its own: the experiment on its images, and the model."""

    experiment: Experiment
    images: Images
    model: LiveModel

    @classmethod
    def open(cls, scenario: Scenario, data: str | None = None, host: Calibration | None = None) -> Station:
        """Loads all; raises InputError where a file is missing or does not fit.

        Args:
            host: what this machine takes, instead of the bundle's calibration.
            data: the whole recorded test set, instead of the bundle's own samples.
        """
        images = open_images(Bundle.open(scenario.bundle), data)
        experiment = Experiment.open(scenario, host, subset=tuple(images))
        check_labels(images, experiment.recording, data or str(experiment.bundle.samples))
        pairs = [(split, codec) for split, codecs in experiment.setting().codecs.items() for codec in codecs]
        return cls(experiment, images, LiveModel.open(experiment.bundle, pairs))

    def connect(self, address: Address, say: Callable[[str], None]) -> EdgeClient:
        """A client that has asked the edge what it serves; raises EdgeRefusedError where that does not fit."""
        client = EdgeClient(address, Expected.of(self.model), say)
        try:
            client.connect()
        except BaseException:
            client.close()
            raise
        return client

    def run(
        self,
        policy: str,
        seed: int,
        client: EdgeClient,
        sink: Callable[[Completion], None],
        device: int = 0,
        requests: int | None = None,
    ) -> int:
        """Runs one device until all is answered; rows go to `sink`. Returns how many replies came too late.

        Native on the hardware `host`, else paced to stand for the scenario's.
        """
        use_one_thread()
        timeline = WallTimeline()
        native = self.experiment.scenario.devices.hardware == HOST
        runtime = DeviceRuntime(
            self.experiment,
            policy,
            seed,
            self.model,
            self.images,
            NativeCpu(timeline) if native else PacedCpu(timeline),
            GrpcTransport(client, timeline),
            sink,
            device,
            requests,
        )
        self.warm_up()
        timeline.begin()
        runtime.run()
        return runtime.late

    def warm_up(self, rounds: int = 3) -> None:
        """Runs every part once or more, so that the first request takes no longer than others."""
        image, spec = next(iter(self.images.values())), self.experiment.spec
        for _ in range(rounds):
            features, stage = image, 0
            for exit_, at in enumerate(spec.exit_stages):
                features, stage = self.model.net.run_stages(features, stage, at), at
                self.model.read(features, exit_)
            for (split, _), codec in self.model.codecs.items():
                codec.encode(self.model.net.run_stages(image, 0, split))
