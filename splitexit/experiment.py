"""From a scenario to everything that both worlds need: model, recording, times, links, policies, requests.

The simulator and the live device build on the same Experiment and the same random streams, so that
equal seeds mean equal arrivals, samples and service times in both.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from splitexit.bundle import Bundle, ModelSpec
from splitexit.calibration import Calibration, ServiceTimes
from splitexit.decision import LinkEstimate, Setting
from splitexit.errors import ArtifactError, InputError, PolicyError
from splitexit.hardware import named
from splitexit.inference import Decider, Request
from splitexit.links import Fifo, Link
from splitexit.policies import Policy
from splitexit.recording import Recording
from splitexit.scenario import Scenario

HOST = "host"
"""The hardware name of the machine that the bundle's calibration was measured on."""

ARRIVALS, SAMPLES, DEVICE_TIMES, EDGE_TIMES, UPLINK, DOWNLINK, POLICY = range(7)


def stream(seed: int, kind: int, device: int = 0, block: int = 0) -> np.random.Generator:
    """The random stream of one entity: independent of every other and of the order of use."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(kind, device, block)))


@dataclass(frozen=True)
class Workload:
    """One device's requests: positions in the recording's test part, and arrival times.

    `arrival_s` is None for a closed loop: a request arrives `think_s` after the one before was answered.
    """

    device: int
    positions: Sequence[int]
    samples: Sequence[int]
    labels: Sequence[int]
    arrival_s: Sequence[float] | None
    think_s: float
    deadline_s: float

    def __len__(self) -> int:
        return len(self.positions)

    def next_arrival_s(self, begun: int, loop_s: float | None) -> float | None:
        """When the next request arrives after `begun` of them: None when there is none.

        Args:
            loop_s: in a closed loop, when it may arrive; None while it cannot.
        """
        if begun >= len(self):
            return None
        return loop_s if self.arrival_s is None else self.arrival_s[begun]

    def waiting(self, begun: int, now_s: float) -> int:
        """Requests that have arrived by `now_s` when `begun` of them have begun; none in a closed loop."""
        if self.arrival_s is None:
            return 0
        return max(0, bisect_right(self.arrival_s, now_s) - begun)

    def request(self, number: int, arrival_s: float) -> Request:
        """The request with this running number."""
        due = arrival_s + self.deadline_s
        return Request(number, self.device, self.samples[number], self.labels[number], arrival_s, due)


@dataclass(frozen=True)
class Experiment:
    """A scenario with its files read.

    Args:
        scenario: what to run.
        bundle, recording: the model and what it said.
        host: the calibration that the hardware name `host` stands for.
        subset: sample ids to draw requests from (default: the whole test part).
    """

    scenario: Scenario
    bundle: Bundle
    recording: Recording
    host: Calibration
    subset: tuple[int, ...] | None = None

    @classmethod
    def open(
        cls, scenario: Scenario, host: Calibration | None = None, subset: Sequence[int] | None = None
    ) -> Experiment:
        """Reads the scenario's bundle; raises InputError where a file is missing or does not fit."""
        bundle = Bundle.open(scenario.bundle)
        recording = Recording.load(bundle.recording, bundle.spec)
        if host is None:
            host = Calibration.load(bundle.calibration, bundle.spec)
        return cls(scenario, bundle, recording, host, None if subset is None else tuple(subset))

    @property
    def spec(self) -> ModelSpec:
        """The model's structure."""
        return self.bundle.spec

    @cached_property
    def device_calibration(self) -> Calibration:
        """Seconds of every part on the scenario's device."""
        return self._on(self.scenario.devices.hardware)

    @cached_property
    def edge_calibration(self) -> Calibration:
        """Seconds of every part on the scenario's edge."""
        return self._on(self.scenario.edge.hardware)

    def _on(self, hardware: str) -> Calibration:
        return self.host if hardware == HOST else named(hardware).calibrate(self.spec, self.host)

    @cached_property
    def setting(self) -> Setting:
        """What every policy may know beforehand."""
        return Setting(
            spec=self.spec,
            device=self.device_calibration,
            edge=self.edge_calibration,
            codecs=self._codecs(),
            calibration=self.recording.calibration,
            link=self._prior(),
            utility=self.scenario.utility,
            deadline_s=self.scenario.devices.deadline_s,
        )

    def _codecs(self) -> dict[int, tuple[str, ...]]:
        """The recorded pairs whose encode and decode times were measured too."""
        timed = self.device_calibration.encode.keys() & self.edge_calibration.decode.keys()
        offered = {
            split: tuple(codec for codec in codecs if (split, codec) in timed)
            for split, codecs in self.recording.codecs().items()
        }
        return {split: codecs for split, codecs in offered.items() if codecs}

    def _prior(self) -> LinkEstimate:
        """The links' nominal figures, as a device would have them from its contract or a probe."""
        up, down, rpc = self._uplink, self._downlink, self.edge_calibration.rpc
        reply_s = 8.0 * rpc.downlink_bytes / down.mean_bps
        return LinkEstimate(up.mean_bps, up.delay_s + down.delay_s + reply_s + rpc.seconds.mean)

    @cached_property
    def _uplink(self) -> Link:
        link: Link = self.scenario.uplink.create()
        return link

    @cached_property
    def _downlink(self) -> Link:
        link: Link = self.scenario.downlink.create()
        return link

    def uplink(self, seed: int, device: int) -> Fifo:
        """A device's fresh uplink."""
        return _fresh(self._uplink, stream(seed, UPLINK, device))

    def downlink(self, seed: int, device: int) -> Fifo:
        """A device's fresh downlink."""
        return _fresh(self._downlink, stream(seed, DOWNLINK, device))

    def decider(self, label: str, seed: int, device: int) -> Decider:
        """A fresh, prepared instance of the policy with this label; raises InputError where it does not fit."""
        policy: Policy = self.scenario.policy(label).create()
        try:
            policy.prepare(self.setting, stream(seed, POLICY, device))
        except ArtifactError:
            raise
        except (InputError, PolicyError) as error:
            raise InputError(f"policy {label!r}: {error}") from error
        return Decider(policy, self.setting)

    def device_times(self, seed: int, device: int) -> ServiceTimes:
        """What every part of every request takes on this device."""
        return ServiceTimes(self.device_calibration, lambda block: stream(seed, DEVICE_TIMES, device, block))

    def edge_times(self, seed: int, device: int) -> ServiceTimes:
        """What every part of every request of this device takes on the edge."""
        return ServiceTimes(self.edge_calibration, lambda block: stream(seed, EDGE_TIMES, device, block))

    def workload(self, seed: int, device: int, requests: int | None = None) -> Workload:
        """A device's requests; samples in a random order without repeats until all were used."""
        count = self.scenario.requests if requests is None else requests
        positions = self._positions(stream(seed, SAMPLES, device), count)
        arrivals = self.scenario.devices.arrivals.create()
        times = None if arrivals.closed else arrivals.times_s(count, stream(seed, ARRIVALS, device)).tolist()
        test = self.recording.test
        return Workload(
            device,
            positions.tolist(),
            test.sample[positions].tolist(),
            test.label[positions].tolist(),
            times,
            arrivals.think_s if arrivals.closed else 0.0,
            self.scenario.devices.deadline_s,
        )

    def _positions(self, rng: np.random.Generator, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        pool = np.arange(len(self.recording.test))
        if self.subset is not None:
            pool = pool[np.isin(self.recording.test.sample, self.subset)]
            if not len(pool):
                raise ArtifactError(f"{self.bundle.samples}: none of its samples is in the recording's test part")
        rounds = -(-count // len(pool))
        return np.concatenate([rng.permutation(pool) for _ in range(rounds)])[:count]


def _fresh(link: Link, rng: np.random.Generator) -> Fifo:
    fresh = link.fork()
    fresh.reseed(rng)
    return Fifo(fresh)
