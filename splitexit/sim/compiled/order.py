"""Rows in order of (device, request) out of rows in order of completion, without holding them all in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from splitexit.sim.compiled.layout import ROW, Array

BLOCK = 1 << 18
"""Rows that are handed on together."""


def one_device(stretches: Iterable[Array]) -> Iterator[Array]:
    """For one device: completions are nearly in order, so a window does."""
    window, there, base, end = np.zeros(2 * BLOCK, ROW), np.zeros(2 * BLOCK, bool), 0, 0
    for rows in stretches:
        at = rows["number"] - base
        end = max(end, int(at.max(initial=-1)) + 1)
        if end > len(window):
            window, there = (
                np.concatenate([part, np.zeros(max(end, len(part)), part.dtype)]) for part in (window, there)
            )
        window[at], there[at] = rows, True
        complete = end if there[:end].all() else int(np.argmin(there[:end]))
        if complete >= BLOCK:
            yield window[:complete].copy()
            left = end - complete
            window[:left], there[:left] = window[complete:end].copy(), there[complete:end].copy()
            there[left:end] = False
            base, end = base + complete, left
    if end:
        yield window[:end]


def many_devices(stretches: Iterable[Array], devices: int, requests: int, folder: Path) -> Iterator[Array]:
    """For many: through a file in `folder`, which is gone afterwards."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".rows-") as file:
        place = np.memmap(file, ROW, "w+", shape=(devices * requests,))
        count = np.zeros(devices, np.int64)
        for rows in stretches:
            place[rows["device"] * np.int64(requests) + rows["number"]] = rows
            count += np.bincount(rows["device"], minlength=devices)
        yield from _blocks(place, count, requests)


def _blocks(place: Array, count: Array, requests: int) -> Iterator[Array]:
    """Of every device as many rows as it has."""
    held, size = list[Array](), 0
    for device, rows in enumerate(count.tolist()):
        start = device * requests
        for first in range(start, start + rows, BLOCK):
            held.append(np.asarray(place[first : min(first + BLOCK, start + rows)]))
            size += len(held[-1])
            if size >= BLOCK:
                yield np.concatenate(held)
                held, size = [], 0
    if held:
        yield np.concatenate(held)
