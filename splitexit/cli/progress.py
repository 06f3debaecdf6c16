"""What long commands show while they work, and what they say when they are stopped.

This file must import on a machine that has torch, typer and rich alone (see models.py).
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from splitexit.errors import INTERRUPTED

if TYPE_CHECKING:
    from splitexit.models.fit import EpochReport, StepReport, Watcher


def command_line() -> str:
    """What was typed, for `made` of what comes of it."""
    return shlex.join(["splitexit", *sys.argv[1:]])


def goes_on(out: Path) -> str:
    """What is said where the same command finds its finished parts again."""
    return f"{out} keeps what is done, and the same command goes on from there"


@contextmanager
def interruptible(console: Console, then: str) -> Iterator[None]:
    """Ctrl-C ends the command, with a word on what is kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        console.print(f"interrupted; {then}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None


def teller(console: Console) -> Callable[[str], None]:
    """Prints what is happening, in a line each."""
    return lambda line: console.print(f"· {line}", markup=False)


@contextmanager
def watching(console: Console) -> Iterator[Watcher]:
    """A progress bar with loss and accuracy so far, and one line for every epoch."""
    from splitexit.models.fit import Watcher

    text = TextColumn("epoch {task.fields[epoch]}  loss {task.fields[loss]:.3f}  training % {task.fields[exits]}")
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("train", epoch=1, loss=0.0, exits="", total=None)

        def step(now: StepReport) -> None:
            progress.update(
                task,
                completed=now.done,
                total=now.steps,
                epoch=now.epoch,
                loss=now.loss,
                exits=in_percent(now.accuracy),
            )

        yield Watcher(step, lambda report: console.print(_line(report), highlight=False, soft_wrap=True))


@contextmanager
def bar(console: Console, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar; gives the function to call with (done, total)."""
    columns = (TextColumn(unit), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(unit, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _line(report: EpochReport) -> str:
    return (
        f"epoch {report.epoch:3d}  loss {report.loss:.4f}  validation % by exit {in_percent(report.accuracy)}  "
        f"{report.seconds:.0f} s"
    )


def in_percent(accuracy: Sequence[float]) -> str:
    """Of every exit, in a row."""
    return " ".join(f"{100 * a:.1f}" for a in accuracy)
