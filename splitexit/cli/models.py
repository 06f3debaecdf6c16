"""Commands that make a bundle: train, train-codec, record, calibrate.

This file must import on a machine that has torch, typer and rich but neither pydantic nor grpc, so that a bare
GPU machine can train: `python -c "from splitexit.cli.models import app_main; app_main()" train …`.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from splitexit.errors import SplitexitError, UsageError

if TYPE_CHECKING:
    from splitexit.models.train import EpochReport, Watcher

INTERRUPTED = 130


def register(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    app.command()(train)


def app_main() -> None:
    """These commands alone, for machines that lack what the other commands need."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    register(app)
    app.callback()(lambda: None)
    try:
        app()
    except SplitexitError as error:
        Console(stderr=True).print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(error.exit_code)


def parse_shares(text: str) -> tuple[float, ...]:
    """`"15,30,45"` (percent) -> (0.15, 0.3, 0.45); `"none"` -> (); raises UsageError."""
    if text == "none":
        return ()
    try:
        return tuple(round(float(part) / 100, 6) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"--exits {text!r}: expected percentages such as 15,30,45, or none for the exit-free twin"
        ) from None


def train(
    data: Annotated[str, typer.Option(help="Parquet file, folder of images, or Hugging Face data set.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle to make.")],
    test: Annotated[str | None, typer.Option(help="Test images, looked at once at the end.")] = None,
    backbone: Annotated[str, typer.Option(help="name or name:key=value,key=value")] = "resnet",
    depth: Annotated[int | None, typer.Option(help="Short for the backbone's depth.")] = None,
    exits: Annotated[
        str, typer.Option(help="Where exits go, in percent of the exit-free network's cost; or none.")
    ] = "15,30,45,60,75,90",
    head: Annotated[str, typer.Option(help="Exit head: name or name:key=value")] = "pooled",
    objective: Annotated[str, typer.Option(help="joint:weights=cost, uniform, sdn, or 0.3/0.6/1")] = "joint",
    cuts: Annotated[str, typer.Option(help="A stage ends behind all exits or behind all blocks.")] = "exits",
    epochs: Annotated[int, typer.Option(min=1)] = 30,
    batch: Annotated[int, typer.Option(min=1)] = 128,
    lr: Annotated[float, typer.Option(help="Highest learning rate of the one-cycle schedule.")] = 0.1,
    weight_decay: Annotated[float, typer.Option(min=0)] = 5e-4,
    augment: Annotated[str, typer.Option(help="crop-flip, crop or none")] = "crop-flip",
    validation: Annotated[float, typer.Option(help="Share of the training images kept apart.")] = 0.1,
    resize: Annotated[int | None, typer.Option(min=8, help="Scale images to this height and width.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")] = None,
    precision: Annotated[str, typer.Option(help="bf16 or fp32")] = "bf16",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = "auto",
    stop_after: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many epochs; the same command goes on.")
    ] = None,
) -> None:
    """Train a multi-exit network and write its bundle; the same command goes on where it was stopped."""
    from splitexit.models.spec import parse_spec
    from splitexit.models.train import Recipe
    from splitexit.models.train import train as run

    spec = parse_spec(backbone) | ({} if depth is None else {"depth": depth})
    recipe = Recipe(
        backbone=spec,
        shares=parse_shares(exits),
        head=parse_spec(head),
        objective=parse_spec(objective),
        cuts=cuts,
        epochs=epochs,
        batch=batch,
        lr=lr,
        weight_decay=weight_decay,
        augment=augment,  # type: ignore[arg-type]  # Batches checks it
        validation=validation,
        resize=resize,
        limit=limit,
        precision=precision,
        seed=seed,
    )
    console = Console(stderr=True)
    with _interruptible(console, out), _watching(console) as watcher:
        bundle = run(
            recipe,
            source=data,
            test=test,
            out=out,
            device=device,
            command=_command(),
            watcher=watcher,
            stop_after=stop_after,
        )
    if bundle is None:
        console.print(f"stopped after epoch {stop_after} of {epochs}; the same command goes on from there")
    else:
        print(bundle.path)


def _command() -> str:
    return shlex.join(["splitexit", *sys.argv[1:]])


@contextmanager
def _interruptible(console: Console, out: Path) -> Iterator[None]:
    """Ctrl-C ends with a word on how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        console.print(f"\ninterrupted; {out} keeps what is done, and the same command goes on from there")
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _watching(console: Console) -> Iterator[Watcher]:
    """A progress bar over the steps of an epoch, and one line for every epoch."""
    from splitexit.models.train import Watcher

    columns = (TextColumn("epoch {task.fields[epoch]}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("train", epoch=0, total=None)

        def step(epoch: int, done: int, steps: int) -> None:
            progress.update(task, completed=done, total=steps, epoch=epoch)

        yield Watcher(step, lambda report: console.print(_line(report), highlight=False, soft_wrap=True))


def _line(report: EpochReport) -> str:
    exits = " ".join(f"{100 * a:.1f}" for a in report.accuracy)
    return f"epoch {report.epoch:3d}  loss {report.loss:.4f}  validation % by exit {exits}  {report.seconds:.0f} s"
