r"""What codec `delta` sends of images that follow one another, beside `range`, whose answers are the same.

    python benchmarks/delta_bytes.py scenarios/data/resnet32-cifar10 \
        --train cifar10_train.parquet --data cifar10_test.parquet

The motion is synthetic, the images are real: no video is at hand. A window of the network's input size moves over a
test image by so many pixels a frame (and half as many down), or comes closer by so many per cent; where the image is
not larger than the window, it is continued by its mirror image. Pixels between pixels are interpolated linearly, and
every frame gets noise of its own, so that nothing stands still to the last bit. Real cameras see objects that move,
exposure that changes, and cuts: there it will be more bytes.

Codecs are fitted on the bundle's calibration split. Every difference is read again and compared with what `range`
decodes: a mismatch ends the program. `delta 2` refers to the frame before the last one, as where an answer is late.

    python benchmarks/delta_bytes.py BUNDLE --data images.parquet --write frames.parquet [--pan 0.25]

writes the frames themselves, image after image, as a test set: for `splitexit record BUNDLE --fresh --data
frames.parquet --pair delta:bits=3@5` and for live runs of scenarios with `devices: {order: in-order}`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from splitexit import codecs
from splitexit.bundle import Bundle
from splitexit.codecs import Array
from splitexit.codecs.delta import Delta
from splitexit.codecs.range import Range
from splitexit.models import data, multi_exit
from splitexit.models.fit_codec import Features
from splitexit.models.runtime import Runtime, one_thread

JPEG = "jpeg:headers=false"
FITTED_TO = 500


@dataclass(frozen=True)
class Motion:
    """Pixels to the side and per cent closer, from one frame to the next."""

    pan: float = 0.0
    zoom: float = 0.0

    def __str__(self) -> str:
        return f"zoom {self.zoom:g} %" if self.zoom else f"pan {self.pan:g} px"


MOTIONS = (Motion(), Motion(0.1), Motion(0.25), Motion(0.5), Motion(1.0), Motion(2.0), Motion(zoom=1.0))


@dataclass(frozen=True)
class Bytes:
    """Mean bytes of a frame; `delta` and `delta_2` as a difference to the last frame and the one before it."""

    split: int
    codec: str
    motion: str
    frames: int
    jpeg: float
    range: float
    delta: float
    delta_2: float

    @property
    def times_fewer(self) -> float:
        """Than `range` sends."""
        return self.range / self.delta


def frames(image: Array, side: tuple[int, int], motion: Motion, count: int, noise: float, seed: int) -> Iterator[Array]:
    """uint8 (height, width, channels), one after the other.

    Args:
        image: uint8 (H, W, channels), continued by its mirror image.
        side: height and width of a frame.
        noise: standard deviation, in levels of a pixel.
    """
    rng, (height, width) = np.random.default_rng(seed), side
    reach = [(s, s + int(motion.pan * count) + 1) for s in (height // 4, width // 4)]
    large = Image.fromarray(np.pad(image, (*reach, (0, 0)), mode="symmetric").squeeze())
    for number in range(count):
        scale = (1 - motion.zoom / 100) ** number
        left = width // 4 + motion.pan * number + (1 - scale) * width / 2
        top = height // 4 + motion.pan * number / 2 + (1 - scale) * height / 2
        corner = (scale, 0, left, 0, scale, top)
        seen = large.transform((width, height), Image.Transform.AFFINE, corner, Image.Resampling.BILINEAR)
        pixels = np.asarray(seen, np.float64).reshape(height, width, -1)
        yield np.clip(np.rint(pixels + rng.normal(0, noise, pixels.shape)), 0, 255).astype(np.uint8)


def measure(runtime: Runtime, codec: Delta, base: Range, films: list[list[Array]], split: int) -> list[tuple[int, ...]]:
    """Bytes of every frame with two before it: JPEG, range, delta to the last, delta to the one before it."""
    channels, height, width = runtime.spec.input_shape
    jpeg, rows = codecs.create(JPEG, shape=(channels, height, width)), []
    for film in films:
        inputs = [np.ascontiguousarray(frame.transpose(2, 0, 1)).astype(np.float32) / np.float32(255) for frame in film]
        features = [runtime.run_stages(pixels, 0, split) for pixels in inputs]
        levels = [codec.levels(tensor) for tensor in features]
        for number in range(2, len(film)):
            whole = base.encode(features[number])
            sent = [codec.write(levels[number], levels[number - lag]) for lag in (1, 2)]
            for payload in sent:
                known = {codec.digest(level): level for level in levels[number - 2 : number]}
                restored = codec.restore(codec.read(payload, known.get))
                if not np.array_equal(restored, base.decode(whole)):
                    raise SystemExit(f"split {split}, {codec.codec_id}: a difference decodes to something else")
            rows.append((len(jpeg.encode(inputs[number])), len(whole), *map(len, sent)))
    return rows


def fitted(bundle: Bundle, train: str, split: int, bits: int) -> tuple[Delta, Range]:
    """Both codecs with the same tensors, of the first images of the calibration split."""
    _, validation, _ = data.parted(bundle.spec, train)
    seen = validation.take(np.arange(min(FITTED_TO, len(validation))))
    at = Features(multi_exit.load(bundle).requires_grad_(False), seen, split)
    tensors, shape = Range.fit(at.features, at.gradients, bits=bits), at.features.shape[1:]
    return Delta(shape=shape, tensors=tensors, bits=bits), Range(shape=shape, tensors=tensors, bits=bits)


def films(options: argparse.Namespace, bundle: Bundle, images: Array, motion: Motion) -> list[list[Array]]:
    """The frames of every image."""
    _, height, width = bundle.spec.input_shape
    return [
        list(frames(image, (height, width), motion, options.frames, options.noise, options.seed + number))
        for number, image in enumerate(images)
    ]


def compared(options: argparse.Namespace, bundle: Bundle) -> list[Bytes]:
    """Every codec at every split under every motion."""
    runtime, found, console = Runtime(bundle), list[Bytes](), Console(stderr=True)
    images = data.read(options.data, "test", channels=bundle.spec.input_shape[0], limit=options.images).images
    with one_thread():
        for split, bits in track([(s, b) for s in options.split for b in options.bits], "codecs", console=console):
            codec, base = fitted(bundle, options.train, split, bits)
            for motion in MOTIONS:
                rows = measure(runtime, codec, base, films(options, bundle, images, motion), split)
                means = (round(float(mean), 1) for mean in np.mean(rows, axis=0))
                found.append(Bytes(split, codec.codec_id, str(motion), len(rows), *means))
    return found


def write(options: argparse.Namespace, bundle: Bundle) -> None:
    """The frames as a test set, with the labels of the images that they come from."""
    source = data.read(options.data, "test", channels=bundle.spec.input_shape[0], limit=options.images)
    columns: dict[str, list[Any]] = {"image": [], "label": []}
    for film, label in zip(films(options, bundle, source.images, Motion(options.pan)), source.labels, strict=True):
        for frame in film:
            file = BytesIO()
            Image.fromarray(frame.squeeze()).save(file, "PNG")
            columns["image"].append({"bytes": file.getvalue(), "path": None})
            columns["label"].append(int(label))
    names = {"class_names": json.dumps(source.class_names)}
    pq.write_table(pa.table(columns).replace_schema_metadata(names), options.write)


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--train", help="the bundle's training images")
    parser.add_argument("--data", required=True, help="images to move over, of the bundle's size or larger")
    parser.add_argument("--split", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--bits", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--frames", type=int, default=10, help="of each image")
    parser.add_argument("--noise", type=float, default=1.0, help="levels of 255 (default 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one document")
    parser.add_argument("--write", type=Path, metavar="FILE", help="only write frames, as a Parquet file of images")
    parser.add_argument("--pan", type=float, default=0.25, help="of what is written, in pixels a frame (default 0.25)")
    options = parser.parse_args(arguments)
    if options.train is None and options.write is None:
        parser.error("--train is missing: codecs are fitted on the bundle's calibration split")
    bundle = Bundle.open(options.bundle)
    if options.write is not None:
        write(options, bundle)
        return 0
    found = compared(options, bundle)
    if options.json:
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
        print(json.dumps({"settings": settings, "rows": [asdict(row) for row in found]}, indent=1))
    else:
        Console(width=120).print(table(found))
    return 0


def table(found: list[Bytes]) -> Table:
    """For reading."""
    shown = Table("split", "codec", "motion", "jpeg q75", "range", "delta", "delta 2", "range / delta")
    for row in found:
        means = (row.jpeg, row.range, row.delta, row.delta_2)
        ratio = f"{row.times_fewer:.2f}"
        shown.add_row(str(row.split), row.codec, row.motion, *(f"{mean:,.0f}" for mean in means), ratio)
    return shown


if __name__ == "__main__":
    sys.exit(main())
