"""Chance by index: the same for all who share a seed, in whatever order they ask, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")

BLOCK = 2048
"""Draws made at once: large enough that making a generator costs little per draw."""


class Blocks(Generic[T]):
    """Blocks of random things, each drawn from a generator of its own.

    Args:
        rng: gives the seed, and nothing else.
        draw: makes block `number` from its generator.
    """

    def __init__(self, rng: np.random.Generator, draw: Callable[[np.random.Generator, int], T]) -> None:
        self._seed, self._draw = int(rng.integers(2**63)), draw
        self._kept: dict[int, T] = {}

    def __getitem__(self, number: int) -> T:
        block = self._kept.get(number)
        return self._make(number) if block is None else block

    def _make(self, number: int) -> T:
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(number,)))
        block = self._draw(rng, number)
        # A fork that looks ahead is at most a block or two before its origin.
        self._kept = {n: b for n, b in self._kept.items() if abs(n - number) <= 1} | {number: block}
        return block
