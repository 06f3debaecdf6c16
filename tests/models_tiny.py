"""A tiny trained bundle for the tests of `splitexit.models`, made once for each run of the tests.

Three kinds of grey image that a small network tells apart: horizontal, vertical and diagonal stripes.
"""

from __future__ import annotations

import atexit
import io
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from splitexit.bundle import Bundle
from splitexit.models.recipe import Recipe
from splitexit.models.train import train

TINY = Recipe(
    backbone={"name": "resnet", "depth": 8, "width": 4},
    shares=(0.4, 0.7),
    epochs=4,
    batch=16,
    lr=0.05,
    augment="none",
    precision="fp32",
)


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="splitexit-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def png(pixels: np.ndarray) -> bytes:
    """An encoded image."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@cache
def stripes(split: str = "train") -> str:
    """A Parquet file of 240 training or 60 test images of 12×12 pixels."""
    rng = np.random.default_rng(["train", "test"].index(split))
    n = 240 if split == "train" else 60
    y, x = np.mgrid[:12, :12]
    labels, phase = rng.integers(0, 3, n), rng.integers(0, 4, n)
    waves = np.stack([[y, x, x + y][k] + p for k, p in zip(labels, phase, strict=True)])
    pixels = (np.where(waves % 4 < 2, 180, 60) + rng.integers(-40, 40, waves.shape)).astype(np.uint8)
    rows = [{"bytes": png(p), "path": None} for p in pixels]
    path = _folder() / f"{split}.parquet"
    pq.write_table(pa.table({"image": rows, "label": labels}), path)
    return str(path)


@cache
def trained() -> Bundle:
    """A bundle of three stages with an exit behind each. Not to be written into: see `fresh_bundle`."""
    bundle = train(TINY, source=stripes(), test=stripes("test"), out=_folder() / "tiny", command="cmd")
    assert bundle is not None
    return bundle


def fresh_bundle(folder: Path) -> Bundle:
    """A copy of it that a test may write into."""
    return Bundle.open(shutil.copytree(trained().path, folder / "bundle"))
