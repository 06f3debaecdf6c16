"""Small random models with random costs, as a policy meets them in `prepare`: for tests against brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from splitexit.calibration import Calibration, Distribution, Rpc
from splitexit.decision import EdgeLoad, LinkEstimate, Observation, Setting, Utility
from splitexit.energy import Model, Radio
from splitexit.hardware import Power
from splitexit.recording import MEASURES, ExitReadings, PairReadings, Part
from tests import synthetic

Rng = np.random.Generator
CODECS = ("jpeg", "fp16", "raw", "uint8")


def setting(rng: Rng, **changes: object) -> Setting:
    """Two to five stages; every split but the last has none to three codecs; nothing varies from request to request."""
    model = synthetic.spec(int(rng.integers(2, 6)))
    pairs = {
        (split, codec): int(rng.integers(50, 20_000))
        for split in range(model.num_stages)
        for codec in CODECS[split > 0 :]
        if rng.random() < 0.5
    }
    device, edge = calibration(rng, model.num_stages, list(pairs)), calibration(rng, model.num_stages, list(pairs))
    says = synthetic.recording(model, samples=40, pairs=pairs, seed=int(rng.integers(2**32)))
    found = Setting(
        spec=model,
        device=device,
        edge=edge,
        codecs=says.codecs(),
        calibration=says.calibration,
        link=LinkEstimate(1e6, 0.01),
        utility=Utility(),
        deadline_s=1.0,
        energy=consumption(rng),
    )
    return replace(found, **changes)


def calibration(rng: Rng, stages: int, pairs: list[tuple[int, str]]) -> Calibration:
    """Some 10 ms for every stage, a tenth of that for heads and codecs."""

    def times(count: int, mean_s: float) -> tuple[Distribution, ...]:
        return tuple(map(Distribution.constant, rng.exponential(mean_s, count).tolist()))

    codecs = [dict(zip(pairs, times(len(pairs), 1e-3), strict=True)) for _ in range(2)]
    return Calibration({}, times(stages, 0.01), times(stages, 1e-3), *codecs, Rpc(30, 100, Distribution.constant(1e-4)))


def consumption(rng: Rng) -> Model:
    """A machine and a radio of some watts."""
    alpha, base, tail_w, tail_s, wake_w, wake_s = rng.exponential((1e-6, 1.0, 0.3, 1.0, 0.5, 0.3)).tolist()
    radio = Radio("random", alpha, base, alpha, base, tail_w, tail_s, wake_w, wake_s, "test")
    return Model(Power(float(1 + rng.exponential(3)), 1.0, "test"), radio, reply_bytes=100, downlink_bps=1e6)


def link(rng: Rng) -> LinkEstimate:
    """From a kilobit to a gigabit a second, and 0.1 ms to a second there and back."""
    return LinkEstimate(10 ** rng.uniform(3, 9), 10 ** rng.uniform(-4, 0))


def observation(rng: Rng, **fields: object) -> Observation:
    """Everything that a device can measure, at random."""
    measured = {
        "now_s": float(rng.exponential(10)),
        "readings": (),
        "queue_length": int(rng.integers(0, 5)),
        "in_flight": 0,
        "oldest_in_flight_s": 0.0,
        "link": link(rng),
        "edge_load": None if rng.random() < 0.2 else EdgeLoad(int(rng.integers(0, 9)), float(rng.exponential(0.02))),
        "cpu_load": float(rng.random()),
        "deadline_left_s": float(rng.exponential(0.2)),
    }
    return Observation(**(measured | fields))


def shortened(of: Setting, samples: int) -> Setting:
    """The same with the first few samples of its calibration split."""

    def first(readings: ExitReadings) -> ExitReadings:
        return ExitReadings(*(getattr(readings, name)[:samples] for name in MEASURES))

    part = of.calibration
    pairs = {
        pair: PairReadings(said.payload_bytes[:samples], {e: first(r) for e, r in said.exits.items()})
        for pair, said in part.pairs.items()
    }
    few = Part(part.name, part.sample[:samples], part.label[:samples], tuple(map(first, part.exits)), pairs)
    return replace(of, calibration=few)
