"""Encoding and decoding on one core: MB of fp32 features per second, beside zstd level 3 on the fp32 bytes.

    python benchmarks/codec_speed.py                     # every codec for features at three shapes
    python benchmarks/codec_speed.py --only uint8 affine --rounds 101 --json

Features are what a ReLU leaves of white noise, seeded: nothing compresses worse. Every round times all contestants in
turn, zstd with a context that is used again, so that a machine that is slower for a while is slower for all of them.
Seconds are of this thread's CPU: what others compute on the same core does not count. MB/s is the size of the fp32
tensor over the seconds of encoding it and decoding the payload: the best of the rounds and their median; the ratio to
zstd is the median of the ratios within a round. Fitted codecs are fitted to such features; learned ones get the small
made-up weights of tests/golden/codecs.py, which take as long as trained ones.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import thread_time

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import zstandard
from rich.console import Console
from rich.progress import track
from rich.table import Table

from splitexit import codecs
from splitexit.codecs import Array, Codec, FittedCodec, Shape
from tests.golden.codecs import CASES, group

SHAPES: tuple[Shape, ...] = ((64, 8, 8), (32, 16, 16), (256, 14, 14))
SLOW = {"aecnn:channels=2,refine=true"}
"""Seconds for the largest shape; measured where it is asked for."""
FEATURES = tuple(codec_id for codec_id in CASES if codec_id not in SLOW and not codecs.load(codec_id).input_only)
ZSTD = "zstd level 3 of fp32"
FITTED_TO = 8


@dataclass(frozen=True)
class Speed:
    """One contestant at one shape.

    best, median   MB of fp32 features per second, through encoding and decoding
    encode_us, decode_us   medians
    to_zstd        how many times as fast, in the same round
    """

    codec: str
    shape: Shape
    payload_bytes: int
    encode_us: float
    decode_us: float
    best: float
    median: float
    to_zstd: float


@dataclass(frozen=True)
class Contestant:
    """What turns a tensor into bytes, and what turns these back."""

    name: str
    encode: Callable[[Array], bytes]
    decode: Callable[[bytes], object]


def features(shape: Shape, count: int, seed: int) -> Array:
    """float32 (count, C, H, W): half a normal distribution, half zeros."""
    noise = np.random.default_rng(seed).normal(0.0, 1.0, (count, *shape))
    return np.maximum(noise, 0.0).astype(np.float32)


def create(codec_id: str, shape: Shape, seed: int) -> Codec:
    """The codec for features of this shape, with tensors where it needs any."""
    kind, params = codecs.load(codec_id), codecs.parse(codec_id)[1]
    tensors = None
    if issubclass(kind, FittedCodec):
        samples = features(shape, FITTED_TO, seed + 1)
        tensors = kind.fit(samples, partial(np.ones_like, samples), **params)
    elif kind.learned:
        tensors = group(codec_id, shape[0])
    return codecs.create(codec_id, shape=shape, tensors=tensors)


def zstd() -> Contestant:
    """What every codec has to beat."""
    compressor, decompressor = zstandard.ZstdCompressor(level=3), zstandard.ZstdDecompressor()
    return Contestant(ZSTD, lambda tensor: compressor.compress(tensor.tobytes()), decompressor.decompress)


def measure(codec_ids: tuple[str, ...], shape: Shape, rounds: int, least_s: float, seed: int) -> list[Speed]:
    """All contestants at one shape, zstd first.

    Args:
        rounds: in which everybody is timed once.
        least_s: how long one timing goes on, at the least.
    """
    tensor = features(shape, 1, seed)[0]
    made = [(codec_id, create(codec_id, shape, seed)) for codec_id in codec_ids]
    contestants = [zstd(), *(Contestant(codec_id, codec.encode, codec.decode) for codec_id, codec in made)]
    payloads = [contestant.encode(tensor) for contestant in contestants]
    seconds = np.empty((rounds, len(contestants), 2))
    for in_round in seconds:
        for row, contestant, payload in zip(in_round, contestants, payloads, strict=True):
            row[0] = timed(partial(contestant.encode, tensor), least_s)
            row[1] = timed(partial(contestant.decode, payload), least_s)
    return [
        speed(contestant.name, shape, payload, seconds[:, number], seconds[:, 0])
        for number, (contestant, payload) in enumerate(zip(contestants, payloads, strict=True))
    ]


def timed(work: Callable[[], object], least_s: float) -> float:
    """CPU seconds of one, as the mean of several in a row, after one that warms up."""
    work()
    begun, calls = thread_time(), 0
    while True:
        work()
        calls += 1
        spent_s = thread_time() - begun
        if spent_s >= least_s:
            return spent_s / calls


def speed(name: str, shape: Shape, payload: bytes, seconds: Array, of_zstd: Array) -> Speed:
    """From seconds (rounds, 2) of encoding and decoding, its own and zstd's."""
    both, mb = seconds.sum(axis=1), 4e-6 * np.prod(shape)
    encode_us, decode_us = 1e6 * np.median(seconds, axis=0)
    to_zstd = np.median(of_zstd.sum(axis=1) / both)
    figures = (encode_us, decode_us, mb / both.min(), mb / np.median(both), to_zstd)
    return Speed(name, shape, len(payload), *map(float, figures))


def table(speeds: list[Speed]) -> Table:
    """For reading."""
    shown = Table("shape", "codec", "bytes", "encode us", "decode us", "best MB/s", "median MB/s", "to zstd-3")
    for one in speeds:
        figures = (one.encode_us, one.decode_us, one.best, one.median)
        cells = (f"{one.payload_bytes:,}", *(f"{figure:.0f}" for figure in figures), f"{one.to_zstd:.2f}")
        shown.add_row("x".join(map(str, one.shape)), one.codec, *cells)
    return shown


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="CODEC", default=FEATURES, help="codec ids (default: all)")
    parser.add_argument("--rounds", type=int, default=15, help="default 15")
    parser.add_argument("--least-ms", type=float, default=3.0, help="CPU time of one timing (default 3)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one document")
    options = parser.parse_args(arguments)
    chosen, console = tuple(options.only), Console(stderr=True)
    speeds = [
        one
        for shape in track(SHAPES, "shapes", console=console)
        for one in measure(chosen, shape, options.rounds, options.least_ms / 1e3, options.seed)
    ]
    if options.json:
        settings = {"rounds": options.rounds, "least_ms": options.least_ms, "seed": options.seed}
        print(json.dumps({**settings, "speeds": [asdict(one) for one in speeds]}, indent=1))
    else:
        Console(width=120).print(table(speeds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
