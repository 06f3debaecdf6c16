"""The range coder's bytes on real features, beside the empirical entropy of the levels that it codes.

    python benchmarks/range_entropy.py BUNDLE --data TEST --train TRAIN --split 3
    python benchmarks/range_entropy.py BUNDLE --data TEST --train TRAIN --split 3 --per channel --json

Tables are fitted on the validation split of the training images, and every test image is coded alone, as live. The
entropy is of order 0, of the levels of all test images together, for each table (one, or one of every channel): what no
coder with tables of this kind can go below on these images, had it known them. Bytes are without the header.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from splitexit import codecs
from splitexit.bench.codec_plan import read_images
from splitexit.bench.codecs import Split
from splitexit.bundle import Bundle
from splitexit.codecs import Array
from splitexit.codecs.range import Range
from splitexit.models import multi_exit

BITS = (1, 2, 3, 4, 6, 8)


@dataclass(frozen=True)
class Coded:
    """Mean bytes of a sample, and how far they are above the entropy, in percent of it."""

    codec: str
    split: int
    images: int
    entropy_bytes: float
    coded_bytes: float
    above_percent: float


def measure(at: Split, bits: int, per: str) -> Coded:
    """One codec on all test images."""
    codec_id = codecs.canonical(f"range:bits={bits},per={per}")
    tensors = Range.fit(*at.to_fit, bits=bits, per=per)
    codec = codecs.create(codec_id, shape=at.shape, tensors=tensors)
    assert isinstance(codec, Range)
    counts = np.zeros((len(tensors["table"]), 2**bits), np.int64)
    coded = []
    for features in at.chunks():
        for sample in features:
            coded.append(len(codec._pack(sample)))
            counts += [np.bincount(row, minlength=2**bits) for row in codec._quantise(sample)]
    entropy = entropy_bytes(counts) / len(coded)
    mean = float(np.mean(coded))
    return Coded(codec_id, at.split, len(coded), entropy, mean, 100.0 * (mean / entropy - 1.0))


def entropy_bytes(counts: Array) -> float:
    """Of all levels that were counted, (tables, levels)."""
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / totals
    bits = -np.where(counts > 0, shares * np.log2(np.where(counts > 0, shares, 1.0)), 0.0).sum(axis=1)
    return float((bits * totals[:, 0]).sum()) / 8


def table(found: list[Coded]) -> Table:
    """For reading."""
    shown = Table("split", "codec", "images", "entropy bytes", "coded bytes", "above")
    for one in found:
        figures = (f"{one.entropy_bytes:.1f}", f"{one.coded_bytes:.1f}", f"{one.above_percent:+.2f} %")
        shown.add_row(str(one.split), one.codec, str(one.images), *figures)
    return shown


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--data", help="test images")
    parser.add_argument("--train", help="training images")
    parser.add_argument("--split", type=int, nargs="+", required=True)
    parser.add_argument("--per", choices=["tensor", "channel"], default="tensor")
    parser.add_argument("--limit", type=int, help="only the first so many test images")
    parser.add_argument("--json", action="store_true", help="print one document")
    options = parser.parse_args(arguments)
    bundle = Bundle.open(options.bundle)
    images = read_images(bundle, options.data, options.train, options.limit)
    net = multi_exit.load(bundle).requires_grad_(False)
    found = []
    for split in options.split:
        at = Split(net, images, split)
        found += [
            measure(at, bits, options.per) for bits in track(BITS, f"split {split}", console=Console(stderr=True))
        ]
    if options.json:
        print(json.dumps([asdict(one) for one in found], indent=1))
    else:
        Console(width=120).print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
