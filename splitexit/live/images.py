"""The images that a live device classifies: a bundle's samples, or a whole test set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow.parquet as pq

from splitexit.bundle import Bundle
from splitexit.errors import ArtifactError, DataError
from splitexit.live.model import Array
from splitexit.models.data import ImageSet, read
from splitexit.models.distort import Distortions
from splitexit.recording import Recording, read_made


class Images(Mapping[int, Array]):
    """Sample id -> float32 C×H×W in [0, 1].

    Args:
        images: decoded.
        samples: their ids, the numbers of the test images in the recording.
    """

    def __init__(self, images: ImageSet, samples: list[int]) -> None:
        self._images, self._rows = images, {sample: row for row, sample in enumerate(samples)}

    def __getitem__(self, sample: int) -> Array:
        return self._images.pixels(self._rows[sample])

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def label(self, sample: int) -> int:
        """Its class."""
        return int(self._images.labels[self._rows[sample]])


def open_images(bundle: Bundle, data: str | None = None) -> Images:
    """The test images `data` in the order they were recorded, by default the bundle's own samples.

    Where the recording holds copies under distortions, the device is shown those too, made as they were recorded.

    Raises ArtifactError where the bundle has none, DataError where they cannot be used.
    """
    if data is None and not bundle.samples.exists():
        raise ArtifactError(f"{bundle.samples}: the bundle brings no sample images; give the test set with --data")
    source = str(bundle.samples) if data is None else data
    resize = bundle.spec.training.get("recipe", {}).get("resize")
    images = read(source, "test", channels=bundle.spec.input_shape[0], resize=resize)
    if images.shape != bundle.spec.input_shape:
        raise DataError(f"{source}: images of {images.shape}, the model takes {bundle.spec.input_shape}")
    numbers = list(range(len(images))) if data is not None else _samples(bundle.samples)
    under = Distortions.of_made(read_made(bundle.recording)) if bundle.recording.exists() else None
    if under is None:
        return Images(images, numbers)
    repeated, every = under.repeat(images, numbers)
    return Images(repeated, every.tolist())


def _samples(path: Path) -> list[int]:
    try:
        ids: list[int] = pq.read_table(path, columns=["sample"])["sample"].to_pylist()
    except (KeyError, OSError, ValueError) as error:
        raise ArtifactError(f"{path}: no column `sample` (the test image's number): {error}") from error
    return ids


def check_labels(images: Images, recording: Recording, origin: str) -> None:
    """Raises DataError where the images are not those that were recorded, judged by their labels."""
    test = recording.test
    for sample, label in zip(test.sample.tolist(), test.label.tolist(), strict=True):
        if sample in images and images.label(sample) != label:
            raise DataError(
                f"{origin}: image {sample} has label {images.label(sample)}, the recording says {label}; "
                "give the test set that was recorded, in its order"
            )
