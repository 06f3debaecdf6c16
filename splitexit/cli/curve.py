"""curve: accuracy over cost of a bundle's exits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from splitexit.report.curve import Point


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command(help="Sweep the exit threshold: accuracy over cost, and the threshold to choose.")(curve)


def curve(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder.")],
    lose: Annotated[
        float, typer.Option(min=0, help="Points of accuracy that may be lost on the calibration split.")
    ] = 1.0,
    plot: Annotated[Path | None, typer.Option(help="Draw the curves into this file (needs matplotlib).")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Chooses on the calibration split, reports on both."""
    from rich.console import Console

    from splitexit.bundle import Bundle
    from splitexit.confidence import SOFTMAX_RULES
    from splitexit.recording import Recording
    from splitexit.report import curve as curves
    from splitexit.report.folder import to_json

    opened = Bundle.open(bundle)
    recording, spec = Recording.load(opened.recording, opened.spec), opened.spec
    chosen: dict[str, tuple[Point, Point]] = {}
    drawn: dict[str, list[Point]] = {}
    for rule in SOFTMAX_RULES:
        levels = curves.thresholds(rule, recording.calibration)
        pick = curves.choose(curves.curve(recording.calibration, spec, rule, levels), lose / 100)
        chosen[rule] = pick, curves.point(recording.test, spec, rule, pick.threshold)
        drawn[rule] = curves.curve(recording.test, spec, rule, levels)
    if plot is not None:
        curves.draw(drawn, curves.single_exits(recording.test, spec), plot, f"{spec.name}, test split")
    if json:
        print(to_json({rule: {"calibration": vars(a), "test": vars(b)} for rule, (a, b) in chosen.items()}))
        return
    Console().print(_table(chosen))
    print(plot or opened.path)


def _table(chosen: dict[str, tuple[Point, Point]]) -> Table:
    from rich.table import Table

    table = Table("rule", "threshold", box=None, pad_edge=False)
    for split in ("calibration", "test"):
        table.add_column(f"{split} accuracy", justify="right")
        table.add_column("cost", justify="right")
    table.add_column("leave early (test)", justify="right")
    for rule, (calibration, test) in chosen.items():
        cells = [f"{value:.2%}" for point in (calibration, test) for value in (point.accuracy, point.cost)]
        table.add_row(rule, f"{calibration.threshold:.4f}", *cells, f"{1 - test.exit_rates[-1]:.1%}")
    return table
