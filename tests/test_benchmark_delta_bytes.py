"""benchmarks/delta_bytes.py: what moves, moves as it says; and a small run on a real network."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from benchmarks import delta_bytes
from benchmarks.delta_bytes import Motion, frames
from splitexit.bundle import Bundle
from splitexit.codecs import Array
from splitexit.codecs.delta import Delta
from splitexit.codecs.range import Range
from splitexit.live.images import open_images
from splitexit.models.runtime import Runtime


def smooth() -> Array:
    """A picture without edges, so that moving it is a small change."""
    row, column, channel = np.indices((24, 24, 3))
    return np.asarray(128 + 60 * np.sin(row / 5 + channel) + 60 * np.cos(column / 4), np.uint8)


def test_a_pan_moves_by_so_many_pixels_a_frame() -> None:
    image = smooth()
    film = list(frames(image, (12, 12), Motion(pan=2.0), 4, 0.0, 0))
    for number, frame in enumerate(film):
        np.testing.assert_array_equal(frame, image[number : 12 + number, 2 * number : 12 + 2 * number])


def test_beyond_its_edge_an_image_is_mirrored() -> None:
    """The window is as large as the image."""
    image = smooth()
    film = list(frames(image, (24, 24), Motion(pan=2.0), 3, 0.0, 0))
    beyond = np.pad(image, ((0, 4), (0, 4), (0, 0)), mode="symmetric")
    np.testing.assert_array_equal(film[2], beyond[2:26, 4:28])


def test_a_zoom_comes_closer_and_noise_is_fresh() -> None:
    still, again = frames(smooth(), (12, 12), Motion(), 2, 3.0, 0)
    assert 1 < np.abs(still.astype(int) - again).mean() < 5
    film = list(frames(smooth(), (12, 12), Motion(zoom=5.0), 8, 0.0, 0))
    steps = [np.abs(frame.astype(int) - film[0]).mean() for frame in film]
    assert steps == sorted(steps)
    assert steps[-1] > 1


def test_bytes_of_films(live_bundle: Bundle) -> None:
    """Of a picture that hardly moves, a difference is a fraction; codecs that do not agree end the program."""
    runtime = Runtime(live_bundle)
    seen = np.stack([runtime.run_stages(image, 0, 2) for image in open_images(live_bundle).values()])
    tensors, shape = Range.fit(seen, partial(np.empty, 0), bits=3), seen.shape[1:]
    codec, base = Delta(shape=shape, tensors=tensors, bits=3), Range(shape=shape, tensors=tensors, bits=3)
    films = [list(frames(smooth()[:16, :16], (16, 16), Motion(pan=0.1), 5, 0.0, 0))]
    rows = np.array(delta_bytes.measure(runtime, codec, base, films, 2))
    assert rows.shape == (3, 4)
    jpeg, whole, last, before = rows.mean(axis=0)
    assert jpeg > 0
    assert last < 0.5 * whole
    assert last <= before
    other = Range(shape=shape, tensors={**tensors, "step": tensors["step"] * np.float32(2)}, bits=3)
    with pytest.raises(SystemExit, match="decodes to something else"):
        delta_bytes.measure(runtime, codec, other, films, 2)
