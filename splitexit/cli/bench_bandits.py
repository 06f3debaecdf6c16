"""bench bandits: regret, cost and accuracy of bandits over splits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from splitexit.cli.simulate import Json
from splitexit.errors import UsageError


def bandits(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder, recorded and calibrated.")],
    shuffles: Annotated[int, typer.Option(min=2, help="Orders of the test samples, for the intervals.")] = 20,
    horizon: Annotated[int, typer.Option(min=10, help="Requests of a regret curve; samples come again.")] = 20_000,
    alpha: Annotated[str, typer.Option(help="Confidence from which the device answers: a number, or fitted.")] = "0.7",
    offload: Annotated[float, typer.Option(min=0, help="Cost of sending at which regret is measured.")] = 0.5,
    sweep: Annotated[
        str | None, typer.Option(help="Costs of sending to compare, e.g. 0.1,0.5 [default: 0.1 to 0.6 by 0.05].")
    ] = None,
    lambda1: Annotated[float, typer.Option(min=0, help="Cost of a unit of depth.")] = 0.08,
    lambda2: Annotated[float, typer.Option(min=0, help="Cost of reading a head.")] = 0.02,
    cost: Annotated[str, typer.Option(help="What depth is: exits, or macs.")] = "exits",
    mu: Annotated[float, typer.Option(help="Weight of costs against confidence, above 0.")] = 1.0,
    c: Annotated[float, typer.Option(min=0, help="How much arms are tried that are not known well.")] = 1.0,
    codec: Annotated[str, typer.Option(help="How features are sent.")] = "uint8",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Where everything is kept [default: runs/bandits-BUNDLE].", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Replay a recording to the bandits SplitEE, SplitEE-S, I-SplitEE and HI-LCB, in the units of their papers.

    Regret to the best fixed arm and to the most of every request; cost and accuracy over the cost of sending.
    """
    from rich.console import Console

    from splitexit.bench.bandits import SWEEP, Bandits, Terms
    from splitexit.bundle import Bundle
    from splitexit.cli.progress import bar, command_line, interruptible
    from splitexit.report.folder import new_folder, to_json

    if cost not in ("exits", "macs"):
        raise UsageError(f"--cost: expected exits or macs, found {cost!r}")
    if mu <= 0:
        raise UsageError(f"--mu: expected more than 0, found {mu:g}")
    terms = Terms(_alpha(alpha), codec, "macs" if cost == "macs" else "exits", lambda1, lambda2, offload, mu, c)
    opened, costs = Bundle.open(bundle), SWEEP if sweep is None else _costs(sweep)
    name = f"bandits-{bundle.resolve().name}"
    console = Console(stderr=True)
    nothing = "nothing is kept: fewer --shuffles or a shorter --horizon end sooner"
    with interruptible(console, nothing), bar(console, "requests") as progress:
        bench = Bandits.open(opened, terms, shuffles, seed, progress)
        folder = new_folder(out or Path("runs") / name, name)
        found = bench.run(horizon, costs)
    document = {"name": opened.spec.name, "bundle": str(bundle), "command": command_line(), **found}
    _write(document, folder)
    if json:
        print(to_json(document))
        return
    _show(document)
    print(folder)


def _alpha(text: str) -> Any:
    """A number, or the word."""
    if text == "fitted":
        return text
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not found >= 0:
        raise UsageError(f"--alpha: expected a number from 0, or fitted; found {text!r}")
    return found


def _costs(text: str) -> list[float]:
    """`"0.1,0.5"`; raises UsageError."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(cost >= 0 for cost in found):
        raise UsageError(f"--sweep: expected numbers from 0 such as 0.1,0.5; found {text!r}")
    return found


def _write(document: dict[str, Any], folder: Path) -> None:
    """Summary and table, and the picture where matplotlib is there."""
    from importlib.util import find_spec

    from splitexit.bench.bandits_show import markdown
    from splitexit.report.bandits import picture
    from splitexit.report.folder import to_json

    (folder / "summary.json").write_text(to_json(document) + "\n", encoding="utf-8")
    (folder / "table.md").write_text(markdown(document), encoding="utf-8")
    if find_spec("matplotlib") is not None:
        title = f"{document['name']}: bandits over its exits, o = {document['terms']['offload']:g} for the regret"
        picture(document, title, folder / "bandits.png")


def _show(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from splitexit.bench.bandits_show import heads, rows, sentences

    shown, table = Console(highlight=False), Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    fitting = heads(shown.width)
    for number, head in enumerate(fitting):
        table.add_column(head, justify="right" if number else "left", overflow="fold")
    for row in rows(document):
        table.add_row(*row[: len(fitting)])
    shown.print(table, markup=False)
    for line in sentences(document):
        shown.print(line, markup=False)
