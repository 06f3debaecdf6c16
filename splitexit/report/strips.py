"""Pictures of images beside what is said of every pixel, drawn with matplotlib (the `report` extra)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from splitexit.report.plots import COLOURS, require_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]

BACKGROUND = "#202020"
"""Of class 0; the others have the ten colours of matplotlib's tab10, which then begin again."""


@dataclass(frozen=True)
class Column:
    """A class for every pixel of n images.

    classes   (n, H, W)
    captions  below each; empty: none
    framed    (n,) whether to draw a frame around each
    """

    title: str
    classes: Array
    captions: Sequence[str] = ()
    framed: Sequence[bool] = ()


def strips(images: Array, columns: Sequence[Column], class_names: Sequence[str], title: str, file: Path) -> None:
    """Draws a row for every image, uint8 (n, H, W, 3): itself, then the columns.

    Raises UsageError where matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    wide = 1 + len(columns)
    fig = Figure(figsize=(1.25 * wide, 1.35 * len(images) + 0.9), layout="constrained", dpi=140)
    cells, colours = fig.subplots(len(images), wide, squeeze=False), _colours(len(class_names))
    for number, (row, image) in enumerate(zip(cells, images, strict=True)):
        for axes in row:
            axes.set(xticks=[], yticks=[])
        row[0].imshow(image)
        for axes, column in zip(row[1:], columns, strict=True):
            _cell(axes, column, number, colours)
    for axes, name in zip(cells[0], ["image", *(column.title for column in columns)], strict=True):
        axes.set_title(name, fontsize=8)
    _legend(fig, colours, class_names, across=2 * wide)
    fig.suptitle(title, fontsize=8)
    fig.savefig(file)


def _cell(axes: Axes, column: Column, number: int, colours: ListedColormap) -> None:
    axes.imshow(column.classes[number], cmap=colours, vmin=-0.5, vmax=colours.N - 0.5, interpolation="nearest")
    if column.captions:
        axes.set_xlabel(column.captions[number], fontsize=7, labelpad=2)
    if column.framed and column.framed[number]:
        for spine in axes.spines.values():
            spine.set(color=COLOURS[1], linewidth=2.5)


def _colours(classes: int) -> ListedColormap:
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, to_rgba

    others = colormaps["tab10"](np.arange(classes - 1) % 10)
    return ListedColormap(np.concatenate([[to_rgba(BACKGROUND)], others]))


def _legend(fig: Figure, colours: ListedColormap, names: Sequence[str], across: int) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=colours(number), label=name) for number, name in enumerate(names)]
    fig.legend(
        handles=patches,
        loc="outside lower center",
        ncols=across,
        handlelength=1.0,
        columnspacing=0.8,
        fontsize=7,
        frameon=False,
    )
