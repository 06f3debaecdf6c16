"""Image sets in memory: uint8 pixels and labels, read from Parquet, folders or Hugging Face `datasets`."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from splitexit.bundle import ModelSpec
from splitexit.errors import DataError, UsageError
from splitexit.models.sources import RawSet, read_raw

Array = np.ndarray[Any, Any]
GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "F"})


@dataclass(frozen=True)
class ImageSet:
    """n labelled images of one size.

    images: uint8 (n, H, W, C) with C = 1 or 3; labels: int64 (n,); class_names: in label order.
    """

    images: Array
    labels: Array
    class_names: tuple[str, ...]
    origin: str

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """C×H×W of one image."""
        height, width, channels = self.images.shape[1:]
        return channels, height, width

    @cached_property
    def sha256(self) -> str:
        """Digest of shape, labels and pixels, so that any source of the same images gives the same digest."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").data)
        digest.update(np.ascontiguousarray(self.images).data)
        return digest.hexdigest()

    def take(self, index: Array) -> ImageSet:
        """The images at these positions, in this order."""
        return ImageSet(self.images[index], self.labels[index], self.class_names, self.origin)

    def pixels(self, index: int) -> Array:
        """One image as the network takes it: float32 C×H×W in [0, 1]."""
        return to_pixels(self.images[index])

    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of every channel's pixels in [0, 1]."""
        sums = [np.bincount(self.images[..., c].reshape(-1), minlength=256) for c in range(self.shape[0])]
        values = np.arange(256) / 255
        means = [float(np.average(values, weights=s)) for s in sums]
        stds = [
            max(1e-3, float(np.sqrt(np.average((values - m) ** 2, weights=s))))
            for m, s in zip(means, sums, strict=True)
        ]
        return tuple(means), tuple(stds)


def to_pixels(image: Array) -> Array:
    """uint8 H×W×C -> float32 C×H×W in [0, 1]: pixel / 255 in single precision."""
    return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)


def read(
    source: str,
    split: str = "train",
    *,
    channels: int | None = None,
    resize: int | None = None,
    limit: int | None = None,
) -> ImageSet:
    """The image set at `source`, decoded.

    Args:
        source: a Parquet file, a glob of them, a folder (Parquet files or images by class), or the name of a
            Hugging Face data set.
        split: which part, where the source holds several: train or test.
        channels: 1 or 3; by default 1 if every image is grey, else 3.
        resize: height and width to scale to; without it all images must have one size.
        limit: the first so many images only.

    Raises DataError with the file and row of the first image that cannot be used.
    """
    raw = read_raw(source, split)
    if limit is not None:
        raw = RawSet(raw.images[:limit], raw.labels[:limit], raw.class_names, raw.origins[:limit])
    if not len(raw.labels):
        raise DataError(f"{source}: no images in it")
    if channels is None:
        channels = 1 if _all_grey(raw) else 3
    images = _stack(list(_decoded(raw, "L" if channels == 1 else "RGB", resize)), raw)
    return ImageSet(images, raw.labels, _names(raw, source), source)


def read_test(
    source: str,
    shape: tuple[int, ...],
    classes: Sequence[str],
    *,
    resize: int | None = None,
    limit: int | None = None,
) -> ImageSet:
    """Images to test a network with, labelled by the numbers that its classes have.

    The source may have other classes than the training images, or have them in another order, as a folder without
    an image of some class does: they are matched by name, and where one side has only numbers, by number.

    Args:
        source, resize, limit: as for `read`.
        shape: C×H×W that the network takes.
        classes: its class names, in label order.

    Raises as `read`, and UsageError for images of another shape or of a class that the network does not know.
    """
    images = read(source, "test", channels=shape[0], resize=resize, limit=limit)
    if images.shape != tuple(shape):
        raise UsageError(f"{source}: images of {images.shape}, the network takes {tuple(shape)}")
    return replace(images, labels=_matched(images, tuple(classes)), class_names=tuple(classes))


def read_for(spec: ModelSpec, source: str, limit: int | None = None) -> ImageSet:
    """`read_test` for a bundle, scaled as its training images were."""
    classes = spec.class_names or _numbered(spec.num_classes)
    resize = spec.training.get("recipe", {}).get("resize")
    return read_test(source, spec.input_shape, classes, resize=resize, limit=limit)


def _matched(images: ImageSet, classes: tuple[str, ...]) -> Array:
    """The labels that the images have by these classes."""
    numbers, own = {name: number for number, name in enumerate(classes)}, images.class_names
    present = np.unique(images.labels)
    strange = [own[label] for label in present if own[label] not in numbers]
    if not strange:
        return np.array([numbers.get(name, -1) for name in own])[images.labels]
    if own == _numbered(len(own)):
        strange = [own[label] for label in present if label >= len(classes)]
        if not strange:
            return images.labels
    if classes == _numbered(len(classes)) and len(own) == len(classes):
        return images.labels
    some = ", ".join(classes[:10]) + (", …" if len(classes) > 10 else "")
    raise UsageError(f"{images.origin}: class {strange[0]!r} is none of those that the network knows: {some}")


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _all_grey(raw: RawSet) -> bool:
    return all(_open(data, where).mode in GREY_MODES for data, where in zip(raw.images, raw.origins, strict=True))


def _decoded(raw: RawSet, mode: str, resize: int | None) -> Iterator[Array]:
    for data, where in zip(raw.images, raw.origins, strict=True):
        try:
            image = _open(data, where).convert(mode)
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{where}: the image cannot be decoded: {error}") from error
        if resize is not None and image.size != (resize, resize):
            image = image.resize((resize, resize), Image.Resampling.LANCZOS)
        yield np.asarray(image).reshape(image.height, image.width, -1)


def _open(data: bytes, where: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data))
    except (OSError, ValueError, TypeError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: not an image that Pillow can read ({len(data or b'')} bytes)") from error


def _stack(images: list[Array], raw: RawSet) -> Array:
    """All images as one array; raises DataError naming the first of another size."""
    for image, where in zip(images, raw.origins, strict=True):
        if image.shape != images[0].shape:
            (h, w), (height, width) = image.shape[:2], images[0].shape[:2]
            raise DataError(
                f"{where}: {w}×{h} pixels where the first image has {width}×{height}; "
                f"scale all with `--resize {min(height, width)}`"
            )
    return np.stack(images)


def _names(raw: RawSet, source: str) -> tuple[str, ...]:
    """Class names, numbered ones where the source has none; raises DataError for labels out of their range."""
    low, high = int(raw.labels.min()), int(raw.labels.max())
    names = raw.class_names or _numbered(high + 1)
    if low < 0 or high >= len(names):
        row = int(np.argmax((raw.labels < 0) | (raw.labels >= len(names))))
        raise DataError(
            f"{raw.origins[row]}: label {int(raw.labels[row])} in {source} is not one of 0..{len(names) - 1}"
        )
    return names


def split_off(labels: Array, share: float, seed: int = 0) -> tuple[Array, Array]:
    """Positions (kept, split off), both ascending: `share` of every class, drawn with `seed`.

    The part split off is the validation and calibration split. Its seed stays fixed, so that networks trained
    with other seeds are compared, and recorded, on the same images.
    """
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for positions in _by_class(labels):
        chosen[rng.permutation(positions)[: round(share * len(positions))]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def parted(spec: ModelSpec, source: str) -> tuple[ImageSet, ImageSet, Array]:
    """(training images, validation images, numbers of the latter) as the training of `spec` parted them.

    Raises UsageError where `source` does not hold the images that it was trained on.
    """
    recipe = spec.training.get("recipe", {})
    images = read(source, "train", channels=spec.input_shape[0], resize=recipe.get("resize"), limit=recipe.get("limit"))
    expected = spec.training.get("data", {}).get("train_sha256")
    if expected not in (None, images.sha256):
        raise UsageError(f"{source}: not the images that {spec.name} was trained on, by their digest; give those")
    kept, held = split_off(images.labels, recipe.get("validation", 0.1))
    return images.take(kept), images.take(held), held


def _by_class(labels: Array) -> Iterable[Array]:
    return (np.flatnonzero(labels == label) for label in np.unique(labels))
