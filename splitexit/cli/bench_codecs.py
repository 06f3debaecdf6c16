"""bench codecs: bytes, accuracy and time of every codec at every split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from splitexit.cli.simulate import Json

QUICK_IMAGES = 300


def codecs(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder.")],
    split: Annotated[
        list[int] | None,
        typer.Option(help="A split; repeatable [default: all that send features].", show_default=False),
    ] = None,
    codec: Annotated[
        list[str] | None,
        typer.Option(
            help="A codec, e.g. affine:bits=4; repeatable [default: a useful set, and those of the bundle].",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Test images [default: as model.json says, else the bundle's samples].")
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(help="Training images, whose validation split fits codecs [default: as model.json says]."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many test images.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help=f"Few codecs at one split, at most {QUICK_IMAGES} images: a minute.")
    ] = False,
    device: Annotated[
        str, typer.Option(help="Of the network: auto, cpu, cuda, cuda:1, mps; codecs run on the CPU.")
    ] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Where everything is kept [default: runs/codecs-BUNDLE].", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Compare codecs on one rate-accuracy chart: bytes, accuracy, MACs and time, beside JPEG and WebP of the image.

    Codecs that need fitting are fitted here, on images that are not tested; the bundle stays as it is. Rows that are
    finished are kept, and the same command goes on behind them.
    """
    from rich.console import Console

    from splitexit.bench import codec_plan as plan
    from splitexit.bench.codecs import CodecBench
    from splitexit.bundle import Bundle
    from splitexit.cli.progress import bar, command_line, goes_on, interruptible, teller
    from splitexit.models.evaluate import pick_device
    from splitexit.report.folder import new_folder, to_json

    opened = Bundle.open(bundle)
    splits = plan.choose_splits(opened.spec, split or (), quick)
    pairs = plan.choose_pairs(opened, splits, codec or (), quick)
    images = plan.read_images(opened, data, train, min(limit or QUICK_IMAGES, QUICK_IMAGES) if quick else limit)
    name = f"codecs-{bundle.resolve().name}{'-quick' if quick else ''}"
    folder = new_folder(out or Path("runs") / name, name)
    console, rows = Console(stderr=True), list[dict[str, Any]]()
    with interruptible(console, goes_on(folder)), bar(console, "codecs") as progress:
        bench = CodecBench(opened, images, folder, pick_device(device), teller(console), progress)
        rows.extend(bench.run(pairs))
    document = bench.document(rows, command_line())
    _write(document, folder)
    if json:
        print(to_json(document))
        return
    _show(document)
    print(folder)


def _write(document: dict[str, Any], folder: Path) -> None:
    """Summary and table, and the picture where matplotlib is there."""
    from importlib.util import find_spec

    from splitexit.bench import codecs_show
    from splitexit.bench.rates import by_split, on_front
    from splitexit.report.codecs import picture
    from splitexit.report.folder import to_json

    (folder / "summary.json").write_text(to_json(document) + "\n", encoding="utf-8")
    (folder / "table.md").write_text(codecs_show.markdown(document), encoding="utf-8")
    if find_spec("matplotlib") is not None:
        splits = by_split(document["rows"])
        fronts = {number: on_front(of_split) for number, of_split in splits.items()}
        title = f"{document['name']}: codecs on {document['test']['images']} test images"
        picture(splits, fronts, title, folder / "codecs.png")


def _show(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from splitexit.bench.codecs_show import heads, ordered, sentences

    shown = Console(highlight=False)
    table, columns = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0)), heads(shown.width)
    for number, column in enumerate(columns):
        table.add_column(column.head, justify="left" if number < 2 else "right", overflow="fold")
    for row in ordered(document["rows"]):
        table.add_row(*(column.cell(row) for column in columns))
    shown.print(table, markup=False)
    for line in sentences(document):
        shown.print(line, markup=False)
