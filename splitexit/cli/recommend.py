"""recommend: which policies to consider for a bundle on a device and a link."""

from __future__ import annotations

from collections.abc import Mapping
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splitexit.cli.simulate import Engine, Json, Out, Overrides, Requests, given, parse_seeds, progress_bar

if TYPE_CHECKING:
    from splitexit.capacity import Slo
    from splitexit.experiment import Experiment
    from splitexit.recommend import Advice, Choice
    from splitexit.report.tables import Column


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command()(recommend)


def recommend(
    target: Annotated[
        Path, typer.Argument(metavar="BUNDLE|SCENARIO", help="A bundle's folder, or a scenario to take all else from.")
    ],
    device: Annotated[
        str | None, typer.Option(help="The device's hardware: a name, or a calibration file.", show_default=False)
    ] = None,
    link: Annotated[
        str | None,
        typer.Option(
            help="Both directions: 3g, lte, wifi, …, the file of a trace, or {name: constant, mbps: 5}.",
            show_default=False,
        ),
    ] = None,
    edge: Annotated[str | None, typer.Option(help="The edge's hardware.", show_default=False)] = None,
    rate: Annotated[
        float | None, typer.Option(min=1e-6, help="Requests per second of every device.", show_default=False)
    ] = None,
    slo: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LEVEL",
            help="What must hold: p50, p95, p99 or mean <100ms, miss<1%, shed<1%, accuracy>=0.8, energy<5mJ; "
            "repeatable. Quote it, for the shell takes < and > for itself.",
        ),
    ] = None,
    min_accuracy: Annotated[
        float | None, typer.Option(min=0, max=1, help="As --slo accuracy>=…", show_default=False)
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(min=0, help="MB that weights and features may take on the device.", show_default=False),
    ] = None,
    overrides: Overrides = None,
    seeds: Annotated[str, typer.Option(help="Of the simulations that report, at least 3, e.g. 0-9.")] = "0-9",
    requests: Requests = None,
    engine: Engine = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Search exits, thresholds, splits, codecs and policies, and name the few worth considering.

    Everything is chosen on the calibration split; the test split only reports. Writes a scenario with the choices.
    """
    from splitexit.capacity import Slo
    from splitexit.errors import UsageError
    from splitexit.recommend import FILE, advise
    from splitexit.report.folder import new_folder, to_json

    levels = [Slo.parse(text) for text in slo or ()]
    levels += [] if min_accuracy is None else [Slo.parse(f"accuracy>={min_accuracy:g}")]
    numbers = parse_seeds(seeds)
    if len(numbers) < 3:
        raise UsageError(f"--seeds {seeds!r}: expected at least 3 seeds, fewer leave no interval")
    folder = new_folder(out, f"recommend-{target.resolve().stem}")
    both_ways = None if link is None else _link(link)
    keys: dict[str, object] = {"devices.hardware": device, "uplink": both_ways, "downlink": both_ways}
    keys |= {"edge.hardware": edge, "devices.arrivals.rate_hz": rate}
    asked = [f"{key}={value}" for key, value in keys.items() if value is not None]
    base = _base(target, [*asked, *given(overrides, requests, engine)], folder)
    with progress_bar(json) as progress:
        bar = progress.add_task("recommending", total=None)
        found = advise(
            base,
            levels,
            numbers,
            folder,
            None if memory is None else round(memory * 1e6),
            lambda text: progress.update(bar, description=text),
        )
    document = _document(found, levels) | {"scenario": str(folder / FILE), "run": str(folder)}
    _write(folder, found, document)
    if json:
        print(to_json(document))
        return
    _show(found, levels, base, seeds, folder)
    print(folder)


def _base(target: Path, asked: list[str], folder: Path) -> Experiment:
    """The scenario, or one made for the bundle, with what was asked for."""
    from splitexit.errors import UsageError
    from splitexit.experiment import Experiment
    from splitexit.scenario import dump, load

    if not target.is_dir():
        return Experiment.open(load(target, asked))
    missing = [
        option for option, key in (("--device", "devices.hardware"), ("--link", "uplink")) if key not in _keys(asked)
    ]
    if missing:
        raise UsageError(
            f"{target}: a bundle alone does not say {' and '.join(missing)}; e.g. --device host --link lte"
        )
    file = folder / "asked.yaml"
    file.write_text(dump({"name": target.resolve().name, "bundle": str(target.resolve())}), encoding="utf-8")
    return Experiment.open(load(file, asked))


def _link(given: str) -> str:
    """The link as a scenario has it: for the file of a trace, that of its format, else as given."""
    file = Path(given)
    if not file.is_file():
        return given
    with file.open(encoding="utf-8", errors="replace") as lines:
        first = next((line for line in map(str.strip, lines) if line), "")
    name = "mahimahi" if first.isdigit() else "trace"  # a time in ms, or a time and a rate
    return dumps({"name": name, "trace": str(file.resolve())})


def _keys(asked: list[str]) -> set[str]:
    return {text.partition("=")[0] for text in asked}


def _document(found: Advice, levels: list[Slo]) -> dict[str, Any]:
    return {
        "slos": [slo.text for slo in levels],
        "searched": found.searched,
        "too_large": found.too_large,
        "simulated": found.simulated,
        "met": found.met,
        "choices": {
            choice.label: {
                "reasons": list(choice.reasons),
                "policy": dict(choice.policy),
                "outcome": choice.outcome,
                "levels": dict(choice.states),
                "busiest": choice.busiest,
                "intervals": {name: interval._asdict() for name, interval in choice.intervals.items()},
            }
            for choice in found.choices
        },
        "bandwidth": found.flips if isinstance(found.flips, str) else [vars(at) for at in found.flips],
    }


def _write(folder: Path, found: Advice, document: Mapping[str, Any]) -> None:
    from splitexit.report.folder import write

    comparison = found.comparison
    write(folder, comparison.experiment, comparison.rows, document, list(comparison.seeds), csv=False)


def _show(found: Advice, levels: list[Slo], base: Experiment, seeds: str, folder: Path) -> None:
    from rich.console import Console

    from splitexit.cli.simulate import headline
    from splitexit.recommend import FILE
    from splitexit.report.tables import fitting_table

    console = Console(highlight=False)
    console.print(headline(base, seeds), markup=False)
    left = f", {found.too_large:,} too large for the device" if found.too_large else ""
    console.print(f"{found.searched:,} fixed plans searched{left}; {found.simulated} policies simulated", markup=False)
    if not found.met:
        console.print(f"nothing meets {_texts(levels)}; the nearest:", style="red", markup=False)
    console.print(
        fitting_table(
            "", _columns(levels), {choice.label: {"choice": choice} for choice in found.choices}, console.width
        )
    )
    for choice in found.choices:
        console.print(f"{choice.label}: {in_words(choice)}", markup=False, soft_wrap=True)
    for line in bandwidths(found, levels):
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"again: splitexit compare {folder / FILE} --seeds {seeds}", markup=False, soft_wrap=True)


def _texts(levels: list[Slo]) -> str:
    return " and ".join(slo.text for slo in levels)


def _columns(levels: list[Slo]) -> list[Column]:
    """Name, rank and cell of the table's columns."""

    def cell(name: str, show: Any) -> Any:
        return lambda line: _estimate(line["choice"], name, show)

    columns: list[Column] = [
        ("mean ms", 0, cell("response_ms", lambda x: f"{x:.1f}")),
        ("p95 ms", 1, cell("p95_ms", lambda x: f"{x:.1f}")),
        ("accuracy %", 0, cell("accuracy", lambda x: f"{100 * x:.2f}")),
        ("mJ", 2, cell("device_energy_mj_mean", lambda x: f"{x:.3g}")),
        ("bytes", 2, cell("uplink_bytes_mean", lambda x: f"{x:,.0f}")),
        ("utility", 1, cell("utility", lambda x: f"{x:.3f}")),
    ]
    return [*columns, (_texts(levels), 0, lambda line: line["choice"].outcome)] if levels else columns


def _estimate(choice: Choice, name: str, show: Any) -> str:
    interval = choice.intervals.get(name)
    return "-" if interval is None else f"{show(interval.mean)} ±{show(interval.half)}"


def in_words(choice: Choice) -> str:
    """What a choice is, and why it is one."""
    from splitexit.recommend import REASONS
    from splitexit.recommend.search import describe

    why = " and ".join(reason if reason in REASONS else "least far from the levels" for reason in choice.reasons)
    why = why.replace("recommended", "highest utility")
    return f"{describe(choice.policy)}; {why} on the calibration split; busiest is {choice.busiest}"


def bandwidths(found: Advice, levels: list[Slo]) -> list[str]:
    """What would change the answer, in lines."""
    from splitexit.recommend import WAYS

    if isinstance(found.flips, str):
        return [found.flips]
    first, lines = found.recommended.label, []
    for flip in found.flips:
        where = f"{'below' if flip.factor < 1 else 'above'} {flip.mbps:.3g} Mbit/s ({flip.factor:.2g} times)"
        what = [f"{flip.best} is the best of them"] if flip.best not in ("", first) else []
        if found.met and not flip.meets:
            what.append(f"{first} no longer meets {_texts(levels)}" if flip.best else f"none meets {_texts(levels)}")
        if not found.met:
            what.append(f"{_texts(levels)} is met")
        lines.append(f"{where} {' and '.join(what)}")
    for by, times in WAYS:
        if not any((flip.factor < 1) == (by < 1) for flip in found.flips):
            stays = f"{first} stays the best of them" if found.met else "nothing else is met"
            lines.append(f"down to {by**times:.2g}" if by < 1 else f"up to {by**times:g}")
            lines[-1] += f" times the bandwidth {stays}"
    return lines
