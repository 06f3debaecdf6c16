"""Named machines that nobody here can touch, from latencies that others published.

A machine's published batch-1 latencies are fitted by

    seconds = overhead_s · layers + macs / macs_per_s

over the convolutions and linear layers of each network, by non-negative least squares on the relative
errors, so that a small network counts as much as a large one. Only the published points stand in this file;
the fit is computed from them. `Hardware.calibrate` then says what a model that was calibrated on this host
would cost on that machine:

- every stage and head takes the time of the fit [inferred for networks outside the published ones], with the
  spread that was measured on the host: the host's distribution, scaled so that its median is that time;
- encoding and decoding are scaled like the stages together [inferred], because both run on the same CPU;
  where the published figures are of a GPU they say nothing of the codecs, which keep the host's times;
- how much the parts of a request slow down together, and for how long, is kept like their spread;
- the cost of a call is kept: it is that of both ends together, and bytes of framing belong to no machine;
- no process slows another down: the machine is one of its own, however many run on this host;
- what a batch costs relative to one sample is kept [inferred: the published latencies are of single images].

`Hardware.power` is what the machine takes, for `splitexit.energy`, with its own source; None where nobody published
it. The latencies are of one thread, published loads mostly of all cores: then one busy core is charged its share of
what they add together [inferred: whatever the first busy core wakes for all of them is charged too little].

VGG-16 is left out of the tables that have it: 15 G multiply-accumulates of wide 3×3 convolutions run at two
or three times the rate of everything else (Winograd), and networks that are worth splitting are far smaller.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from splitexit.bundle import ModelSpec
from splitexit.calibration import Calibration, Distribution
from splitexit.errors import UnknownNameError

HOST = "host"
"""The name of the machine that the bundle's calibration was measured on."""

FILE_SUFFIX = ".json"
"""What ends so names no machine, but a calibration file of one."""


@dataclass(frozen=True)
class Network:
    """Convolutions and linear layers of a network, and their multiply-accumulates on one image."""

    layers: int
    macs: int


# Counted from the layer shapes in Tencent/ncnn benchmark/*.param, at the input sizes of benchncnn.cpp:
# SqueezeNet 227×227, BlazeFace 128×128, the others 224×224. Its ResNet-18 and MobileNetV2 have one
# convolution more than usual, its ResNet-50 strides in the 1×1 convolutions.
NCNN = {
    "blazeface": Network(33, 29_368_320),
    "shufflenet_v2": Network(57, 144_907_992),
    "mobilenet_v2": Network(54, 313_619_328),
    "squeezenet": Network(26, 418_467_520),
    "mobilenet": Network(28, 568_740_352),
    "googlenet": Network(58, 1_582_671_872),
    "resnet18": Network(22, 1_826_918_400),
    "resnet50": Network(54, 3_857_973_248),
}

# The networks of torchvision at 224×224, counted likewise; its documentation lists the same as "GFLOPS".
TORCHVISION = {
    "mobilenet_v2": Network(53, 300_774_272),
    "resnet18": Network(21, 1_814_073_344),
    "resnet34": Network(37, 3_663_761_408),
    "resnet50": Network(54, 4_089_184_256),
    "resnet101": Network(105, 7_801_405_440),
    "resnet152": Network(156, 11_513_626_624),
}

NCNN_README = "https://github.com/Tencent/ncnn benchmark/README.md"
ARTTRT = "https://github.com/Juanx65/ArtTRT"

PIXEL_BATTERY_V = 3.85
"""Nominal voltage of the Pixel 2 XL's battery (3520 mAh, 13.6 Wh)."""


@dataclass(frozen=True)
class Power:
    """Electric power of a machine in watts.

    compute_w   while it computes as its latencies were measured, its idle power included
    idle_w      while it waits, switched on
    source      where both were published
    """

    compute_w: float
    idle_w: float
    source: str

    @classmethod
    def of_one_core(cls, idle_w: float, all_cores_w: float, cores: int, source: str) -> Power:
        """One busy core of several: its share of what all of them add to idle power [inferred]."""
        return cls(idle_w + (all_cores_w - idle_w) / cores, idle_w, source)


@dataclass(frozen=True)
class Hardware:
    """One named machine and the published latencies that stand for it.

    name, title   as a scenario and a person call it
    source        where the latencies were published
    measured      what exactly was measured: framework, threads, precision
    networks      layers and multiply-accumulates of the networks
    published_ms  network -> mean milliseconds for one image
    gpu           the latencies are of a GPU
    power         what it takes; None where nobody published it
    """

    name: str
    title: str
    source: str
    measured: str
    networks: Mapping[str, Network]
    published_ms: Mapping[str, float]
    gpu: bool = False
    power: Power | None = None

    @cached_property
    def _fit(self) -> tuple[float, float]:
        """(seconds per layer, seconds per multiply-accumulate), neither negative."""
        costs = [self.networks[name] for name in self.published_ms]
        seconds = np.array(list(self.published_ms.values())) / 1e3
        # In milliseconds per layer and per M multiply-accumulates both columns are of one size.
        columns = np.array([(cost.layers * 1e-3, cost.macs * 1e-9) for cost in costs]) / seconds[:, None]
        per_layer, per_mac = _non_negative_least_squares(columns)
        return per_layer * 1e-3, per_mac * 1e-9

    @property
    def overhead_s(self) -> float:
        """Seconds that every convolution or linear layer costs, whatever its size."""
        return self._fit[0]

    @property
    def macs_per_s(self) -> float:
        """Multiply-accumulates a second beyond the overhead."""
        return 1.0 / self._fit[1]

    def seconds(self, layers: int, macs: int) -> float:
        """Time of a part of a network, for one image."""
        return self._fit[0] * layers + self._fit[1] * macs

    def errors(self) -> dict[str, float]:
        """For every published network, (fitted − published) / published."""
        fitted_s = {name: self.seconds(network.layers, network.macs) for name, network in self.networks.items()}
        return {name: fitted_s[name] * 1e3 / ms - 1 for name, ms in self.published_ms.items()}

    def mape(self) -> float:
        """Mean absolute relative error of the fit over the published networks."""
        return float(np.mean(np.abs(list(self.errors().values()))))

    def calibrate(self, spec: ModelSpec, host: Calibration) -> Calibration:
        """What `spec` costs on this machine, with the spread that `host` measured; the module states the rules.

        Raises ArtifactError where `host` is of another model.
        """
        host.check(spec, "calibration")
        stages = tuple(_scaled_to(h, self.seconds(s.layers, s.macs)) for h, s in _pairs(host.stages, spec.stages))
        exits = tuple(_scaled_to(h, self.seconds(e.layers, e.macs)) for h, e in _pairs(host.exits, spec.exits))
        factor = 1.0 if self.gpu else _total_s(stages) / _total_s(host.stages)
        return replace(
            host,
            machine=self.describe() | {"spread_of": dict(host.machine)},
            stages=stages,
            exits=exits,
            encode={pair: time.scaled(factor) for pair, time in host.encode.items()},
            decode={pair: time.scaled(factor) for pair, time in host.decode.items()},
            corun={0: 1.0},
        )

    def describe(self) -> dict[str, Any]:
        """Name, source and fit, for a manifest."""
        return {
            "name": self.name,
            "title": self.title,
            "source": self.source,
            "measured": self.measured,
            "overhead_s": float(f"{self.overhead_s:.4g}"),
            "macs_per_s": float(f"{self.macs_per_s:.4g}"),
            "fit_error": float(f"{self.mape():.3g}"),
        }


def names() -> list[str]:
    """The named machines."""
    return list(_TABLE)


def calibration_on(hardware: str, spec: ModelSpec, host: Calibration) -> Calibration:
    """What `spec` costs on what a scenario calls so: `host`, a named machine, or the path of a calibration.json.

    Raises UnknownNameError, or ArtifactError where a file or `host` does not fit the model.
    """
    if hardware == HOST:
        return host
    if hardware.endswith(FILE_SUFFIX):
        return Calibration.load(Path(hardware), spec)
    return named(hardware).calibrate(spec, host)


def named(name: str) -> Hardware:
    """The machine of that name; raises UnknownNameError."""
    if name not in _TABLE:
        raise UnknownNameError("machine", name, _TABLE)
    return _TABLE[name]


def _non_negative_least_squares(columns: np.ndarray[Any, Any]) -> tuple[float, float]:
    """x >= 0 of two unknowns that minimises |columns · x − 1|²: the best over which unknowns are zero."""
    best: np.ndarray[Any, Any] = np.zeros(2)
    best_loss = np.inf
    for kept in product((1.0, 0.0), repeat=2):
        x, *_ = np.linalg.lstsq(columns * kept, np.ones(len(columns)), rcond=None)
        loss = float(((columns @ x - 1.0) ** 2).sum())
        if loss < best_loss and (x >= 0).all():
            best, best_loss = x, loss
    return float(best[0]), float(best[1])


def _scaled_to(measured: Distribution, median_s: float) -> Distribution:
    if measured.median <= 0.0:
        return Distribution.constant(median_s)
    return measured.scaled(median_s / measured.median)


def _pairs(measured: tuple[Distribution, ...], parts: tuple[Any, ...]) -> zip[tuple[Distribution, Any]]:
    return zip(measured, parts, strict=True)


def _total_s(stages: tuple[Distribution, ...]) -> float:
    return sum(stage.median for stage in stages)


_TABLE = {
    machine.name: machine
    for machine in (
        Hardware(
            "raspberry-pi-3b-plus",
            "Raspberry Pi 3 Model B+ (Cortex-A53, 1.4 GHz), one core",
            f"{NCNN_README}, 'Raspberry Pi 3 Model B+', ./benchncnn 4 1 0 -1 1",
            "ncnn, 1 thread, fp32 (the core has no half-precision arithmetic), mean of 4 runs",
            NCNN,
            {
                "blazeface": 22.95,
                "shufflenet_v2": 74.44,
                "mobilenet_v2": 158.80,
                "squeezenet": 125.58,
                "mobilenet": 205.65,
                "googlenet": 450.79,
                "resnet18": 379.57,
                "resnet50": 979.75,
            },
            # Both ends of the model's load; four cores are busy at the full one.
            power=Power.of_one_core(
                2.484,
                5.274,
                4,
                'Noureddine, "PowerJoular and JoularJX", Intelligent Environments 2022: model rbp3b+1.3 of '
                "https://github.com/joular/powerjoular powermodels/powerjoular_models.json at no and at full load",
            ),
        ),
        Hardware(
            "raspberry-pi-4",
            "Raspberry Pi 4 Model B (Cortex-A72, 1.8 GHz), one core",
            f"{NCNN_README}, 'Raspberry Pi 4 Model B', ./benchncnn 10 1 0 -1 1",
            "ncnn, 1 thread, fp32 (the core has no half-precision arithmetic), mean of 10 runs",
            NCNN,
            {
                "blazeface": 12.65,
                "shufflenet_v2": 42.12,
                "mobilenet_v2": 93.48,
                "squeezenet": 73.96,
                "mobilenet": 124.32,
                "googlenet": 235.94,
                "resnet18": 191.10,
                "resnet50": 534.11,
            },
            # Rev 1.4 at 1.8 GHz, headless, measured at the wall.
            power=Power.of_one_core(
                1.6,
                5.0,
                4,
                "https://github.com/geerlingguy/sbc-reviews/issues/4, idle and stress-ng --matrix 0 (all four cores)",
            ),
        ),
        Hardware(
            "pixel-2-xl",
            "Google Pixel 2 XL phone (Snapdragon 835, Kryo 280 at 2.45 GHz), one big core",
            f"{NCNN_README}, 'Qualcomm MSM8998 Snapdragon 835', taimen, ./benchncnn 8 1 2 -1 1",
            "ncnn, 1 thread on a big core, fp32 (the core has no half-precision arithmetic), mean of 8 runs",
            NCNN,
            {
                "blazeface": 11.07,
                "shufflenet_v2": 37.10,
                "mobilenet_v2": 73.48,
                "squeezenet": 69.35,
                "mobilenet": 107.13,
                "googlenet": 228.38,
                "resnet18": 213.65,
                "resnet50": 526.04,
            },
            # Screen and radios off. Idle: suspend + idle loop. Computing adds active + big cluster + one of its cores
            # at 2457 MHz.
            power=Power(
                (6.957 + 2.855 + 17.757 + 6.141 + 212.147) * PIXEL_BATTERY_V / 1e3,
                (6.957 + 2.855) * PIXEL_BATTERY_V / 1e3,
                "power_profile.xml of taimen by Google (https://github.com/LineageOS/android_device_google_taimen "
                "overlay/frameworks/base/core/res/res/xml): measured mA, at the battery's 3.85 V",
            ),
        ),
        Hardware(
            "jetson-xavier-nx",
            "NVIDIA Jetson Xavier NX (Volta GPU, 384 cores)",
            f"{ARTTRT} jetson_nx_latency.md, rows 'Vanilla', column 'Latency-all'",
            "PyTorch eager, fp32, with the copies to and from the GPU, mean over the ImageNet validation set",
            TORCHVISION,
            {
                "mobilenet_v2": 13.8,
                "resnet18": 17.5,
                "resnet34": 30.0,
                "resnet50": 39.7,
                "resnet101": 68.2,
                "resnet152": 96.2,
            },
            gpu=True,
            # At the wall, ResNet-50 in int8 without a break, and seconds after it [inferred: fp32 takes as much]. The
            # power mode of the latencies is not known.
            power=Power(
                10.6,
                3.92,
                "https://github.com/mlcommons/inference_results_v1.1 closed/NVIDIA/results/Xavier_NX_TRT_MaxQ/resnet50/"
                "SingleStream/performance/run_1/spl.txt (NVIDIA; Auvidea JNX30 board)",
            ),
        ),
        Hardware(
            "workstation-gpu",
            "Workstation with an NVIDIA GeForce RTX 3060",
            f"{ARTTRT} outputs/table_outputs/rtx3060/rtx3060_dynamic_batch.md, rows 'Vanilla'",
            "PyTorch eager, fp32 (its convolutions may use TF32), mean over the ImageNet validation set",
            TORCHVISION,
            {
                "mobilenet_v2": 2.4,
                "resnet18": 1.7,
                "resnet34": 2.8,
                "resnet50": 3.3,
                "resnet101": 5.7,
                "resnet152": 8.0,
            },
            gpu=True,
        ),
        Hardware(
            "workstation-cpu",
            "Workstation with an AMD Ryzen Threadripper 3970X (Zen 2, 3.7 to 4.5 GHz), one core",
            f"{NCNN_README}, 'AMD Ryzen Threadripper 3970X', benchncnn 10 1 0 -1 0",
            "ncnn, 1 thread, fp32, mean of 10 runs",
            NCNN,
            {
                "blazeface": 6.21,
                "shufflenet_v2": 26.06,
                "mobilenet_v2": 14.82,
                "squeezenet": 11.78,
                "mobilenet": 21.68,
                "googlenet": 58.49,
                "resnet18": 61.40,
                "resnet50": 128.21,
            },
        ),
    )
}


def cpu_model() -> str:
    """What this machine calls its processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
