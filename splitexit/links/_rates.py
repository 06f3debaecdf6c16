"""Rates over time from a text file: two columns of numbers, or CSV with a heading."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby, pairwise
from pathlib import Path
from statistics import fmean
from typing import Literal, get_args

from splitexit.errors import TraceError, did_you_mean
from splitexit.links._tracefile import LARGEST_MBPS, LARGEST_S, finite, read

EXPECTED = "`seconds Mbit/s`, separated by space, tab or comma, or CSV with a heading"

Unit = Literal["Mbit/s", "kbit/s", "bit/s", "bytes/s"]
MBPS: dict[Unit, float] = {"Mbit/s": 1.0, "kbit/s": 1e-3, "bit/s": 1e-6, "bytes/s": 8e-6}

KNOWN: dict[str, Unit] = {"DL_bitrate": "kbit/s", "UL_bitrate": "kbit/s"}
"""Columns that G-NetTrack Pro logs, as in the data sets of Raca et al. (MMSys 2018 and 2020)."""

LOGGED_TIME = "%Y.%m.%d_%H.%M.%S"
"""G-NetTrack Pro's clock, of whole seconds."""


def rates(path: Path, column: str | None, unit: Unit | None) -> tuple[list[float], list[float]]:
    """Increasing times in seconds, and the rate from each on in Mbit/s, some of them above 0.

    Args:
        path: the file.
        column: the heading of the rates, where there are headings; the times are in the first column.
        unit: of the rates; by default Mbit/s, or what a known heading stands for.

    Raises:
        TraceError: the file cannot be used, with its line.
    """
    lines = _Lines(column, unit)
    points = [(line, *point) for line, point in read(path, EXPECTED, lines)]
    if lines.logged:  # a clock of whole seconds: the mean of what it gives for one of them
        groups = [list(group) for _, group in groupby(points, key=lambda point: point[1])]
        points = [(*group[0][:2], fmean(rate for *_, rate in group)) for group in groups]
    for (_, before, _), (line, time, _) in pairwise(points):
        if time <= before:
            raise TraceError(f"{path}:{line}: time {time:g} follows {before:g}; times must increase: sort the lines")
    if not any(rate for *_, rate in points):
        raise TraceError(f"{path}: every rate is zero, nothing would ever arrive; expected some above 0 Mbit/s")
    return [time for _, time, _ in points], [rate for *_, rate in points]


class _Lines:
    """Reads line after line; the first one tells whether there is a heading (`logged`)."""

    def __init__(self, column: str | None, unit: Unit | None) -> None:
        self._column, self._unit = column, unit
        self._first, self._at, self.logged = True, 1, False

    def __call__(self, line: str) -> tuple[float, float] | None:
        """(seconds, Mbit/s), or nothing for the heading; raises ValueError."""
        first, self._first = self._first, False
        if first and _is_heading(line):
            self.logged = True
            self._open(_fields(line))
            return None
        if first and self._column is not None:
            raise ValueError(f"no heading, so there is no column {self._column!r}: leave `column` out")
        fields = _fields(line) if self.logged else line.replace(",", " ").split()
        if len(fields) <= self._at or (not self.logged and len(fields) != 2):
            raise ValueError(f"{len(fields)} columns (put # before a comment)")
        return _time(fields[0], self.logged), self._rate(fields[self._at])

    def _open(self, headings: Sequence[str]) -> None:
        if self._column is None:
            likely = [heading for heading in headings[1:] if heading in KNOWN] or headings[1:]
            raise ValueError(f"a heading; say with `column` which one is the rate: {', '.join(likely)}")
        if self._column not in headings[1:]:
            raise ValueError(f"no column {self._column!r}{did_you_mean(self._column, headings[1:])}")
        self._at = headings.index(self._column, 1)
        self._unit = self._unit or KNOWN.get(self._column)
        if self._unit is None:
            raise ValueError(f"the unit of {self._column!r} is not known; say with `unit`: {', '.join(get_args(Unit))}")

    def _rate(self, text: str) -> float:
        rate = finite(text) * MBPS[self._unit or "Mbit/s"]
        if 0 <= rate <= LARGEST_MBPS:
            return rate
        hint = "" if self._unit else "; is it in bits or bytes per second? say so with `unit`"
        raise ValueError(f"rate {rate:g} is not in 0..{LARGEST_MBPS:g} Mbit/s{hint}")


def _fields(line: str) -> list[str]:
    return [field.strip() for field in next(csv.reader([line]))]


def _is_heading(line: str) -> bool:
    """Whether a first line is one: several fields, and none a number."""
    fields = _fields(line)
    return len(fields) > 1 and not any(_is_number(field) for field in fields)


def _is_number(text: str) -> bool:
    try:
        finite(text)
    except ValueError:
        return False
    return True


def _time(text: str, logged: bool) -> float:
    if logged and not _is_number(text):
        try:
            return (datetime.strptime(text, LOGGED_TIME) - datetime(1970, 1, 1)).total_seconds()
        except ValueError:
            raise ValueError(f"{text!r} is neither seconds nor a time like 2020.02.14_13.21.26") from None
    time = finite(text)
    if abs(time) > LARGEST_S:
        raise ValueError(f"time {time:g} s is beyond {LARGEST_S:g}; is the clock in milliseconds?")
    return time
