"""The picture of `splitexit bench codecs`, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitexit.report.plots import COLOURS, MARKERS, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]

ACROSS = 3
"""Panels beside each other."""

SHOWN = 30.0
"""Points below the uncompressed network at which a picture ends."""

BASELINE = {"jpeg": "-", "webp": "--"}
"""Lines of image codecs; the exact ones are single points."""


def picture(splits: Mapping[int, Sequence[Row]], fronts: Mapping[int, Sequence[Row]], title: str, file: Path) -> None:
    """Accuracy over mean bytes: a panel for every split, one colour for every family of codecs, image codecs in grey.

    Args:
        splits: split -> its rows; split 0 holds the image codecs, which every panel shows.
        fronts: split -> the rows on its Pareto front, fewest bytes first.

    Raises UsageError where matplotlib is not installed.
    """
    images = [row for row in splits[0] if row["input"]]
    shown = {split: [r for r in rows if not r["input"]] for split, rows in splits.items()}
    shown = {split: rows for split, rows in shown.items() if rows} or {0: []}
    families = list(dict.fromkeys(row["family"] for rows in shown.values() for row in rows))
    across = min(ACROSS, len(shown))
    down = ceil(len(shown) / across)
    names = [*shown, *[None] * (across * down - len(shown))]
    layout = [["." if s is None else str(s) for s in names[across * n : across * (n + 1)]] for n in range(down)]
    fig, axes = panels([*layout, ["names"] * across], 1.2 + 4.0 * across, 3.4 * down + 0.9, [3.4] * down + [0.5])
    every = [*images, *(row for rows in shown.values() for row in rows)]
    for split, rows in shown.items():
        _panel(axes[str(split)], split, rows, images, families)
        _front(axes[str(split)], [row for row in fronts.get(split, ()) if not row["input"]])
        _limit(axes[str(split)], every)
    _legend(axes["names"], [axes[str(split)] for split in shown])
    fig.suptitle(title, fontsize=10)
    fig.savefig(file)


def _panel(axes: Axes, split: int, rows: Sequence[Row], images: Sequence[Row], families: Sequence[str]) -> None:
    _images(axes, images)
    for number, family in enumerate(families):
        points = [(row["bytes"], row["accuracy"]) for row in rows if row["family"] == family]
        if points:
            x, y = zip(*points, strict=True)
            again = number // len(FAMILY_COLOURS)
            axes.plot(
                x,
                y,
                MARKERS[number % len(MARKERS)],
                color=FAMILY_COLOURS[number % len(FAMILY_COLOURS)],
                markersize=4.5,
                markerfacecolor="none" if again else None,
                label=family,
            )
    share = min((row["device_share"] for row in rows), default=0.0)  # that of a codec without an encoder's layers
    below = sum(row["accuracy"] < _lowest(row) for row in rows)
    more = f"; {below} below" if below else ""
    axes.set_title(f"split {split}: {share:.0%} of the MACs on the device{more}", fontsize=9)
    axes.set_xscale("log")
    axes.set_xlabel("mean payload in bytes", fontsize=8)
    axes.set_ylabel("test accuracy in %", fontsize=8)
    axes.tick_params(labelsize=7)


def _images(axes: Axes, rows: Sequence[Row]) -> None:
    """The baseline, which sends the image and leaves nothing to the device."""
    for family, style in BASELINE.items():
        points = sorted((row["bytes"], row["accuracy"]) for row in rows if row["family"] == family and _stripped(row))
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(
                x,
                y,
                f".{style}",
                color="#888888",
                linewidth=1.2,
                markersize=4,
                zorder=1,
                label=f"{family} of the image, split 0",
            )
    exact = [row for row in rows if row["family"] == "png"]
    if exact:
        axes.axhline(exact[0]["plain_accuracy"], color="#bbbbbb", linewidth=0.8, linestyle=":", label="uncompressed")
        axes.plot(exact[0]["bytes"], exact[0]["accuracy"], "+", color="#888888", label="png of the image")


def _stripped(row: Row) -> bool:
    return "headers=false" in row["codec"]


def _front(axes: Axes, rows: Sequence[Row]) -> None:
    """The front of the split's codecs: what is reached with at most so many bytes."""
    if rows:
        x, y = zip(*((row["bytes"], row["accuracy"]) for row in rows), strict=True)
        axes.step(x, y, where="post", color="black", linewidth=0.9, zorder=1.5, label="front of the split")


def _limit(axes: Axes, rows: Sequence[Row]) -> None:
    """All panels alike."""
    accuracies = [row["accuracy"] for row in rows]
    axes.set_ylim(max(min(accuracies) - 1.0, _lowest(rows[0])), max(accuracies) + 1.5)
    axes.set_xlim(min(row["bytes"] for row in rows) / 1.3, max(row["bytes"] for row in rows) * 1.3)


def _lowest(row: Row) -> float:
    return float(row["plain_accuracy"]) - SHOWN


def _legend(axes: Axes, shown: Sequence[Axes]) -> None:
    """One for all panels."""
    axes.set_axis_off()
    handles: dict[str, Any] = {}
    for one in shown:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    columns = 6 if len(shown) > 2 else 3 if len(shown) == 1 else 5
    axes.legend(handles.values(), handles, fontsize=7, loc="center", ncols=columns, frameon=False)


FAMILY_COLOURS = COLOURS[:-2]
"""Without black and grey, which are the front's and the baseline's."""
