"""Measuring what every part of a bundle costs on this machine: seconds of stages, heads, encoding and decoding.

One thread, one sample at a time, each part in the order in which a request meets it, and a pause before every sample
as between live requests, so that caches and clocks are as warm as they will be live: back to back a sample is faster
than any request. What is measured is what `runtime` does, numpy in and out. Apart from that, the whole network on
several samples at once, which says what a server gains by batching.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter, sleep
from typing import Any

import numpy as np
import torch

from splitexit.bundle import Bundle, ModelSpec
from splitexit.calibration import Calibration, Distribution, Pair, Rpc
from splitexit.copula import Dependence
from splitexit.hardware import cpu_model
from splitexit.models import codecs, data, multi_exit
from splitexit.models.chain import Chain, Clock, checked
from splitexit.models.runtime import Runtime, one_thread
from splitexit.recording import Recording

Array = np.ndarray[Any, Any]
Progress = Callable[[int, int], None]
WARM_UP = 20
GAP_S = 0.015
"""The pause: as before a call in splitexit.live.rpc. Live requests leave some 15 to 80 ms between them."""
CLOSE_EVERY = 5
"""After every so many samples the same one runs once more at once, for the difference that the pause makes."""
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
BATCH_ROUNDS = 7
# Before the live layer has measured a call: a small unary gRPC call over loopback, and its framing.
TYPICAL_RPC = Rpc(uplink_overhead_bytes=200, downlink_bytes=200, seconds=Distribution.constant(6e-4))


def calibrate(
    bundle: Bundle,
    pairs: Sequence[Pair],
    images: Sequence[Array],
    *,
    repetitions: int = 300,
    gap_s: float = GAP_S,
    rpc: Rpc,
    corun: Mapping[int, float] | None = None,
    command: str = "",
    progress: Progress = lambda done, total: None,
) -> Calibration:
    """Measures the bundle's parts; whoever calls keeps the result where it belongs.

    Args:
        pairs: the (split, codec id) to time.
        images: float32 C×H×W in [0, 1], used in turn, because a codec's time depends on what it packs.
        repetitions: how many samples are timed, after a warm-up.
        gap_s: pause before every sample.
        rpc: what a call costs, measured by the live layer.
        corun: what other processes cost, as `measure_corun` says; None: nothing is known of it.

    `made` says how, and holds the check of splitexit.models.chain.
    """
    spaced, close = Clock(), Clock()
    chain = Chain(Runtime(bundle), codecs.open_codecs(bundle, pairs))
    with one_thread():
        for number in range(-WARM_UP, repetitions):
            if number == 0:
                spaced, close = Clock(), Clock()
            sleep(gap_s)
            chain.run(images[number % len(images)], spaced)
            if gap_s and number % CLOSE_EVERY == 0:
                chain.run(images[number % len(images)], close)
            progress(max(number + 1, 0), repetitions)
    made: dict[str, Any] = {"command": command, "repetitions": repetitions, "warm_up": WARM_UP, "threads": 1}
    made |= _of_gap(spaced, close, gap_s) | {"batch": _rounds(command)}
    measured = _of_clock(spaced, bundle.spec, pairs, rpc)
    made["check"] = checked(measured, spaced.chain_s())
    return replace(measured, batch=measure_batch(bundle, images), corun=corun or {0: 1.0}, made=made)


def _of_clock(clock: Clock, spec: ModelSpec, pairs: Sequence[Pair], rpc: Rpc) -> Calibration:
    return Calibration(
        machine=describe_machine(),
        stages=tuple(clock.distribution("stage", number) for number in range(spec.num_stages)),
        exits=tuple(clock.distribution("exit", number) for number in range(len(spec.exits))),
        encode={pair: clock.distribution("encode", pair) for pair in pairs},
        decode={pair: clock.distribution("decode", pair) for pair in pairs},
        rpc=rpc,
        weights_sha256=spec.weights_sha256,
        dependence=Dependence.measured(clock.parts("stage", "exit").tolist()),
    )


def _of_gap(spaced: Clock, close: Clock, gap_s: float) -> dict[str, float]:
    """The pause, and how many times as long the network took after it as it did back to back."""
    if not gap_s:
        return {"gap_ms": 0.0}
    slower = float(np.median(spaced.chain_s()) / np.median(close.chain_s()))
    return {"gap_ms": 1e3 * gap_s, "gap_factor": float(f"{slower:.4g}")}


def calibrate_batch(bundle: Bundle, images: Sequence[Array], *, command: str = "") -> Calibration:
    """The present calibration with what batches cost measured anew; raises ArtifactError where there is none."""
    present = Calibration.load(bundle.calibration, bundle.spec)
    made = {**present.made, "batch": _rounds(command)}
    return replace(present, batch=measure_batch(bundle, images), made=made)


def _rounds(command: str) -> dict[str, Any]:
    return {"command": command, "rounds": BATCH_ROUNDS, "machine": describe_machine()}


def measure_batch(bundle: Bundle, images: Sequence[Array]) -> dict[int, float]:
    """Seconds of the whole network, all heads included, on n samples at once relative to one sample: size -> factor.

    The median of some rounds, one thread, warm. Every round goes through all sizes, so that a machine that is slower
    for a while is slower for all of them. Noise cannot make a larger batch cheaper: the curve never falls.
    """
    net = multi_exit.load(bundle)
    seconds: dict[int, list[float]] = {size: [] for size in BATCH_SIZES}
    with one_thread(), torch.inference_mode():
        for _ in range(BATCH_ROUNDS + 1):
            for size, samples in seconds.items():
                batch = torch.from_numpy(np.stack([images[n % len(images)] for n in range(size)]))
                passes = BATCH_SIZES[-1] // size
                start = perf_counter()
                for _ in range(passes):
                    net(batch)
                samples.append((perf_counter() - start) / passes)
    medians = [float(np.median(samples[1:])) for samples in seconds.values()]
    factors = np.maximum.accumulate(np.array(medians) / medians[0])
    return {size: float(f"{factor:.4g}") for size, factor in zip(BATCH_SIZES, factors, strict=True)}


def recorded_pairs(bundle: Bundle) -> list[Pair]:
    """The pairs of the bundle's recording, which are those that a simulation needs; none without a recording."""
    if not bundle.recording.exists():
        return []
    return sorted(Recording.load(bundle.recording, bundle.spec).test.pairs)


def read_images(bundle: Bundle, source: str | None, count: int = 100) -> list[Array]:
    """Images to time with: `source`, else the bundle's samples, else noise (whose codec times mean little)."""
    if source is None and not bundle.samples.exists():
        rng = np.random.default_rng(0)
        return list(rng.integers(0, 256, (8, *bundle.spec.input_shape)).astype(np.float32) / np.float32(255))
    images = data.read_for(bundle.spec, source or str(bundle.samples), limit=count)
    return [images.pixels(number) for number in range(len(images))]


def present_rpc(bundle: Bundle) -> Rpc:
    """What the present calibration says of a call, for a new one to keep; typical figures without one."""
    return Calibration.load(bundle.calibration).rpc if bundle.calibration.exists() else TYPICAL_RPC


def present_corun(bundle: Bundle) -> Mapping[int, float]:
    """Likewise of what other processes cost; nothing without one."""
    return Calibration.load(bundle.calibration).corun if bundle.calibration.exists() else {0: 1.0}


def describe_machine() -> dict[str, Any]:
    """Enough to tell whether a calibration was measured on a machine like this one."""
    return {
        "name": "host",
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": 1,
    }
