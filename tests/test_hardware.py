"""Named machines: the published points are fitted as stated, and a calibration is scaled by the stated rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from splitexit import hardware
from splitexit.bundle import Exit, ModelSpec, Stage
from splitexit.calibration import Calibration, Distribution, Rpc
from splitexit.copula import Dependence
from splitexit.errors import ArtifactError, UnknownNameError
from tests import synthetic

# ResNet-56 and ResNet-32 for CIFAR (He et al., 2016): 6n+1 convolutions and one linear layer.
RESNET_56, RESNET_32 = (56, 125_485_696), (32, 68_862_592)


def conv(size: int, channels: int, out: int, kernel: int = 3, groups: int = 1) -> int:
    """Multiply-accumulates of a convolution with a `size`×`size` output."""
    return size * size * channels * out * kernel * kernel // groups


def count_resnet(blocks: list[int], bottleneck: bool, caffe: bool = False) -> tuple[int, int]:
    """(layers, multiply-accumulates) of an ImageNet ResNet at 224×224.

    Caffe's form strides in the 1×1 convolutions and has one on its very first shortcut.
    """
    macs, layers, channels, size = conv(112, 3, 64, 7), 1, 64, 56
    for stage, depth in enumerate(blocks):
        width = 64 << stage
        for block in range(depth):
            out_size = size // 2 if block == 0 and stage > 0 else size
            if bottleneck:
                first = out_size if caffe else size
                macs += (
                    conv(first, channels, width, 1) + conv(out_size, width, width) + conv(out_size, width, 4 * width, 1)
                )
                out = 4 * width
            else:
                macs += conv(out_size, channels, width) + conv(out_size, width, width)
                out = width
            layers += 3 if bottleneck else 2
            if block == 0 and (stage > 0 or channels != out or caffe):
                macs, layers = macs + conv(out_size, channels, out, 1), layers + 1
            channels, size = out, out_size
    return layers + 1, macs + channels * 1000


def count_mobilenet_v2(first_expands: bool) -> tuple[int, int]:
    """(layers, multiply-accumulates) of MobileNetV2 1.0 at 224×224; Caffe's form expands its first block too."""
    macs, layers, channels, size = conv(112, 3, 32), 1, 32, 112
    table = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expansion, out, depth, stride in table:
        for block in range(depth):
            hidden = channels * expansion
            if expansion > 1 or first_expands:
                macs, layers = macs + conv(size, channels, hidden, 1), layers + 1
            size //= stride if block == 0 else 1
            macs += conv(size, hidden, hidden, 3, hidden) + conv(size, hidden, out, 1)
            layers, channels = layers + 2, out
    return layers + 2, macs + conv(size, channels, 1280, 1) + 1280 * 1000


def count_mobilenet() -> tuple[int, int]:
    """(layers, multiply-accumulates) of MobileNet 1.0 at 224×224."""
    macs, channels, size = conv(112, 3, 32), 32, 112
    table = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for out, stride in table:
        size //= stride
        macs += conv(size, channels, channels, 3, channels) + conv(size, channels, out, 1)
        channels = out
    return 2 + 2 * len(table), macs + channels * 1000


def count_squeezenet() -> tuple[int, int]:
    """(layers, multiply-accumulates) of SqueezeNet 1.1 at 227×227; ncnn pads its last 1×1 convolution."""
    macs, layers, channels, size = conv(113, 3, 64), 1, 64, 56
    for fires in ([(16, 64)] * 2, [(32, 128)] * 2, [(48, 192)] * 2 + [(64, 256)] * 2):
        for squeeze, expand in fires:
            macs += conv(size, channels, squeeze, 1) + conv(size, squeeze, expand, 1) + conv(size, squeeze, expand)
            layers, channels = layers + 3, 2 * expand
        size //= 2
    return layers + 1, macs + conv(16, channels, 1000, 1)


COUNTED = {
    "resnet18": count_resnet([2, 2, 2, 2], False),
    "resnet34": count_resnet([3, 4, 6, 3], False),
    "resnet50": count_resnet([3, 4, 6, 3], True),
    "resnet101": count_resnet([3, 4, 23, 3], True),
    "resnet152": count_resnet([3, 8, 36, 3], True),
    "mobilenet_v2": count_mobilenet_v2(first_expands=False),
}


@pytest.mark.parametrize("name", hardware.TORCHVISION)
def test_torchvision_counts_follow_from_the_architecture(name: str) -> None:
    network = hardware.TORCHVISION[name]
    assert (network.layers, network.macs) == COUNTED[name]


def test_ncnn_counts_follow_from_the_architecture() -> None:
    counted = {
        "mobilenet": count_mobilenet(),
        "mobilenet_v2": count_mobilenet_v2(first_expands=True),
        "squeezenet": count_squeezenet(),
        "resnet18": count_resnet([2, 2, 2, 2], False, caffe=True),
        "resnet50": count_resnet([3, 4, 6, 3], True, caffe=True),
    }
    assert {name: (hardware.NCNN[name].layers, hardware.NCNN[name].macs) for name in counted} == counted


@pytest.mark.parametrize("name", hardware.names())
def test_the_fit_is_the_least_squares_one_and_its_errors_are_printed(name: str) -> None:
    """Within 20 % on average and 50 % at worst; no other non-negative pair nearby fits better."""
    machine = hardware.named(name)
    errors = machine.errors()
    print(f"\n{name}: {machine.overhead_s * 1e6:.0f} us a layer, {machine.macs_per_s / 1e9:.1f} G macs/s, ", end="")
    print(f"MAPE {machine.mape():.1%}: " + ", ".join(f"{n} {e:+.0%}" for n, e in errors.items()))
    assert machine.overhead_s > 0
    assert machine.macs_per_s > 0
    assert machine.mape() < 0.20
    assert max(map(abs, errors.values())) < 0.50
    assert set(machine.published_ms) <= set(machine.networks)
    for scale in ((1.02, 1.0), (0.98, 1.0), (1.0, 1.02), (1.0, 0.98)):
        assert _loss(machine, *scale) > _loss(machine, 1.0, 1.0)


def _loss(machine: hardware.Hardware, overhead: float, rate: float) -> float:
    loss = 0.0
    for name, ms in machine.published_ms.items():
        network = machine.networks[name]
        seconds = overhead * machine.overhead_s * network.layers + network.macs / (rate * machine.macs_per_s)
        loss += (seconds * 1e3 / ms - 1) ** 2
    return loss


def test_a_negative_overhead_is_refused_by_the_fit() -> None:
    """Times that grow faster than proportionally would fit best below zero overhead: it stays at zero."""
    networks = {"small": hardware.Network(10, 100_000_000), "large": hardware.Network(10, 1_000_000_000)}
    machine = hardware.Hardware("x", "x", "x", "x", networks, {"small": 1.0, "large": 20.0})
    assert machine.overhead_s == 0.0
    # Of one unknown in relative errors: x = sum(a) / sum(a²) with a = macs / seconds.
    a = np.array([1e8 / 1e-3, 1e9 / 20e-3])
    assert machine.macs_per_s == pytest.approx((a**2).sum() / a.sum())


def test_a_raspberry_pi_stands_clearly_below_a_desktop_core() -> None:
    """The demo paces this machine to the board, so the board must be the slower one (ResNet-56: 64 ms)."""
    board, desktop = hardware.named("raspberry-pi-3b-plus"), hardware.named("workstation-cpu")
    assert 0.050 < board.seconds(*RESNET_56) < 0.080
    assert 0.030 < board.seconds(*RESNET_32) < 0.045
    assert board.seconds(*RESNET_56) > 4 * desktop.seconds(*RESNET_56)


def test_an_unknown_machine_gets_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="unknown machine 'raspberry-pi-5'; did you mean 'raspberry-pi-4'"):
        hardware.named("raspberry-pi-5")


SPEC = ModelSpec(
    name="two",
    backbone={"name": "resnet"},
    input_shape=(3, 32, 32),
    num_classes=10,
    stages=(Stage(40_000_000, 10, (16, 32, 32)), Stage(80_000_000, 20, (64, 8, 8))),
    exits=(Exit(1, 1_000, 1, {"name": "pooled"}), Exit(2, 640, 1, {"name": "pooled"})),
)
PAIR = (1, "raw")
HOST = Calibration(
    machine={"name": "host"},
    stages=(Distribution((0.002, 0.004, 0.010)), Distribution((0.006, 0.008, 0.009))),
    exits=(Distribution.constant(0.0001), Distribution((0.0, 0.0, 0.0))),
    encode={PAIR: Distribution((0.001, 0.002, 0.003))},
    decode={PAIR: Distribution.constant(0.0005)},
    rpc=Rpc(120, 300, Distribution.constant(0.0006)),
    weights_sha256="abc",
    made={"command": "splitexit calibrate"},
)


def test_stages_take_the_fitted_time_with_the_spread_of_the_host() -> None:
    machine = hardware.named("raspberry-pi-3b-plus")
    scaled = machine.calibrate(SPEC, HOST)
    first = machine.overhead_s * 10 + 40e6 / machine.macs_per_s
    assert scaled.stages[0].median == pytest.approx(first)
    assert np.array(scaled.stages[0].quantiles) / first == pytest.approx(np.array(HOST.stages[0].quantiles) / 0.004)
    assert scaled.exits[0].median == pytest.approx(machine.seconds(1, 1_000))
    assert scaled.exits[1].median == pytest.approx(machine.seconds(1, 640)), "a host too fast to measure"


def test_codecs_scale_like_the_stages_together_and_a_call_stays() -> None:
    machine = hardware.named("raspberry-pi-4")
    scaled = machine.calibrate(SPEC, HOST)
    factor = machine.seconds(30, 120_000_000) / 0.012
    assert scaled.encode[PAIR].quantiles == pytest.approx([factor * q for q in (0.001, 0.002, 0.003)])
    assert scaled.decode[PAIR].median == pytest.approx(factor * 0.0005)
    assert scaled.rpc == HOST.rpc


def test_figures_of_a_gpu_leave_the_codecs_alone() -> None:
    scaled = hardware.named("workstation-gpu").calibrate(SPEC, HOST)
    assert scaled.stages[0].median < 0.001
    assert (scaled.encode, scaled.decode) == (HOST.encode, HOST.decode)


def test_the_result_says_where_it_comes_from() -> None:
    machine = hardware.named("jetson-xavier-nx").calibrate(SPEC, HOST).machine
    assert machine["name"] == "jetson-xavier-nx"
    assert machine["source"].startswith("https://github.com/")
    assert machine["spread_of"] == {"name": "host"}


def test_a_calibration_of_another_model_is_refused() -> None:
    other = Calibration(HOST.machine, HOST.stages[:1], HOST.exits, HOST.encode, HOST.decode, HOST.rpc)
    with pytest.raises(ArtifactError, match="measured 1 stages"):
        hardware.named("raspberry-pi-4").calibrate(SPEC, other)


# Power: what was published, and whose share of it one core is.

POWERED = {"raspberry-pi-3b-plus", "raspberry-pi-4", "pixel-2-xl", "jetson-xavier-nx"}


def test_devices_have_a_published_power_and_say_where() -> None:
    powers = {name: hardware.named(name).power for name in hardware.names()}
    assert {name for name, power in powers.items() if power is not None} == POWERED
    assert all("https://" in power.source for power in powers.values() if power is not None)


@pytest.mark.parametrize(
    ("name", "compute_w", "idle_w"),
    [
        ("raspberry-pi-3b-plus", 2.484 + (5.274 - 2.484) / 4, 2.484),
        ("raspberry-pi-4", 1.6 + (5.0 - 1.6) / 4, 1.6),
        ("pixel-2-xl", 0.9465, 0.0378),
        ("jetson-xavier-nx", 10.6, 3.92),
    ],
)
def test_power_is_that_of_the_threads_that_were_timed(name: str, compute_w: float, idle_w: float) -> None:
    """One core of four on the boards; the phone's figures are of one core, the Jetson's of its GPU."""
    power = hardware.named(name).power
    assert power is not None
    assert (power.compute_w, power.idle_w) == pytest.approx((compute_w, idle_w), abs=1e-4)


def test_one_core_is_charged_its_share_of_what_all_add() -> None:
    power = hardware.Power.of_one_core(2.0, 6.0, 4, "test")
    assert (power.compute_w, power.idle_w) == (3.0, 2.0)
    assert hardware.Power.of_one_core(2.0, 6.0, 1, "test").compute_w == 6.0


def test_the_energy_of_a_network_has_a_plausible_size() -> None:
    """ResNet-56 on one core, above idle: 0.1 to 0.5 nJ per multiply-accumulate, about 100 times the arithmetic alone.

    Horowitz, "Computing's energy problem", ISSCC 2014: 4.6 pJ for one in fp32 at 45 nm.
    """
    layers, macs = RESNET_56
    for name in POWERED - {"jetson-xavier-nx"}:
        machine = hardware.named(name)
        assert machine.power is not None
        joules = machine.seconds(layers, macs) * (machine.power.compute_w - machine.power.idle_w)
        assert 0.1e-9 < joules / macs < 0.5e-9


def test_a_machine_keeps_the_hosts_dependence_and_stands_alone() -> None:
    """Its parts slow down together as the host's do; processes of this host are none of its."""
    model = synthetic.spec()
    host = replace(synthetic.calibration(model), dependence=Dependence(0.4, 0.2), corun={0: 1.0, 1: 1.5})
    derived = hardware.named("raspberry-pi-4").calibrate(model, host)
    assert derived.dependence == host.dependence
    assert derived.corun_factor(3) == 1.0
