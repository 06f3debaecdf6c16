"""bench: comparisons that train and measure, one table each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splitexit.cli.bench_bandits import bandits
from splitexit.cli.bench_codecs import codecs
from splitexit.cli.bench_policies import policies
from splitexit.cli.simulate import Json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from rich.table import Table

    from splitexit.bench.dense import DenseBench
    from splitexit.bench.methods import Source
    from splitexit.bench.plan import Plan
    from splitexit.models.data import ImageSet

HUB = {"mnist": "ylecun/mnist", "cifar10": "uoft-cs/cifar10"}
"""Data sets that are fetched where nobody says where they are."""


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    bench = typer.Typer(no_args_is_help=True, help="Train and compare what the field has published.")
    bench.command()(methods)
    bench.command()(dense)
    bench.command()(codecs)
    bench.command()(bandits)
    bench.command()(policies)
    app.add_typer(bench, name="bench")


def methods(
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TRAIN,TEST",
            help="A data set, of the recipes or your own, and its files; repeatable [default: mnist and cifar10 of the "
            "Hugging Face hub, with the package `datasets`].",
            show_default=False,
        ),
    ] = None,
    recipes: Annotated[str, typer.Option(help="cpu, gpu, quick, or a file like theirs.")] = "cpu",
    quick: Annotated[bool, typer.Option("--quick", help="Short for --recipes quick: minutes, not hours.")] = False,
    seeds: Annotated[str | None, typer.Option(help="Seeds, e.g. 0-2 [default: the recipes'].")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Where everything is kept [default: runs/methods-RECIPES].", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Train every early-exit method of the recipes beside its exit-free twin; one table, resumable.

    Thresholds are chosen on images kept apart from the training; the test images are looked at once.
    """
    from rich.console import Console

    from splitexit.bench.methods import Bench
    from splitexit.bench.plan import find, read_plan
    from splitexit.cli.progress import goes_on, interruptible, teller, watching
    from splitexit.report.folder import to_json

    chosen = "quick" if quick else recipes
    plan = with_seeds(read_plan(find(chosen)), seeds)
    sources = _named_sources(data, plan.data)
    plan = plan.with_data(sources)
    folder = out or Path("runs") / f"methods-{Path(chosen).stem}"
    console, results = Console(stderr=True), list[dict[str, Any]]()
    with interruptible(console, goes_on(folder)), watching(console) as watcher:
        bench = Bench(plan, sources, folder, device, teller(console), watcher)
        for found in bench.run():
            results.append(found)
            console.print(_line(found), highlight=False, soft_wrap=True)
    document = _document(plan, results, folder, pick(device))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(to_json(document) + "\n")
    if json:
        print(to_json(document))
        return
    shown = Console(highlight=False)
    for table in _tables(results, shown.width):
        shown.print(table)
    _draw(results, folder)
    print(folder)


def dense(
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TRAIN,TEST",
            help="Files of `mnist` (any digits) and `cifar10` (any photographs) [default: from the Hugging Face hub].",
            show_default=False,
        ),
    ] = None,
    scenes: Annotated[int, typer.Option(min=100, help="Scenes to train on; a quarter as many to test.")] = 4000,
    epochs: Annotated[int, typer.Option(min=1)] = 8,
    backbone: Annotated[str, typer.Option(help="name or name:key=value,key=value")] = "resnet:depth=20",
    exits: Annotated[str, typer.Option(help="Where exits go, as for `train`.")] = "25,50,75",
    seeds: Annotated[str, typer.Option(help="Seeds, e.g. 0-2.")] = "0",
    out: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path("runs/dense"),
    json: Json = False,
) -> None:
    """Per-pixel exits on digits pasted onto photographs: joint training, block-dependent losses, and no early exit.

    The thresholds for leaving early are chosen on scenes kept apart from the training; the test scenes come from test
    images. Finished networks are kept, and the same command goes on behind them.
    """
    from rich.console import Console

    from splitexit.bench import dense as task
    from splitexit.bench.scenes import compose, parts
    from splitexit.cli.progress import bar, interruptible, teller
    from splitexit.cli.simulate import parse_seeds
    from splitexit.errors import UnknownNameError
    from splitexit.models.placement import parse_exits
    from splitexit.models.spec import parse_spec
    from splitexit.report.folder import new_folder, to_json

    sources, places = _named_sources(data, HUB), parse_exits(exits)
    for name in sources:
        if name not in HUB:
            raise UnknownNameError("data set", name, HUB)
    recipes = [r for seed in parse_seeds(seeds) for r in task.recipes(parse_spec(backbone), places, epochs, seed)]
    for recipe in recipes:
        task.build(recipe)  # says at once what does not fit
    new_folder(out, "dense")
    console, results = Console(stderr=True), list[dict[str, Any]]()
    say = teller(console)
    with interruptible(console, f"{out} keeps the finished networks"):
        say("composing scenes")
        images = {split: _read(sources, split) for split in ("train", "test")}
        sets = [compose(*images[split], count, seed) for split, count, seed in parts(scenes)]
        with bar(console, "steps") as progress:
            bench = task.DenseBench(sets, out, say, progress)
            for found in bench.run(recipes):
                results.append(found)
                console.print(_dense_line(found), highlight=False, soft_wrap=True)
    document = {"scenes": [len(of) for of in sets], "machine": pick("cpu"), "methods": results, "run": str(out)}
    (out / "summary.json").write_text(to_json(document) + "\n")
    _write_dense(bench, results)
    if json:
        print(to_json(document))
        return
    _show_dense(results)
    print(out)


def _dense_line(found: dict[str, Any]) -> str:
    exits = " ".join(f"{exit_['miou']:.1f}" for exit_ in found["exits"])
    return f"  mIoU by exit {exits} %; leaving early {found['miou']:.1f} % at {found['cost']:.1%} of the cost"


def _write_dense(bench: DenseBench, results: Sequence[dict[str, Any]]) -> None:
    """The table, and the pictures where matplotlib is there."""
    from importlib.util import find_spec

    from splitexit.bench import dense_show
    from splitexit.bundle import Bundle
    from splitexit.models.multi_exit import load

    (bench.folder / "table.md").write_text(dense_show.markdown(results))
    if find_spec("matplotlib") is None:
        return
    dense_show.draw(results, bench.folder / "miou.png")
    few = bench.sets[-1].take(slice(0, dense_show.SHOWN))
    for found in results:
        folder = bench.path(found["method"], found["seed"])
        dense_show.strip(load(Bundle.open(folder)), few, found, bench.folder / f"scenes-{folder.name}.png")


def _show_dense(results: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from splitexit.bench.dense_show import cells, grouped, heads

    shown, table = Console(highlight=False), Table(box=None, pad_edge=False)
    fitting = heads(shown.width)
    for number, head in enumerate(fitting):
        table.add_column(head, justify="left" if number == 0 else "right", overflow="fold")
    for same in grouped(results):
        table.add_row(*cells(same)[: len(fitting)])
    shown.print(table)


def _read(sources: dict[str, Source], split: str) -> tuple[ImageSet, ImageSet]:
    """Digits and photographs, of the training or the test images."""
    from splitexit.models import data

    mnist, cifar = sources["mnist"], sources["cifar10"]
    digits = data.read(mnist.train if split == "train" else mnist.test, split, channels=1)
    photographs = data.read(cifar.train if split == "train" else cifar.test, split, channels=3)
    return digits, photographs


def pick(device: str) -> Any:
    """The device, for the document."""
    from splitexit.models.evaluate import describe_machine, pick_device

    return describe_machine(pick_device(device))


def with_seeds(plan: Plan, seeds: str | None) -> Plan:
    """A plan with the seeds of the command line, which count for all data sets."""
    from dataclasses import replace

    from splitexit.cli.simulate import parse_seeds

    return plan if seeds is None else replace(plan, seeds=tuple(parse_seeds(seeds)), own_seeds={})


def _named_sources(given: list[str] | None, known: Collection[str]) -> dict[str, Source]:
    """Of the data sets on the command line; without any, of those that the hub has."""
    from splitexit.bench.methods import Source, parse_source
    from splitexit.errors import UsageError

    hub = {name: Source(HUB[name], HUB[name]) for name in known if name in HUB}
    sources = dict[str, Source]()
    for name, source in map(parse_source, given or []):
        if name in sources:
            raise UsageError(f"--data {name}=…: given twice")
        sources[name] = source
    return sources or hub


def _line(found: dict[str, Any]) -> str:
    return (
        f"  {found['accuracy']:.2f} % at {found['cost']:.1%} of the cost; the twin {found['twin_accuracy']:.2f} %, "
        f"the final exit {found['final_accuracy']:.2f} %"
    )


def _document(plan: Plan, results: Sequence[dict[str, Any]], folder: Path, machine: Any) -> dict[str, Any]:
    return {
        "about": plan.about,
        "seeds": {found["data"]: list(plan.seeds_on(found["data"])) for found in results},
        "machine": machine,
        "methods": list(results),
        "run": str(folder),
    }


def _tables(results: Sequence[dict[str, Any]], width: int) -> Iterator[Table]:
    from splitexit.bench.score import HELD, SMALL
    from splitexit.bench.show import RULE_HEADS, cells, grouped, heads, rule_cells

    fitting, methods = heads(width), grouped(results)
    yield _table("", fitting, [cells(seeds)[: len(fitting)] for seeds in methods])
    for key, what in ("held", f"The least cost that holds {HELD} points"), ("small", f"Within {SMALL:.0%} of the cost"):
        rows = [row for seeds in methods if (row := rule_cells(seeds, key)) is not None]
        if rows:
            yield _table(f"\n{what} on validation images, by rule; difference on test images", RULE_HEADS, rows)


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title=title or None, title_justify="left")
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number < 2 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _draw(results: Sequence[dict[str, Any]], folder: Path) -> None:
    from importlib.util import find_spec

    from splitexit.bench.show import draw

    if find_spec("matplotlib") is not None:
        draw(results, folder)
