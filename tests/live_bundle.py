"""A real bundle for tests of the live world: a small untrained network, 60 images, what it says of them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from splitexit.bundle import Bundle
from splitexit.calibration import Calibration, Distribution, Pair, Rpc
from splitexit.experiment import Experiment
from splitexit.live.images import Images, open_images
from splitexit.live.model import Array, LiveModel, use_one_thread
from splitexit.models.codecs import open_codecs
from splitexit.models.exits import LinearHead
from splitexit.models.multi_exit import MultiExitNet, NetConfig, build, save
from splitexit.models.runtime import Runtime
from splitexit.recording import PARTS, ExitReadings, PairReadings, Part, Recording
from splitexit.scenario import load
from tests.synthetic import write_scenario

SAMPLES = 60
CONFIG = NetConfig(
    backbone={"name": "resnet", "depth": 14},
    input_shape=(3, 16, 16),
    num_classes=10,
    shares=(0.3, 0.6),
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
    name="tiny",
)
PAIRS: tuple[Pair, ...] = (
    *((0, codec) for codec in ("image", "jpeg", "png", "raw", "uint8")),
    *((split, codec) for split in (1, 2) for codec in ("raw", "fp16", "uint8")),
)
POLICIES = {
    "local": {"name": "local"},
    "offload": {"name": "offload", "split": 0, "codec": "jpeg"},
    "split": {"name": "offload", "split": 1, "codec": "uint8"},
    "threshold": {"name": "threshold", "threshold": 0.5, "split": 1, "codec": "uint8", "edge_exits": True},
    "stay": {"name": "threshold", "threshold": 0.5},
    "entropy": {"name": "threshold", "rule": "entropy", "threshold": 1.4, "split": 2, "codec": "fp16"},
    "neurosurgeon": {"name": "neurosurgeon"},
    "random": {"name": "random"},
    "oracle": {"name": "oracle"},
}


def make_bundle(folder: Path, seed: int = 0, config: NetConfig = CONFIG, logits: bool = False) -> Bundle:
    """Everything a bundle holds, except a model card; the recording keeps `logits` or not."""
    use_one_thread()  # several would wait for each other on a busy machine
    net, images = build(config, seed).eval(), _images()
    _spread(net, images)
    bundle = save(net, folder, {})
    _write_samples(bundle.samples, images)
    model = LiveModel.open(bundle, PAIRS)
    _record(model, open_images(bundle), logits).save(bundle.recording)
    _calibration(model).save(bundle.calibration)
    return bundle


def _images() -> Array:
    """Blocks of colour with noise: they compress, and differ."""
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (SAMPLES, 4, 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    return np.clip(blocks + rng.normal(0, 8, blocks.shape), 0, 255).astype(np.uint8)


@torch.inference_mode()
def _spread(net: MultiExitNet, images: Array) -> None:
    """Shifts and scales every head so that the images get different answers, some of them sure."""
    logits = net(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
    for head, of_head, exit_ in zip(net.heads, logits, net.spec.exits, strict=True):
        if exit_.additive:  # it has the weights of the one before
            continue
        assert isinstance(head, LinearHead)
        scale = 1.5 / of_head.std(dim=0)
        head.linear.weight.mul_(scale[:, None])
        head.linear.bias.sub_(of_head.mean(dim=0)).mul_(scale)


def _write_samples(path: Path, images: Array) -> None:
    encoded = []
    for number, image in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        encoded.append({"bytes": file.getvalue(), "path": f"{number}.png"})
    # Every second image of a test set of twice the size.
    columns = {"image": encoded, "label": np.arange(SAMPLES) % 10, "sample": np.arange(SAMPLES) * 2}
    pq.write_table(pa.table(columns), path)


def _record(model: LiveModel, images: Images, logits: bool) -> Recording:
    samples, runtime = list(images), model.net
    assert isinstance(runtime, Runtime)
    labels = np.array([images.label(sample) for sample in samples], dtype=np.uint16)
    every = tuple(range(len(model.spec.exits)))
    said = [runtime.exits_from(images[sample], 0, every) for sample in samples]

    def readings(rows: list[dict[int, Array]]) -> dict[int, ExitReadings]:
        stacked = {e: np.stack([row[e] for row in rows]) for e in rows[0]}
        return {e: ExitReadings.of_outputs(rows, model.spec.num_classes, logits) for e, rows in stacked.items()}

    def pair(split: int, codec_id: str) -> PairReadings:
        codec, behind = model.codecs[split, codec_id], model.spec.exits_after(split)
        payloads = [codec.encode(runtime.run_stages(images[sample], 0, split)) for sample in samples]
        decoded = [
            runtime.exits_from(codec.decode(payload), split, behind, row.get(behind[0] - 1))
            for payload, row in zip(payloads, said, strict=True)
        ]
        return PairReadings(np.array([len(payload) for payload in payloads], dtype=np.uint32), readings(decoded))

    pairs = {of: pair(*of) for of in PAIRS}
    part = Part("test", np.array(samples, dtype=np.uint32), labels, tuple(readings(said).values()), pairs)
    parts = {name: replace(part, name=name) for name in PARTS}
    return Recording(parts, model.spec.num_classes, {"digests": dict(model.digests), "command": "test"})


def _calibration(model: LiveModel) -> Calibration:
    """20 ms a stage, so that pacing and queues show."""
    spread = Distribution(tuple(np.linspace(0.018, 0.022, 5)))
    codec = {pair: Distribution.constant(0.002) for pair in PAIRS}
    return Calibration(
        machine={"name": "test"},
        stages=tuple(spread for _ in model.spec.stages),
        exits=tuple(Distribution.constant(0.001) for _ in model.spec.exits),
        encode=codec,
        decode=codec,
        rpc=Rpc(150, 200, Distribution.constant(0.001)),
        weights_sha256=model.spec.weights_sha256,
        batch={1: 1.0, 4: 2.0},
    )


def open_experiment(bundle: Bundle, folder: Path, **changes: object) -> Experiment:
    """tests.synthetic's scenario, changed, on this bundle and its sample images."""
    defaults: dict[str, object] = {"bundle": str(bundle.path), "policies": POLICIES, "devices__arrivals__rate_hz": 8.0}
    scenario = load(write_scenario(folder, **(defaults | changes)))
    return Experiment.open(scenario, subset=tuple(open_images(bundle)))


def open_model(bundle: Bundle) -> LiveModel:
    """The bundle's network with all codecs."""
    return LiveModel(bundle.spec, Runtime(bundle), open_codecs(bundle, PAIRS), bundle.digests())
