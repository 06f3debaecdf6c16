"""What `splitexit bench codecs` compares where it is not told: splits, codecs, images."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from splitexit import codecs as zoo
from splitexit.bench.codecs import Images, device_macs
from splitexit.bench.rates import HALF
from splitexit.bundle import Bundle, ModelSpec
from splitexit.calibration import Pair
from splitexit.errors import UsageError
from splitexit.models import codecs, data
from splitexit.models.fit_codec import IMAGES

JPEG = (5, 10, 15, 20, 30, 40, 50, 60, 75, 85, 95)
WEBP = (0, 5, 10, 20, 30, 40, 50, 60, 75, 85, 95)
QUICK_QUALITIES = (5, 20, 50, 75, 95)

APART = 4
"""Without training images, one in so many test images is for fitting and not tested."""

FEWEST = 2
"""Test images: of one there is no interval."""

NEEDS = {"range": "constriction", "pack=lz4": "lz4"}
"""Packages that some codecs need; without them these are left out, where nobody asked for them."""


def image_codecs(quick: bool) -> list[str]:
    """The baseline at split 0: JPEG and WebP over qualities, headers stripped, and the exact image."""
    jpeg, webp = (QUICK_QUALITIES, QUICK_QUALITIES) if quick else (JPEG, WEBP)
    lossy = [("jpeg", quality) for quality in jpeg] + [("webp", quality) for quality in webp]
    ids = ["image", "png", *(f"{name}:headers=false,quality={quality}" for name, quality in lossy)]
    return [zoo.canonical(codec_id) for codec_id in ids]


def feature_codecs(shape: Sequence[int], quick: bool) -> list[str]:
    """Codecs of features of this shape that need no training, canonical."""
    channels, height, width = shape
    bits = (2, 4, 8) if quick else range(1, 9)
    coded = (2, 4) if quick else (1, 2, 3, 4, 6, 8)
    shares = (0.1,) if quick else (0.02, 0.05, 0.1, 0.2, 0.4)
    kept = [channels // part for part in ((4,) if quick else (2, 4, 8)) if channels >= part]
    ids = ["raw", "fp16", "uint8", *(f"affine:bits={b}" for b in bits), *(f"range:bits={b}" for b in coded)]
    ids += [f"topk:bits=4,share={share}" for share in shares] + [f"channels:bits=4,keep={keep}" for keep in kept]
    if not quick:
        ids.append("affine:pack=lz4")
        if height * width >= 2:
            ids += ["affine:bits=2,per=channel", "affine:bits=4,per=channel", "range:bits=3,per=channel"]
    missing = [sign for sign, package in NEEDS.items() if find_spec(package) is None]
    return [zoo.canonical(codec_id) for codec_id in ids if not any(sign in codec_id for sign in missing)]


def choose_splits(spec: ModelSpec, given: Sequence[int], quick: bool) -> list[int]:
    """The given splits, or all inner ones; for a quick run the last that leaves at most HALF on the device.

    Raises UsageError for a split that the network does not have.
    """
    last = spec.num_stages - 1
    for split in given:
        if not 0 <= split <= last:
            raise UsageError(f"--split {split}: {spec.name} has splits 0..{last}")
    if given or not quick or not last:
        return sorted(set(given or range(1, last + 1)))
    return [max((s for s in range(1, last + 1) if device_macs(spec, s) <= HALF * spec.macs), default=1)]


def choose_pairs(bundle: Bundle, splits: Sequence[int], given: Sequence[str], quick: bool) -> list[Pair]:
    """The baseline at split 0, and at every split the given codecs, or the usual ones and those of the bundle.

    Given image codecs join the baseline. Raises InputError for an unknown codec.
    """
    asked = [zoo.canonical(codec_id) for codec_id in given]
    of_images = [codec_id for codec_id in asked if zoo.load(codec_id).input_only]
    pairs = [(0, codec_id) for codec_id in (*image_codecs(quick), *of_images)]
    learned = sorted(codecs.read(bundle))
    for split in splits:
        of_split = [codec_id for codec_id in asked if codec_id not in of_images]
        if not given and split:
            of_split = feature_codecs(bundle.spec.shape_at(split), quick)
            of_split += [codec_id for at, codec_id in learned if at == split]
        pairs += [(split, codec_id) for codec_id in of_split]
    return list(dict.fromkeys(pairs))


def read_images(bundle: Bundle, test: str | None, train: str | None, limit: int | None) -> Images:
    """Test images and images to fit on; by default those that model.json names, where they are at hand.

    Without test images those of the bundle's samples; without training images a part of the test images is kept apart
    for fitting. Raises DataError, or UsageError where the images do not fit the network.
    """
    spec, notes = bundle.spec, []
    source, training = test or _at_hand(spec, "test"), train or _at_hand(spec, "train")
    if source is None:
        if not bundle.samples.exists():
            raise UsageError(f"{bundle.path}: it holds no test images (samples.parquet); give them with --data")
        source = str(bundle.samples)
        notes.append("only the few images of the bundle's samples.parquet; for figures that count, give --data")
    images = data.read_for(spec, source, limit if training is not None else None)  # else some are for fitting first
    if training is not None:
        fit = data.parted(spec, training)[1]
    else:
        cut = max(1, len(images) // APART)
        fit, images = images.take(np.arange(cut)), images.take(np.arange(cut, len(images)))
        notes.append(f"codecs are fitted on {cut} test images, which are not tested; better, give --train")
    fit = fit.take(np.arange(min(IMAGES, len(fit))))
    chosen = images if limit is None else images.take(np.arange(min(limit, len(images))))
    if len(chosen) < FEWEST:
        raise UsageError(f"{source}: {len(chosen)} images to test, at least {FEWEST} expected")
    return Images(chosen, fit, tuple(notes))


def _at_hand(spec: ModelSpec, kind: str) -> str | None:
    """The images that the network was made with, where model.json says and they are on this machine."""
    source = spec.training.get("data", {}).get(kind)
    return str(source) if source is not None and Path(source).exists() else None
