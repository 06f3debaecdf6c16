"""Comparing codecs by bytes and accuracy: the Pareto front, and what an image codec needs for the same accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

Document = dict[str, Any]

HALF = 0.5
"""Of the MACs: what may stay on the device if a split is to count as offloading."""

LOSE = 2.0
"""Points of accuracy that a codec may lose against the uncompressed network to be called useful."""


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which (bytes, accuracy) no other has both fewer or equal bytes and at least the accuracy of; equal ones stay."""
    return [
        not any(b <= bytes_ and a >= accuracy and (b, a) != (bytes_, accuracy) for b, a in points)
        for bytes_, accuracy in points
    ]


def on_front(rows: Iterable[Document]) -> list[Document]:
    """The rows on the front, fewest bytes first; of equal ones the first."""
    rows = list(rows)
    marks = front([(row["bytes"], row["accuracy"]) for row in rows])
    best = {(row["bytes"], row["accuracy"]): row for row, mark in reversed(list(zip(rows, marks, strict=True))) if mark}
    return [row for _, row in sorted(best.items(), key=lambda item: item[0])]


@dataclass(frozen=True)
class Baseline:
    """Image codecs at split 0 on the test images.

    rows  theirs
    """

    rows: Sequence[Document]

    def needs(self, accuracy: float) -> tuple[float, str]:
        """(bytes, how) that the best image codec needs for an accuracy in percent.

        `interpolated`: linear in the logarithm of the bytes between the two measured points of the front around it,
        which is inferred, not measured. Outside what was measured, the end of the front: `at most` where the smallest
        image is already more accurate, `at least` where no image is as accurate.
        """
        points = on_front(self.rows)
        bytes_, reached = (np.array([row[key] for row in points]) for key in ("bytes", "accuracy"))
        if accuracy < reached[0]:
            return float(bytes_[0]), "at most"
        if accuracy > reached[-1]:
            return float(bytes_[-1]), "at least"
        return float(np.exp(np.interp(accuracy, reached, np.log(bytes_)))), "interpolated"

    def jpeg(self, accuracy: float) -> tuple[Document, bool]:
        """The smallest measured JPEG that is at least as accurate, and True; or the most accurate one, and False."""
        all_ = [row for row in self.rows if row["family"] == "jpeg" and "headers=false" in row["codec"]]
        enough = [row for row in all_ if row["accuracy"] >= accuracy]
        if enough:
            return min(enough, key=lambda row: float(row["bytes"])), True
        return max(all_, key=lambda row: float(row["accuracy"])), False


def compared(rows: Sequence[Document]) -> list[Document]:
    """The rows with what only all of them together say.

    front, split_front    on the Pareto front of all rows, of the rows of its split
    jpeg, jpeg_bytes      the JPEG that it is held against, headers stripped, and its mean bytes
    jpeg_reaches          whether that JPEG is at least as accurate
    jpeg_ratio            how many times fewer bytes than that JPEG
    image_bytes, image_how, image_ratio    see `Baseline.needs`; how many times fewer bytes than the best image codec
    """
    baseline = Baseline([row for row in rows if row["input"]])
    marks = front([(row["bytes"], row["accuracy"]) for row in rows])
    within = {id(row) for of_split in by_split(rows).values() for row in on_front(of_split)}
    found = []
    for row, mark in zip(rows, marks, strict=True):
        jpeg, reaches = baseline.jpeg(row["accuracy"])
        image_bytes, how = baseline.needs(row["accuracy"])
        more = {
            "front": mark,
            "split_front": id(row) in within,
            "jpeg": jpeg["codec"],
            "jpeg_bytes": jpeg["bytes"],
            "jpeg_reaches": reaches,
            "jpeg_ratio": jpeg["bytes"] / row["bytes"],
            "image_bytes": image_bytes,
            "image_how": how,
            "image_ratio": image_bytes / row["bytes"],
        }
        found.append(row | more)
    return found


def by_split(rows: Iterable[Document]) -> dict[int, list[Document]]:
    """The rows of every split."""
    ordered = sorted(rows, key=lambda row: int(row["split"]))
    return {split: list(of_split) for split, of_split in groupby(ordered, key=lambda row: int(row["split"]))}


def verdict(rows: Sequence[Document]) -> Document | None:
    """Whether features beat images: of the codecs that leave at most HALF of the MACs on the device, their encoders
    counted, and lose at most LOSE points, the row that saves most bytes against the best image codec, and the one of
    fewest bytes.

    None where there is none. `rows` as `compared` returns them.
    """
    useful = [
        row for row in rows if row["split"] and row["device_share"] <= HALF and row["difference"]["points"] >= -LOSE
    ]
    if not useful:
        return None
    return {
        "device_share_at_most": HALF,
        "points_lost_at_most": LOSE,
        "against_images": max(useful, key=lambda row: float(row["image_ratio"])),
        "fewest_bytes": min(useful, key=lambda row: float(row["bytes"])),
    }
